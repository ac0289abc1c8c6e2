"""A bake, as a flat recipe. Each line of it is a phase that a person sees and the report times.

Every step finds what an earlier launcher did of it before it does it: resuming a bake is going through it again.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

from baker import (
    bakes,
    build,
    errands,
    estimates,
    events,
    failing,
    interrupts,
    launchspec,
    leases,
    manifest,
    permissions,
    planning,
    report,
    signal,
    sweeping,
)
from baker.awscalls import only_looking
from baker.build import Audio, Build
from baker.config import Config, Source
from baker.context import Context
from baker.errors import AwsError, BakeError, Interrupted, UsageError
from baker.images import IMAGE_TIMEOUT, Image
from baker.launching import Job
from baker.outcome import Outcome
from baker.pillar import merge
from baker.planning import Plan


@dataclass(frozen=True)
class Options:
    """What this run is asked for beyond the configuration."""

    force: bool = False  # bake even if an image from the same inputs exists
    audio: Audio | None = None  # a recording to transcribe on the finished image
    keep: bool = False  # a machine that fails stays until its deadline


def bake(context: Context, options: Options) -> Outcome:
    """From the tree to a verified image. On any failure nothing is left but the log and the reason."""
    with context.display.phase("plan"):
        plan = planning.make(context)
    for untracked in plan.untracked:
        context.display.note(f"  left out, since git does not track it: {untracked}", "yellow")
    name = build.new_bake_name()
    with leases.held(context, name) as alone:
        with only_looking():
            bakes.refuse_beside(bakes.unfinished(alone))
        if plan.reusable and not options.force:
            return reuse(alone, plan, plan.reusable, name, options)
        permissions.require(planning.permitted(alone, plan))
        remember(alone, plan)
        return finish(alone, plan, bakes.begin(alone, plan, name), options)


def resume(context: Context, name: str) -> Outcome:
    """Continue a bake whose launcher died; it ends as any other: in a verified image, or with nothing left."""
    with context.display.phase("plan"):
        begun = bakes.load(context, name)
        if begun.end == bakes.FAILED:
            raise UsageError(f"{name} has failed, which no resuming can mend: {begun.reason}")
        plan = planning.make(replace(context, config=_as_begun(context, begun)))
        if plan.content_hash != begun.content_hash:
            raise UsageError(
                f"the tree is not what {name} was begun from: check that out again, or `bake.py reap --bake {name}`"
            )
    with leases.held(context, name) as alone:
        remember(alone, plan)
        return finish(alone, plan, begun, Options())


def remember(context: Context, plan: Plan) -> None:
    """Let the display estimate by the last bake, as its report tells; without one there is nothing to go by."""
    if plan.newest is None:
        return
    with suppress(AwsError):
        told = report.load(context.bucket, report.key_of(context.config.s3.prefix, plan.newest.bake))
        context.display.estimate = estimates.of(told)


def _as_begun(context: Context, begun: bakes.Bake) -> Config:
    """The configuration with what it then resolved to: a newer source image or model commit is another bake's."""
    pillar = merge(context.config.pillar, {"model": {"revision": begun.model_revision}})
    return replace(context.config, source=Source(ami=begun.source_ami), pillar=pillar)


def finish(context: Context, plan: Plan, begun: bakes.Bake, options: Options) -> Outcome:
    """Whatever is still to do of a bake."""
    name = begun.name
    context.display.tell(events.BAKE, bake=name, content_hash=plan.content_hash)
    try:
        with failing.swept_on_failure(context, name):
            image, baked = make_image(context, plan, name, keep=options.keep)
            if image.verified:  # an earlier launcher had only not cleaned up
                errand = Build(name, signal.VERIFY, context.config.s3.prefix)
                verified = errands.heard_before(context, plan, errand, plan.payload.sha256)
                context.hold()
                sweeping.sweep(context, name)
            else:
                image, verified = verify_image(context, plan, image, name, options)
    except leases.LostError:
        raise  # how this bake ends is another launcher's business
    except (BakeError, UsageError, Interrupted) as error:
        with interrupts.held_off(context.display.note), suppress(AwsError):
            bakes.ended(context, begun, bakes.FAILED, str(error))
        raise
    try:
        bakes.ended(context, begun, bakes.VERIFIED)
    except AwsError as error:  # no reason to call an image bad
        context.display.note(f"the bucket does not know that {name} has ended: {error}", "yellow")
    tell_image(context, image)
    return Outcome(plan, image, name, baked, verified)


