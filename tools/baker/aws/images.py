"""Machine images: finds, creates, waits for and removes them. Makes no decisions; returns plain values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from baker.aws import requests
from baker.aws.client import Clients, aws_errors, eventually, tag_filters, unless_missing, wait_for
from baker.config import SourceSection
from baker.errors import AwsError, BakeError, UnfinishedError, UsageError

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, ImageTypeDef

IMAGE_TIMEOUT = 3600.0  # seconds; botocore's own waiter gives up after ten minutes, and a large volume takes longer
KNOWN_TIMEOUT = 120.0  # seconds from an image's id to its description


@dataclass(frozen=True)
class Ami:
    """An image as AWS describes it."""

    id: str
    name: str
    state: str
    created: str  # ISO 8601
    root_device: str
    volume_gb: int
    snapshots: tuple[str, ...]
    tags: Mapping[str, str]
    reason: str = ""
    deprecated: str = ""  # when it will be, or has been: ISO 8601
    architecture: str = "x86_64"
    imdsv2: bool = False  # its instances answer to session tokens only, unless the launch says otherwise

    @property
    def verified(self) -> bool:
        """Whether a machine that booted from it proved itself."""
        return self.tags.get(requests.TAG_VERIFIED) == "true"

    @property
    def bake(self) -> str:
        """The bake that made it; empty: none did."""
        return self.tags.get(requests.TAG_BAKE, "")

    def overdue(self, now: datetime) -> bool:
        """Whether the time of the bake that made it is over."""
        return requests.overdue(requests.parse_time(self.tags.get(requests.TAG_DEADLINE, "")), now)


def newest_first(image: Ami) -> tuple[str, str]:
    """Sort key, for descending order. EC2's times are in whole seconds; names of bakes sort by time as well."""
    return image.created, image.name


