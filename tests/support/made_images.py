"""Images as bakes leave them, without the bakes, and a launcher that publishes them to others and abroad."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from baker.aws import requests
from baker.aws.images import Ami
from baker.config import ImageSection, LaunchSection, PublishSection
from baker.context import BakeContext
from baker.images.publish import regions
from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends

from support.fake_cloud import REGION, Cloud

ABROAD = "eu-west-1"
ACCOUNT = "111122223333"
UNIT = "arn:aws:organizations::444455556666:ou/o-abc123/ou-ab12-cdefgh34"


def publisher(cloud: Cloud, **changes: Any) -> BakeContext:
    """A launcher that publishes to a second region, but for `changes` of its [publish]."""
    publish = PublishSection(regions=(ABROAD,), **changes)
    image = ImageSection(kms_key="alias/images")
    return replace(cloud.context, config=replace(cloud.context.config, publish=publish, image=image))


KEYS = "keys.txt"  # in the tree


def served(cloud: Cloud, **changes: Any) -> BakeContext:
    """A launcher of machines that serve, whose tree has a file of keys; groups of it start without machines."""
    (cloud.context.root / KEYS).write_text(f"newsroom {'a' * 64}\n")
    group = cloud.ec2.create_security_group(GroupName="serve", Description="d")["GroupId"]
    launch = LaunchSection(**{"security_groups": (group,), "min_size": 0, **changes})
    return replace(cloud.context, config=replace(cloud.context.config, launch=launch))


def record(image_id: str, region: str = REGION) -> Any:
    """moto's own record of an image."""
    return ec2_backends[DEFAULT_ACCOUNT_ID][region].amis[image_id]


def made(cloud: Cloud, name: str, *, verified: bool = True) -> Ami:
    """An image as a bake leaves it."""
    image_id = cloud.ec2.register_image(Name=f"transcribe-{name}", RootDeviceName="/dev/xvda")["ImageId"]
    time_ = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=len(cloud.images()))
    record(image_id).creation_date = time_
    tags = {requests.TAG_BAKE: name, "project": "p"} | ({requests.TAG_VERIFIED: "true"} if verified else {})
    cloud.ec2.create_tags(Resources=[image_id], Tags=requests.tag_list(tags))
    found = cloud.context.images.get(image_id)
    assert found
    return found


def client(cloud: Cloud, service: str, region: str) -> Any:
    endpoint = cloud.context.config.aws.endpoint_url
    return cloud.session.client(service, region_name=region, endpoint_url=endpoint)  # type: ignore[call-overload]


def named(context: BakeContext) -> dict[str, str]:
    """The published image by region."""
    return {region.name: region.parameter.current() for region in regions(context)}


def copies(cloud: Cloud) -> list[Any]:
    found: list[Any] = client(cloud, "ec2", ABROAD).describe_images(Owners=["self"])["Images"]
    return found
