"""Launches a machine of a bake, or finds the one that an earlier launcher launched."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from baker import config
from baker.aws import requests
from baker.aws.images import Ami
from baker.aws.placement import Refusal, after, is_refusal
from baker.aws.requests import Place
from baker.bake import acceptance
from baker.bake import attempt as attempts
from baker.bake.attempt import MachineAttempt, RecordedAttempt, Recording
from baker.context import BakeContext
from baker.errors import AwsError, BakeError
from baker.inputs import user_data
from baker.inputs.payload import Payload


@dataclass(frozen=True)
class MachineTask:
    """What a machine is launched for: its mode, the image it starts from, and what its user-data will say."""

    bake: str
    mode: str  # acceptance.BAKE or acceptance.VERIFY
    image: Ami
    volume_gb: int
    places: tuple[Place, ...]
    payload: Payload | None = None
    recording: Recording | None = None
    origin: Mapping[str, Any] | None = None  # of the image to be made, for its manifest
    keep: bool = False  # if the machine fails, it stays until its deadline


@dataclass(frozen=True)
class RunningMachine:
    """A machine that was launched, and ends itself at `deadline`."""

    attempt: MachineAttempt
    instance: str
    deadline: datetime
    task: MachineTask
    spot: bool = False  # AWS may reclaim it, and it cannot be stopped
    signer: str = ""  # whose credentials signed its addresses; empty: an earlier launcher's


def obtain(context: BakeContext, task: MachineTask) -> RunningMachine:
    """The machine that an earlier launcher asked for, or else a new one."""
    recorded = attempts.recall(context.bucket, MachineAttempt(task.bake, task.mode, context.config.s3.prefix))
    if recorded is None:
        return launch(context, task)
    attempt = recorded.attempt
    living = context.machines.ours(attempt.bake, attempt.mode)
    if living:
        return RunningMachine(attempt, living[0].id, recorded.deadline, task, recorded.spot)
    if context.now() > recorded.deadline:
        raise BakeError(f"the machine of {attempt.id} is gone: its time ended at {recorded.deadline:%H:%M} UTC")
    return _repeat(context, task, recorded)


def _repeat(context: BakeContext, task: MachineTask, recorded: RecordedAttempt) -> RunningMachine:
    """Send a recorded request again. If AWS received it before, its client token yields the same machine."""
    attempt = recorded.attempt
    context.renew_lease()
    try:
        instance = context.machines.run(recorded.request)
        return RunningMachine(attempt, instance, recorded.deadline, task, recorded.spot)
    except AwsError as error:
        if error.code == "IdempotentInstanceTerminated":
            raise BakeError(f"the machine of {attempt.id} ended while no launcher was there") from None
        if not is_refusal(error):
            raise
        return launch(context, task, attempt.number, recorded.etag)


def launch(context: BakeContext, task: MachineTask, number: int = 1, etag: str = "") -> RunningMachine:
    """Launch a new machine in the first place that has room. `etag` is that of this attempt's record, if there is one.

    Every request has its own client token, in the bucket before it is used: repeated after a crash, it finds the
    instance that the first one made instead of making a second one.
    """
    attempt = MachineAttempt(task.bake, task.mode, context.config.s3.prefix, number, keep=task.keep)
    seconds = context.config.bake.deadline_minutes * 60
    deadline = context.now() + timedelta(seconds=seconds)
    signer = sign(context, task, attempt, seconds)
    spec = _spec(context, task, attempt, seconds, deadline)
    waiting, refused = list(task.places), list[Refusal]()
    while waiting:
        place = waiting.pop(0)
        request = requests.run_request(spec, place, str(uuid.uuid4()))
        context.renew_lease()
        etag = attempts.record(context.bucket, attempt, request, deadline, etag)
        try:
            instance = context.machines.run(request)
            return RunningMachine(attempt, instance, deadline, task, place.market == config.SPOT, signer)
        except AwsError as error:
            if not is_refusal(error):
                raise
            refused.append(Refusal(place, error))
            context.display.note(f"  not to be had: {refused[-1]}", "yellow")
            waiting = after(refused[-1], waiting)
    reasons = {refusal.error.code: str(refusal.error) for refusal in refused}
    raise BakeError(f"AWS has no machine for us now ({'; '.join(map(str, refused))}): {'; '.join(reasons.values())}")


def sign(context: BakeContext, task: MachineTask, attempt: MachineAttempt, seconds: float) -> str:
    """Store signed addresses for a machine that has so many seconds; returns whose credentials have signed them."""
    signer = context.bucket.signer()
    seconds += attempts.GRACE_SECONDS
    attempts.store_addresses(attempt, context.bucket, seconds, payload=task.payload, recording=task.recording)
    return signer


def _spec(
    context: BakeContext, task: MachineTask, attempt: MachineAttempt, seconds: int, deadline: datetime
) -> requests.MachineSpec:
    """The machine to ask for, wherever it may run."""
    parameters = attempts.parameters(
        attempt, context.bucket, seconds, payload=task.payload, recording=task.recording, origin=task.origin
    )
    return requests.MachineSpec(
        image_id=task.image.id,
        root_device=task.image.root_device,
        volume_gb=task.volume_gb,
        security_group=context.networks.security_group(context.config.instance, context.config.tags),
        user_data=user_data.render(context.root, parameters),
        tags=attempt.tags(context.config.tags, deadline),
        kms_key=context.config.image.kms_key,
        profile=context.config.instance.profile if task.keep else "",
        initialization_rate=context.config.instance.initialization_rate if task.mode == acceptance.VERIFY else 0,
    )
