"""moto's records of images in every region, with what moto leaves out of them."""

from collections.abc import Mapping
from typing import Any

from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends

ACCOUNT = DEFAULT_ACCOUNT_ID
ROOT_DEVICE = "/dev/xvda"


def find(image_id: str) -> Any:
    """moto's record of an image, or None."""
    found = (backend.amis.get(image_id) for backend in list(ec2_backends[ACCOUNT].values()))
    return next(filter(None, found), None)


def is_named(region: str, name: str) -> bool:
    """Whether an image of this account has that name in a region."""
    return any(ami.name == name and ami.owner_id == ACCOUNT for ami in ec2_backends[ACCOUNT][region].amis.values())


def complete(image_id: str, image_tags: Mapping[str, str], snapshot_tags: Mapping[str, str]) -> None:
    """Add to a new image's record what moto leaves out."""
    ami = find(image_id)
    ami.root_device_name, ami.root_device_type, ami.hypervisor = ROOT_DEVICE, "ebs", "xen"
    ami.add_tags(dict(image_tags))
    ami.ebs_snapshot.add_tags(dict(snapshot_tags))


def deprecate(image_id: str, at: str) -> None:
    """Set when an image is deprecated, ISO 8601; empty: never."""
    find(image_id).deprecation_time = at or None


def require_imdsv2(image_id: str) -> None:
    """Set that the image's instances require IMDSv2 session tokens."""
    find(image_id).imds_support = "v2.0"


def facts(image_id: str) -> dict[str, Any]:
    """What must survive a restart of the local cloud, as JSON types."""
    ami = find(image_id)
    return {
        "region": ami.ec2_backend.region_name,
        "name": ami.name,
        "description": ami.description,
        "created": ami.creation_date.isoformat(),
        "tags": {tag["key"]: tag["value"] for tag in ami.get_tags()},
        "launch_permissions": ami.launch_permissions,
        "deprecated": getattr(ami, "deprecation_time", None) or "",
        "imds_support": getattr(ami, "imds_support", ""),
        "snapshot": ami.ebs_snapshot.id,
        "snapshot_tags": {tag["key"]: tag["value"] for tag in ami.ebs_snapshot.get_tags()},
    }