class Images:
    """The images that one account sees in one region."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def source(self, source: SourceSection) -> Ami:
        """The image to start from; raises UsageError when there is none."""
        if source.owner:
            return self._newest(source.owner, source.name)
        image_id = source.ami
        if source.ssm_parameter:
            with aws_errors(f"GetParameter {source.ssm_parameter}"):
                image_id = self._clients.ssm.get_parameter(Name=source.ssm_parameter)["Parameter"].get("Value", "")
        image = self.get(image_id)
        if image is None:
            raise UsageError(f"[source] there is no image {image_id} in this region")
        return image

    def get(self, image_id: str) -> Ami | None:
        """The image, or None when there is none (yet)."""
        found = unless_missing(
            "DescribeImages", lambda: self._clients.ec2.describe_images(ImageIds=[image_id])["Images"]
        )
        return _image(found[0]) if found else None

    def tagged(self, tags: Mapping[str, str]) -> list[Ami]:
        """This account's images with all these tags, newest first."""
        return self._own(tag_filters(tags))

    def ours(self) -> list[Ami]:
        """This account's images that bakes made, newest first."""
        return self._own([{"Name": "tag-key", "Values": [requests.TAG_BAKE]}])

    def count(self) -> int:
        """How many images this account has, whoever made them."""
        return len(self._own([]))

    def _own(self, filters: "list[FilterTypeDef]") -> list[Ami]:
        with aws_errors("DescribeImages"):
            pages = self._clients.ec2.get_paginator("describe_images")
            found = pages.paginate(Owners=["self"], Filters=filters)
            images = [_image(image) for page in found for image in page["Images"]]
        return sorted(images, key=newest_first, reverse=True)

    def named(self, prefix: str) -> list[Ami]:
        """This account's images of a bake whose names begin with `prefix` and a hyphen, newest first."""
        named = self._own([{"Name": "name", "Values": [f"{prefix}-*"]}])
        return [image for image in named if requests.TAG_BAKE in image.tags]

    def create(self, request: requests.Request, bake: str) -> str:
        """Start an image of a stopped instance, unless an earlier launcher has; returns its id.

        CreateImage has no client token: if its response is lost, the bake's tag finds the image.
        """
        earlier = self.tagged({requests.TAG_BAKE: bake})
        if earlier:
            return earlier[0].id

        def create() -> str:
            with aws_errors("CreateImage"):
                return self._clients.ec2.create_image(**request)["ImageId"]

        try:
            return eventually(self._clients, create)
        except AwsError as error:
            if error.code != "InvalidAMIName.Duplicate":
                raise
        return eventually(self._clients, lambda: self._started(bake))

    def _started(self, bake: str) -> str:
        started = self.tagged({requests.TAG_BAKE: bake})
        if not started:
            raise AwsError(f"AWS has an image of {bake} and does not show it", "InvalidAMIID.NotFound")
        return started[0].id

    def wait_until_known(self, image_id: str) -> Ami:
        """The image once EC2 describes it, which may be a moment after EC2 has returned its id."""
        image = wait_for(lambda: self.get(image_id), KNOWN_TIMEOUT, self._clients.sleep)
        if image is None:
            raise BakeError(f"EC2 returned the image {image_id} but does not describe it after {KNOWN_TIMEOUT:.0f} s")
        return image

    def wait_until_available(self, image_id: str, progress: Callable[[], str] = lambda: "") -> Ami:
        """The image once it can be used. Raises BakeError when it fails, and UnfinishedError when it takes too long.

        Too long is IMAGE_TIMEOUT in which EC2's word for how far it is, by `progress`, has not changed.
        """

        def poll() -> Ami | None:
            image = self.get(image_id)
            if image and image.state not in ("available", "pending", "transient"):
                raise BakeError(f"the image {image_id} is {image.state}: {image.reason or 'no reason given'}")
            return image if image and image.state == "available" else None

        before = ""
        while (image := wait_for(poll, IMAGE_TIMEOUT, self._clients.sleep)) is None:
            now = progress()
            if now == before:
                minutes = f"{IMAGE_TIMEOUT / 60:.0f} minutes"
                raise UnfinishedError(f"the image {image_id} is still pending, without progress for {minutes} ({now})")
            before = now
        return image

    def remove(self, image: Ami) -> None:
        """Deregister an image and delete its snapshots."""
        ec2 = self._clients.ec2
        unless_missing("DeregisterImage", lambda: ec2.deregister_image(ImageId=image.id))
        for snapshot in image.snapshots:
            unless_missing("DeleteSnapshot", lambda name=snapshot: ec2.delete_snapshot(SnapshotId=name))  # type: ignore[misc]

    def tag(self, image_id: str, tags: Mapping[str, str]) -> None:
        """Add tags to an image."""

        def tag() -> None:
            with aws_errors("CreateTags"):
                self._clients.ec2.create_tags(Resources=[image_id], Tags=requests.tag_list(tags))

        eventually(self._clients, tag)

    def _newest(self, owner: str, name: str) -> Ami:
        filters: list[FilterTypeDef] = [
            {"Name": "name", "Values": [name]},
            {"Name": "state", "Values": ["available"]},
        ]
        with aws_errors("DescribeImages"):
            found = self._clients.ec2.describe_images(Owners=[owner], Filters=filters)["Images"]
        if not found:
            raise UsageError(f"[source] {owner} has no available image named {name!r}")
        return _image(max(found, key=lambda image: image.get("CreationDate", "")))


def _image(described: "ImageTypeDef") -> Ami:
    disks = [mapping["Ebs"] for mapping in described.get("BlockDeviceMappings", []) if "Ebs" in mapping]
    return Ami(
        id=described["ImageId"],
        name=described.get("Name", ""),
        state=described.get("State", "pending"),
        created=described.get("CreationDate", ""),
        root_device=described.get("RootDeviceName", "/dev/sda1"),
        volume_gb=max((disk.get("VolumeSize", 0) for disk in disks), default=0),
        snapshots=tuple(disk["SnapshotId"] for disk in disks if "SnapshotId" in disk),
        tags={tag.get("Key", ""): tag.get("Value", "") for tag in described.get("Tags", [])},
        reason=described.get("StateReason", {}).get("Message", ""),
        deprecated=described.get("DeprecationTime", ""),
        architecture=described.get("Architecture", "x86_64"),
        imdsv2=described.get("ImdsSupport") == "v2.0",
    )
