"""What an image is to others: copied to a region, shared with accounts, deprecated, closed to old metadata requests."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from baker.aws import requests
from baker.aws.client import Clients, aws_errors

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import LaunchPermissionTypeDef

PUBLIC = "all"  # the group that is everybody


@dataclass(frozen=True)
class CopyOrder:
    """An image that is to be had in another region as well."""

    image: str
    region: str  # where it is
    name: str
    tags: Mapping[str, str]
    kms_key: str  # empty: AWS' own
    client_token: str


class Sharing:
    """These calls in one region."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def copy(self, order: CopyOrder) -> str:
        """Start a copy into this region; returns its id. The client token makes a repetition harmless."""
        request: requests.Request = {
            "SourceImageId": order.image,
            "SourceRegion": order.region,
            "Name": order.name,
            "Description": f"Speech-to-text machine, copied from {order.image} in {order.region}",
            "Encrypted": True,
            "ClientToken": order.client_token,
            "TagSpecifications": requests.tag_specifications(("image", "snapshot"), order.tags),
        }
        if order.kms_key:
            request["KmsKeyId"] = order.kms_key
        with aws_errors("CopyImage"):
            return self._clients.ec2.copy_image(**request)["ImageId"]

    def require_imdsv2(self, image_id: str) -> None:
        """Make the image's instances refuse requests for metadata without a session token, by default.

        EC2 gives such instances a hop limit of 2 by itself: who launches one sets 1.
        """
        with aws_errors("ModifyImageAttribute"):
            self._clients.ec2.modify_image_attribute(ImageId=image_id, ImdsSupport={"Value": "v2.0"})

    def deprecate(self, image_id: str, at: datetime) -> None:
        """Let the image vanish from others' listings at a time; it can be launched all the same."""
        with aws_errors("EnableImageDeprecation"):
            self._clients.ec2.enable_image_deprecation(ImageId=image_id, DeprecateAt=at)

    def shared_with(self, image_id: str) -> set[str]:
        """Accounts, ARNs of organizations and units, and PUBLIC, that may launch the image."""
        with aws_errors("DescribeImageAttribute"):
            told = self._clients.ec2.describe_image_attribute(ImageId=image_id, Attribute="launchPermission")
        permissions = told.get("LaunchPermissions", [])
        return {str(value) for permission in permissions for value in permission.values()}

    def share(self, image_id: str, wanted: Iterable[str]) -> None:
        """Let exactly `wanted` (accounts and ARNs) launch the image; whoever else could, cannot any more."""
        found, target = self.shared_with(image_id), set(wanted)
        permission = {
            "Add": [_permission(who) for who in sorted(target - found)],
            "Remove": [_permission(who) for who in sorted(found - target)],
        }
        changes = {what: who for what, who in permission.items() if who}
        if changes:
            with aws_errors("ModifyImageAttribute"):
                self._clients.ec2.modify_image_attribute(ImageId=image_id, LaunchPermission=changes)  # type: ignore[arg-type]


def _permission(who: str) -> "LaunchPermissionTypeDef":
    """One of the kinds that EC2 knows, by what it looks like."""
    if who == PUBLIC:
        return {"Group": "all"}
    if ":organization/" in who:
        return {"OrganizationArn": who}
    return {"OrganizationalUnitArn": who} if who.startswith("arn:") else {"UserId": who}
