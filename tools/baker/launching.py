"""Starting a machine of a bake, and ending everything that a bake made."""

import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from baker import build, launchspec, userdata
from baker.awscalls import CAPACITY_CODES
from baker.build import Build
from baker.context import Context
from baker.errors import AwsError, BakeError
from baker.images import Image


def launch(context: Context, errand: Build, image: Image, volume_gb: int, parameters: Mapping[str, Any]) -> str:
    """Start a machine from `image` on `errand`, wherever there is room first; returns the instance's id.

    Every attempt has its own client token, in the bucket before it is used: repeated after a crash, it finds
    the instance that the first attempt made instead of making a second one.
    """
    config = context.config
    deadline = config.bake.deadline_minutes * 60
    spec = launchspec.MachineSpec(
        image_id=image.id,
        root_device=image.root_device,
        volume_gb=volume_gb,
        security_group=context.machines.security_group(config.instance, config.tags),
        user_data=userdata.render(context.root, parameters),
        tags=errand.tags(config.tags, deadline),
        kms_key=config.image.kms_key,
    )
    for place in places(context):
        token = str(uuid.uuid4())
        facts = {"client_token": token, "image": image.id, "type": place.instance_type, "subnet": place.subnet}
        build.record(context.bucket, errand, facts)
        try:
            return context.machines.run(launchspec.run_request(spec, place, token))
        except AwsError as error:
            if error.code not in CAPACITY_CODES:
                raise
            context.display.note(f"  no room for {place.instance_type} {place.subnet}: {error.code}", "yellow")
    raise BakeError(f"AWS has no capacity for {', '.join(config.instance.types)} in any subnet; try again later")


def places(context: Context) -> Iterator[launchspec.Place]:
    """Where to try, in order."""
    for kind in context.config.instance.types:
        for subnet in context.config.instance.subnets or ("",):
            yield launchspec.Place(kind, subnet)


def sweep(context: Context, bake: str) -> None:
    """End every instance of a bake and remove every image of it that is not verified.

    Found by tag, since the answer that would have told the id may be what was lost.
    """
    mine = {launchspec.TAG_BAKE: bake}
    instances = context.machines.tagged(mine)
    for instance_id in instances:
        context.machines.terminate(instance_id)
    for image in context.images.tagged(mine):
        if image.tags.get(launchspec.TAG_VERIFIED) != "true":
            context.images.remove(image)
    for instance_id in instances:
        context.machines.wait(instance_id, "terminated")
