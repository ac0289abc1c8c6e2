"""Copies an image to another region, shares it with accounts, deprecates it, and requires IMDSv2 of its instances."""

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
    """An image to copy to another region."""

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

        EC2 then sets a hop limit of 2, so a launch must set 1 itself.
        """
        with aws_errors("ModifyImageAttribute"):
            self._clients.ec2.modify_image_attribute(ImageId=image_id, ImdsSupport={"Value": "v2.0"})

    def deprecate(self, image_id: str, at: datetime) -> None:
        """Hide the image from other accounts' listings from a time on; it can still be launched."""
        with aws_errors("EnableImageDeprecation"):
            self._clients.ec2.enable_image_deprecation(ImageId=image_id, DeprecateAt=at)

    def shared_with(self, image_id: str) -> set[str]:
        """Accounts, ARNs of organizations and units, and PUBLIC, that may launch the image."""
        with aws_errors("DescribeImageAttribute"):
            described = self._clients.ec2.describe_image_attribute(ImageId=image_id, Attribute="launchPermission")
        permissions = described.get("LaunchPermissions", [])
        return {str(value) for permission in permissions for value in permission.values()}

    def share(self, image_id: str, wanted: Iterable[str]) -> None:
        """Let exactly `wanted` (accounts and ARNs) launch the image, and nobody else any more."""
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
    """In the form that EC2 takes, which depends on the kind."""
    if who == PUBLIC:
        return {"Group": "all"}
    if ":organization/" in who:
        return {"OrganizationArn": who}
    return {"OrganizationalUnitArn": who} if who.startswith("arn:") else {"UserId": who}
