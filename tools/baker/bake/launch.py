"""Starting a machine of a bake, or finding the one that an earlier launcher started."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from baker.aws import requests
from baker.aws.images import Image
from baker.aws.placement import Refusal, after, is_refusal
from baker.aws.requests import Place
from baker.bake import attempt as build
from baker.bake.attempt import Audio, Build
from baker.context import Context
from baker.errors import AwsError, BakeError
from baker.inputs import user_data
from baker.inputs.payload import Payload


@dataclass(frozen=True)
class Job:
    """What a machine is wanted for: the mode of the errand, the image to start from, and what it is to be told."""

    bake: str
    mode: str  # signal.BAKE or signal.VERIFY
    image: Image
    volume_gb: int
    places: tuple[Place, ...]
    payload: Payload | None = None
    audio: Audio | None = None
    origin: Mapping[str, Any] | None = None  # of the image to be, for its manifest
    keep: bool = False  # if it fails, the machine stays until its deadline


@dataclass(frozen=True)
class Running:
    """A machine on its errand, which ends itself at `deadline`."""

    errand: Build
    instance: str
    deadline: datetime
    spot: bool = False  # AWS may take it away, and it cannot be stopped


def obtain(context: Context, job: Job) -> Running:
    """The machine for `job`: the one that an earlier launcher asked for, or else a new one."""
    started = build.recall(context.bucket, Build(job.bake, job.mode, context.config.s3.prefix))
    if started is None:
        return launch(context, job)
    errand = started.errand
    living = context.machines.ours(errand.bake, errand.mode)
    if living:
        return Running(errand, living[0].id, started.deadline, started.spot)
    if context.now() > started.deadline:
        raise BakeError(f"the machine of {errand.id} is gone: its time ended at {started.deadline:%H:%M} UTC")
    return _ask_again(context, job, started)


def _ask_again(context: Context, job: Job, started: build.Started) -> Running:
    """Repeat a request that may never have been heard: by its token, one that was heard gives the same machine."""
    errand = started.errand
    context.hold()
    try:
        return Running(errand, context.machines.run(started.request), started.deadline, started.spot)
    except AwsError as error:
        if error.code == "IdempotentInstanceTerminated":
            raise BakeError(f"the machine of {errand.id} ended while no launcher was there") from None
        if not is_refusal(error):
            raise
        return launch(context, job, errand.attempt, started.etag)


def launch(context: Context, job: Job, attempt: int = 1, recorded: str = "") -> Running:
    """Start a new machine, wherever there is room first; `recorded` is the tag of what this attempt asked for before.

    Every request has its own client token, in the bucket before it is used: repeated after a crash, it finds
    the instance that the first one made instead of making a second one.
    """
    config = context.config
    errand = Build(job.bake, job.mode, config.s3.prefix, attempt, keep=job.keep)
    seconds = config.bake.deadline_minutes * 60
    deadline = context.now() + timedelta(seconds=seconds)
    told = build.parameters(errand, context.bucket, seconds, payload=job.payload, audio=job.audio, origin=job.origin)
    spec = requests.MachineSpec(
        image_id=job.image.id,
        root_device=job.image.root_device,
        volume_gb=job.volume_gb,
        security_group=context.networks.security_group(config.instance, config.tags),
        user_data=user_data.render(context.root, told),
        tags=errand.tags(config.tags, deadline),
        kms_key=config.image.kms_key,
    )
    waiting, refused = list(job.places), list[Refusal]()
    while waiting:
        place = waiting.pop(0)
        request = requests.run_request(spec, place, str(uuid.uuid4()))
        context.hold()
        recorded = build.record(context.bucket, errand, request, deadline, recorded)
        try:
            return Running(errand, context.machines.run(request), deadline, place.market == requests.SPOT)
        except AwsError as error:
            if not is_refusal(error):
                raise
            refused.append(Refusal(place, error))
            context.display.note(f"  not to be had: {refused[-1]}", "yellow")
            waiting = after(refused[-1], waiting)
    reasons = {refusal.error.code: str(refusal.error) for refusal in refused}
    raise BakeError(f"AWS has no machine for us now ({'; '.join(map(str, refused))}): {'; '.join(reasons.values())}")
