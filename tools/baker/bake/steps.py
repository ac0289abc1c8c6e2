"""What each step of a bake does; pipeline.py has their order."""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar

from baker.aws import requests
from baker.aws.images import IMAGE_TIMEOUT, Ami
from baker.bake import acceptance, attempt
from baker.bake.acceptance import AcceptedSignal
from baker.bake.attempt import MachineAttempt, Recording
from baker.bake.launch import MachineTask, RunningMachine
from baker.bake.plan import BakePlan, image_origin
from baker.bake.run import load_accepted_signal, run_until_signal
from baker.context import BakeContext
from baker.display.progress import Event
from baker.images import manifest
from baker.recovery import cleanup

T = TypeVar("T")


@dataclass(frozen=True)
class BakeOptions:
    """What the command line adds to the configuration."""

    force: bool = False  # bake even if an image from the same inputs exists
    recording: Recording | None = None  # to transcribe on the finished image
    keep: bool = False  # if a machine fails, it stays until its deadline


@dataclass
class BakeRun:
    """A bake while it runs: what its steps work with, and what they have made so far."""

    context: BakeContext
    plan: BakePlan
    name: str
    options: BakeOptions
    machine: RunningMachine | None = None  # that this launcher has followed
    baked: AcceptedSignal | None = None
    image: Ami | None = None
    verified: AcceptedSignal | None = None

    def attempt(self, mode: str) -> MachineAttempt:
        """The first attempt at the machine of a mode."""
        return MachineAttempt(self.name, mode, self.context.config.s3.prefix)


def find_image(run: BakeRun) -> None:
    """If an earlier launcher began the image, it had accepted the machine's signal: load that signal."""
    found = run.context.images.tagged({requests.TAG_BAKE: run.name})
    if found:
        sha256 = run.plan.payload.sha256
        run.baked = load_accepted_signal(run.context, run.plan, run.attempt(acceptance.BAKE), sha256)
        run.image = found[0]


def upload(run: BakeRun) -> None:
    """The payload."""
    with run.context.display.phase("upload payload"):
        key = attempt.payload_key(run.context.config.s3.prefix, run.plan.payload)
        run.context.bucket.put(key, run.plan.payload.data)


def launch_follow_accept(run: BakeRun) -> None:
    """A machine that bakes itself until its signal is accepted."""
    plan = run.plan
    origin = image_origin(run.context, run.name, plan.content_hash, plan.source, plan.declared)
    task = MachineTask(run.name, acceptance.BAKE, plan.source, plan.volume_gb, plan.places, payload=plan.payload)
    task = replace(task, origin=origin, keep=run.options.keep)
    run.machine, run.baked = run_until_signal(run.context, plan, task, plan.payload.sha256)


def stop(run: BakeRun) -> None:
    """The machine, so that its disk is still; a spot machine cannot be stopped, and has flushed its disk."""
    machine = made(run.machine)
    if not machine.spot:
        with run.context.display.phase("stop machine"):
            run.context.renew_lease()
            run.context.machines.stop(machine.instance)


def create_image(run: BakeRun) -> None:
    """Of the machine; an image that an earlier launcher began is only waited for."""
    context = run.context
    with context.display.phase("create image"):
        image_id = run.image.id if run.image else _start_image(run, made(run.machine), made(run.baked))
        run.image = context.images.wait_until_available(image_id, lambda: context.volumes.progress(run.name))
    if run.machine:
        emit_image(context, run.image)


def _start_image(run: BakeRun, machine: RunningMachine, baked: AcceptedSignal) -> str:
    context = run.context
    title = f"{context.config.image.name_prefix}-{run.name}"
    document = manifest.keep(context.bucket, context.config.s3.prefix, run.name, baked.report)
    tags = {**image_tags(context, run.plan, run.name, title), requests.TAG_MANIFEST: manifest.digest(document)}
    request = requests.image_request(machine.instance, title, tags, running=machine.spot)
    context.renew_lease()
    return context.images.create(request, run.name)


def terminate_baked_machine(run: BakeRun) -> None:
    """The machine that the image was made of."""
    machines = run.context.machines
    baked = [run.machine.instance] if run.machine else [m.id for m in machines.ours(run.name, acceptance.BAKE)]
    for instance in baked:
        machines.terminate(instance)


def verify(run: BakeRun) -> None:
    """A machine that boots from the image must prove itself again, unless it has and only cleaning up was missed."""
    if made(run.image).verified:
        sha256 = run.plan.payload.sha256
        run.verified = load_accepted_signal(run.context, run.plan, run.attempt(acceptance.VERIFY), sha256)
    else:
        boot_image(run)


def boot_image(run: BakeRun) -> None:
    """Boot a machine from the image and follow it until its signal is accepted."""
    context, plan, image, recording = run.context, run.plan, made(run.image), run.options.recording
    if recording is not None:
        recording = replace(recording, language=recording.language or plan.model["language"])
        key = run.attempt(acceptance.VERIFY).recording_key(recording)
        context.bucket.put(key, recording.path.read_bytes())
    volume_gb = max(plan.volume_gb, image.volume_gb)
    task = MachineTask(run.name, acceptance.VERIFY, image, volume_gb, plan.places, recording=recording)
    task = replace(task, keep=run.options.keep)
    _, run.verified = run_until_signal(context, plan, task, image.tags.get(requests.TAG_PAYLOAD, ""))
    manifest.check_booted(run.verified.report, image)


def mark_verified_and_sweep(run: BakeRun) -> None:
    """Only now is the image called verified; everything else of the bake is removed."""
    context, image = run.context, made(run.image)
    with context.display.phase("clean up"):
        context.renew_lease()
        if not image.verified:
            context.images.tag(image.id, {requests.TAG_VERIFIED: "true"})
        cleanup.sweep(context, run.name)
    run.image = replace(image, tags={**image.tags, requests.TAG_VERIFIED: "true"})


def image_tags(context: BakeContext, plan: BakePlan, name: str, title: str) -> dict[str, str]:
    """The tags of a new image. It is not called verified before it is, and until then it has a deadline."""
    seconds = context.config.bake.deadline_minutes * 60 + IMAGE_TIMEOUT
    return {
        **context.config.tags,
        "Name": title,
        requests.TAG_BAKE: name,
        requests.TAG_DEADLINE: (context.now() + timedelta(seconds=seconds)).isoformat(timespec="seconds"),
        requests.TAG_CONTENT: plan.content_hash,
        requests.TAG_INPUTS: plan.inputs_tag,
        requests.TAG_PAYLOAD: plan.payload.sha256,
        requests.TAG_MODEL: f"{plan.model['id']}@{plan.model['revision']}",
    }


def emit_image(context: BakeContext, image: Ami, *, reused: bool = False) -> None:
    """Emit the event that an image exists."""
    context.display.emit(Event.IMAGE, image=image.id, name=image.name, verified=image.verified, reused=reused)


def made(thing: T | None) -> T:
    """What an earlier step must have made."""
    assert thing is not None
    return thing
