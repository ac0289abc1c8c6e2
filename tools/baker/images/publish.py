"""Publishing a verified image, and going back to the one before.

Every step can be repeated: what exists is reused, and the SSM parameters are updated last, the home region's after
all others. So publishing again completes whatever was interrupted.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from baker.aws import requests, ssm
from baker.aws.client import read_only
from baker.aws.images import Ami, Images
from baker.aws.instances import Instances
from baker.aws.sharing import CopyOrder, Sharing
from baker.aws.ssm import PublishedParameter
from baker.context import BakeContext
from baker.errors import BakeError, UsageError

FAILED = ("failed", "error", "invalid")


@dataclass(frozen=True)
class Region:
    """One region's images and instances, and the parameter that names its published image."""

    name: str
    images: Images
    machines: Instances
    sharing: Sharing
    parameter: PublishedParameter


def regions(context: BakeContext) -> list[Region]:
    """Home first, then those of [publish] regions."""
    return [region(context, name) for name in (context.config.aws.region, *context.config.publish.regions)]


def home(context: BakeContext) -> Region:
    """Where images are made."""
    return region(context, context.config.aws.region)


def region(context: BakeContext, name: str) -> Region:
    """One region by its name; makes no request."""
    clients = context.clients_in(name)
    parameter = PublishedParameter(clients, context.config.publish.ssm_parameter)
    return Region(name, Images(clients), Instances(clients), Sharing(clients), parameter)


def publish_image(context: BakeContext, image: Ami) -> dict[str, str]:
    """Make `image` the one that is launched, in every region; returns its id by region.

    Raises UsageError for an image that is not verified, BakeError or AwsError when a step fails.
    """
    check(image)
    display, (home, *abroad) = context.display, regions(context)
    replicas = {home.name: image}
    for region in abroad:
        with display.phase(f"copy to {region.name}"):
            replicas[region.name] = copied(context, region, image)
    for region in abroad:
        with display.phase(f"wait in {region.name}"):
            replicas[region.name] = region.images.wait_until_available(replicas[region.name].id)
    for region in (home, *abroad):
        with display.phase(f"prepare in {region.name}"):
            prepare(context, region, replicas[region.name])
    with display.phase("publish"):
        for region in (*abroad, home):
            region.parameter.set(replicas[region.name].id, ssm.PUBLISHED)
    return {name: found.id for name, found in replicas.items()}


def check(image: Ami) -> None:
    """Raise UsageError for an image that cannot be published."""
    if not image.verified or image.state != "available":
        what = "is not verified" if not image.verified else f"is {image.state}"
        raise UsageError(f"the image {image.id} {what}; only a verified image can be published: bake it again")


def copied(context: BakeContext, region: Region, image: Ami) -> Ami:
    """The copy of `image` in `region`: one that exists or is being made, or else a new one; one that failed goes."""
    for found in region.images.tagged({requests.TAG_COPY: image.id}):
        if found.state not in FAILED:
            return found
        context.display.note(f"  the copy {found.id} in {region.name} is {found.state}: {found.reason}", "yellow")
        region.images.remove(found)
        _forget_token(context, image, region)
    order = CopyOrder(
        image=image.id,
        region=context.config.aws.region,
        name=image.name,
        tags={**_lasting(image.tags), requests.TAG_COPY: image.id},
        kms_key=context.config.image.kms_key,
        client_token=_token(context, image, region),
    )
    return region.images.wait_until_known(region.sharing.copy(order))


def prepare(context: BakeContext, region: Region, image: Ami) -> None:
    """Set the image's own attributes, before any parameter names it."""
    wanted = context.config.publish
    if not image.imdsv2:
        region.sharing.require_imdsv2(image.id)
    if wanted.deprecate_days:
        # Not before tomorrow: EC2 refuses a time in the past, and an old image that is published is meant to be used.
        created = datetime.fromisoformat(image.created)
        earliest = datetime.now(UTC) + timedelta(days=1)
        at = max(created + timedelta(days=wanted.deprecate_days), earliest)
        region.sharing.deprecate(image.id, at.replace(microsecond=0))
    region.sharing.share(image.id, (*wanted.accounts, *wanted.organizations))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    region.images.tag(image.id, {requests.TAG_PUBLISHED: now})


def roll_back(context: BakeContext) -> tuple[str, dict[str, str]]:
    """Publish again what was published before; returns the image that was left, and the id by region of the new one.

    Raises UsageError when there is nothing to go back to, BakeError when it is gone somewhere: then nothing moves.
    """
    left, replicas = previous(context)
    home, *abroad = regions(context)
    with context.display.phase("roll back"):
        for region in (*abroad, home):
            region.parameter.set(replicas[region.name], ssm.ROLLED_BACK)
    return left, replicas


@read_only()
def previous(context: BakeContext) -> tuple[str, dict[str, str]]:
    """The image that is published, and by region the one that was before."""
    home, *abroad = regions(context)
    standing = ssm.published(home.parameter.history())
    if len(standing) < 2:
        raise UsageError(f"{home.parameter.name} has named nothing before: there is nothing to go back to")
    left, target = standing[-1], standing[-2]
    image = home.images.get(target)
    if image is None or not image.verified or image.state != "available":
        raise BakeError(f"{target}, which was published before {left}, is gone or not verified; publish another image")
    replicas = {home.name: target}
    for region in abroad:
        copies = [copy for copy in region.images.tagged({requests.TAG_COPY: target}) if copy.state == "available"]
        if not copies:
            raise BakeError(f"{region.name} has no copy of {target}; nothing was changed: bake.py publish {target}")
        replicas[region.name] = copies[0].id
    return left, replicas


def _lasting(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags without the deadline, which only an unfinished image has."""
    return {name: value for name, value in tags.items() if name != requests.TAG_DEADLINE}


def _key(context: BakeContext, image: Ami, region: Region) -> str:
    return f"{context.config.s3.prefix}/copies/{image.id}/{region.name}.json"


def _token(context: BakeContext, image: Ami, region: Region) -> str:
    """The client token of a copy, in the bucket before it is used, so that a repeated request has the same."""
    key = _key(context, image, region)
    known = context.bucket.get(key)
    if known is not None:
        return str(json.loads(known)["client_token"])
    token = str(uuid.uuid4())
    context.bucket.put(key, json.dumps({"client_token": token}).encode())
    return token


def _forget_token(context: BakeContext, image: Ami, region: Region) -> None:
    """Replace the token of a copy that failed, so that it is not returned again."""
    context.bucket.put(_key(context, image, region), json.dumps({"client_token": str(uuid.uuid4())}).encode())