def reuse(context: Context, plan: Plan, image: Image, run: str, options: Options) -> Outcome:
    """Nothing has changed: take the image that exists, and boot it only if there is something to transcribe."""
    if options.audio is None:
        tell_image(context, image, reused=True)
        return Outcome(plan, image, image.bake)
    with failing.swept_on_failure(context, run):
        image, verified = verify_image(context, plan, image, run, replace(options, keep=False))
    tell_image(context, image, reused=True)
    return Outcome(plan, image, image.bake, verified=verified)


def make_image(context: Context, plan: Plan, name: str, *, keep: bool) -> tuple[Image, signal.Accepted]:
    """Bake a machine, and make an image of it once its signal is accepted."""
    made = context.images.tagged({launchspec.TAG_BAKE: name})
    if made:
        return complete_image(context, plan, name, made[0].id)
    display = context.display
    with display.phase("upload payload"):
        context.bucket.put(build.payload_key(context.config.s3.prefix, plan.payload), plan.payload.data)
    origin = planning.origin(context, name, plan.content_hash, plan.source)
    job = Job(name, signal.BAKE, plan.source, plan.volume_gb, plan.places, payload=plan.payload, origin=origin)
    job = replace(job, keep=keep)
    running, baked = errands.carry_out(context, plan, job, plan.payload.sha256)
    if not running.spot:
        with display.phase("stop machine"):
            context.hold()
            context.machines.stop(running.instance)
    with display.phase("create image"):
        title = f"{context.config.image.name_prefix}-{name}"
        told = manifest.keep(context.bucket, context.config.s3.prefix, name, baked.report)
        tags = {**image_tags(context, plan, name, title), launchspec.TAG_MANIFEST: manifest.digest(told)}
        request = launchspec.image_request(running.instance, title, tags, running=running.spot)
        context.hold()
        image = context.images.wait_until_available(context.images.create(request, name))
    tell_image(context, image)
    context.machines.terminate(running.instance)
    return image, baked


def complete_image(context: Context, plan: Plan, name: str, image_id: str) -> tuple[Image, signal.Accepted]:
    """An earlier launcher began the image, so it had accepted the machine's signal: hear that again, and wait."""
    errand = Build(name, signal.BAKE, context.config.s3.prefix)
    baked = errands.heard_before(context, plan, errand, plan.payload.sha256)
    with context.display.phase("create image"):
        image = context.images.wait_until_available(image_id)
    for machine in context.machines.ours(name, signal.BAKE):
        context.machines.terminate(machine.id)
    return image, baked


def verify_image(
    context: Context, plan: Plan, image: Image, name: str, options: Options
) -> tuple[Image, signal.Accepted]:
    """Boot the image, let the machine prove itself again, and mark the image as verified."""
    audio = options.audio
    if audio is not None:
        audio = replace(audio, language=audio.language or plan.model["language"])
        errand = Build(name, signal.VERIFY, context.config.s3.prefix)
        context.bucket.put(build.audio_key(errand, audio), audio.path.read_bytes())
    volume_gb = max(plan.volume_gb, image.volume_gb)
    job = Job(name, signal.VERIFY, image, volume_gb, plan.places, audio=audio, keep=options.keep)
    _, verified = errands.carry_out(context, plan, job, image.tags.get(launchspec.TAG_PAYLOAD, ""))
    manifest.check_booted(verified.report, image)
    with context.display.phase("clean up"):
        context.hold()
        context.images.tag(image.id, {launchspec.TAG_VERIFIED: "true"})
        sweeping.sweep(context, name)
    return replace(image, tags={**image.tags, launchspec.TAG_VERIFIED: "true"}), verified


def tell_image(context: Context, image: Image, *, reused: bool = False) -> None:
    """Say to programs that an image exists."""
    context.display.tell(events.IMAGE, image=image.id, name=image.name, verified=image.verified, reused=reused)


def image_tags(context: Context, plan: Plan, name: str, title: str) -> dict[str, str]:
    """What an image says of itself; it is not called verified before it was, and until then it has a deadline."""
    seconds = context.config.bake.deadline_minutes * 60 + IMAGE_TIMEOUT
    return {
        **context.config.tags,
        "Name": title,
        launchspec.TAG_BAKE: name,
        launchspec.TAG_DEADLINE: (context.now() + timedelta(seconds=seconds)).isoformat(timespec="seconds"),
        launchspec.TAG_CONTENT: plan.content_hash,
        launchspec.TAG_INPUTS: plan.inputs_tag,
        launchspec.TAG_PAYLOAD: plan.payload.sha256,
        launchspec.TAG_MODEL: f"{plan.model['id']}@{plan.model['revision']}",
    }
