"""moto's own records of instances and images, read and corrected in place."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.ec2.models.amis import Ami
from moto.ec2.models.instances import StateReason
from moto.s3.models import s3_backends

from . import baseroot
from .images import Image

ACCOUNT = DEFAULT_ACCOUNT_ID
SOURCE_OWNER = "136693071363"  # Debian's account, which owns its images on AWS
SOURCE_NAME = f"debian-12-amd64-{baseroot.key()[:8]}"
ROOT_DEVICE = "/dev/xvda"
CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}


class Records:
    """One region's EC2 records, and the bucket."""

    def __init__(self, region: str) -> None:
        self.region = region
        self._ec2: Any = ec2_backends[ACCOUNT][region]

    def create_bucket(self, name: str) -> None:
        s3_backends[ACCOUNT]["aws"].create_bucket(name, self.region)

    # --- instances

    def state(self, instance_id: str) -> str:
        """An instance's state; `terminated` if there is none."""
        instance = self._ec2.get_instance_by_id(instance_id)
        return str(instance.state) if instance else "terminated"

    def set_state(self, instance_id: str, state: str, *, code: str = "", reason: str = "") -> None:
        """Move an instance on; `code` and `reason` are EC2's StateReason."""
        instance = self._ec2.get_instance_by_id(instance_id)
        if instance is None:
            return
        if state == "terminated" and instance.state != "terminated":
            instance.terminate()
        instance._state.name, instance._state.code = state, CODES[state]
        if code:
            instance._reason = reason
            instance.state_reason = StateReason(f"{code}: {reason}", code)

    def ends_on_shutdown(self, instance_id: str) -> bool:
        """Whether a power-off from inside terminates the instance."""
        instance = self._ec2.get_instance_by_id(instance_id)
        return bool(instance and str(instance.instance_initiated_shutdown_behavior) == "terminate")

    # --- images

    def has_image_named(self, name: str) -> bool:
        return any(ami.name == name and ami.owner_id == ACCOUNT for ami in self._ec2.amis.values())

    def add_source(self, image: Image) -> None:
        """Offer the image that every bake starts from, as Debian would."""
        self._add(image.id, owner=SOURCE_OWNER, facts={"name": SOURCE_NAME, "description": "Debian 12 (local cloud)"})

    def restore(self, image: Image) -> None:
        """Offer an image of an earlier run again, with its tags and its snapshot's id."""
        ami = self._add(image.id, owner=ACCOUNT, facts=image.facts)
        ami.launch_permissions = list(image.facts.get("launch_permissions", []))
        snapshot = self._ec2.snapshots.pop(ami.ebs_snapshot.id)
        snapshot.id = image.facts.get("snapshot", snapshot.id)
        self._ec2.snapshots[snapshot.id] = snapshot
        snapshot.add_tags(image.facts.get("snapshot_tags", {}))

    def finish_image(self, image_id: str, snapshot_tags: Mapping[str, str]) -> None:
        """Complete what moto leaves out of a new image."""
        ami = self._ec2.amis[image_id]
        ami.root_device_name, ami.root_device_type, ami.hypervisor = ROOT_DEVICE, "ebs", "xen"
        ami.ebs_snapshot.add_tags(dict(snapshot_tags))

    def facts(self, image_id: str) -> dict[str, Any]:
        """What must outlive this run of the local cloud."""
        ami = self._ec2.amis[image_id]
        return {
            "name": ami.name,
            "description": ami.description,
            "created": ami.creation_date.isoformat(),
            "tags": {tag["key"]: tag["value"] for tag in ami.get_tags()},
            "launch_permissions": ami.launch_permissions,
            "snapshot": ami.ebs_snapshot.id,
            "snapshot_tags": {tag["key"]: tag["value"] for tag in ami.ebs_snapshot.get_tags()},
        }

    def _add(self, image_id: str, *, owner: str, facts: Mapping[str, Any]) -> Any:
        created = facts.get("created")
        ami = Ami(
            self._ec2,
            image_id,
            name=facts.get("name"),
            description=facts.get("description"),
            owner_id=owner,
            virtualization_type="hvm",
            architecture="x86_64",
            hypervisor="xen",
            root_device_type="ebs",
            root_device_name=ROOT_DEVICE,
            region_name=f"{self.region}a",
            creation_date=datetime.fromisoformat(created) if created else None,
            tags=dict(facts.get("tags", {})),
        )
        self._ec2.amis[image_id] = ami
        return ami
