"""A bake, as a flat recipe. Each line of it is a phase that a person sees and the report times.

Every step finds what an earlier launcher did of it before it does it: resuming a bake is going through it again.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

from baker import interrupts
from baker.aws import dry_run, requests
from baker.aws.client import only_looking
from baker.aws.images import IMAGE_TIMEOUT, Image
from baker.bake import acceptance, attempt, errands, report
from baker.bake import plan as planning
from baker.bake.attempt import Audio, Build
from baker.bake.launch import Job
from baker.bake.outcome import Outcome
from baker.bake.plan import Plan
from baker.config import Config, Source
from baker.context import Context
from baker.display import estimates, events
from baker.errors import AwsError, BakeError, Interrupted, UsageError
from baker.images import manifest
from baker.inputs.pillar import merge
from baker.recovery import cleanup, failing, lease, records


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
    name = attempt.new_bake_name()
    with lease.held(context, name) as alone:
        with only_looking():
            records.refuse_beside(records.unfinished(alone))
        if plan.reusable and not options.force:
            return reuse(alone, plan, plan.reusable, name, options)
        dry_run.require(planning.permitted(alone, plan))
        remember(alone, plan)
        return finish(alone, plan, records.begin(alone, plan, name), options)


def resume(context: Context, name: str) -> Outcome:
    """Continue a bake whose launcher died; it ends as any other: in a verified image, or with nothing left."""
    with context.display.phase("plan"):
        begun = records.load(context, name)
        if begun.end == records.FAILED:
            raise UsageError(f"{name} has failed, which no resuming can mend: {begun.reason}")
        plan = planning.make(replace(context, config=_as_begun(context, begun)))
        if plan.content_hash != begun.content_hash:
            raise UsageError(
                f"the tree is not what {name} was begun from: check that out again, or `bake.py reap --bake {name}`"
            )
    with lease.held(context, name) as alone:
        remember(alone, plan)
        return finish(alone, plan, begun, Options())


def remember(context: Context, plan: Plan) -> None:
    """Let the display estimate by the last bake, as its report tells; without one there is nothing to go by."""
    if plan.newest is None:
        return
    with suppress(AwsError):
        told = report.load(context.bucket, report.key_of(context.config.s3.prefix, plan.newest.bake))
        context.display.estimate = estimates.of(told)


def _as_begun(context: Context, begun: records.Bake) -> Config:
    """The configuration with what it then resolved to: a newer source image or model commit is another bake's."""
    pillar = merge(context.config.pillar, {"model": {"revision": begun.model_revision}})
    return replace(context.config, source=Source(ami=begun.source_ami), pillar=pillar)


def finish(context: Context, plan: Plan, begun: records.Bake, options: Options) -> Outcome:
    """Whatever is still to do of a bake."""
    name = begun.name
    context.display.tell(events.BAKE, bake=name, content_hash=plan.content_hash)
    try:
        with failing.swept_on_failure(context, name):
            image, baked = make_image(context, plan, name, keep=options.keep)
            if image.verified:  # an earlier launcher had only not cleaned up
                errand = Build(name, acceptance.VERIFY, context.config.s3.prefix)
                verified = errands.heard_before(context, plan, errand, plan.payload.sha256)
                context.hold()
                cleanup.sweep(context, name)
            else:
                image, verified = verify_image(context, plan, image, name, options)
    except lease.LostError:
        raise  # how this bake ends is another launcher's business
    except (BakeError, UsageError, Interrupted) as error:
        with interrupts.held_off(context.display.note), suppress(AwsError):
            records.ended(context, begun, records.FAILED, str(error))
        raise
    try:
        records.ended(context, begun, records.VERIFIED)
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


def make_image(context: Context, plan: Plan, name: str, *, keep: bool) -> tuple[Image, acceptance.Accepted]:
    """Bake a machine, and make an image of it once its signal is accepted."""
    made = context.images.tagged({requests.TAG_BAKE: name})
    if made:
        return complete_image(context, plan, name, made[0].id)
    display = context.display
    with display.phase("upload payload"):
        context.bucket.put(attempt.payload_key(context.config.s3.prefix, plan.payload), plan.payload.data)
    origin = planning.origin(context, name, plan.content_hash, plan.source)
    job = Job(name, acceptance.BAKE, plan.source, plan.volume_gb, plan.places, payload=plan.payload, origin=origin)
    job = replace(job, keep=keep)
    running, baked = errands.carry_out(context, plan, job, plan.payload.sha256)
    if not running.spot:
        with display.phase("stop machine"):
            context.hold()
            context.machines.stop(running.instance)
    with display.phase("create image"):
        title = f"{context.config.image.name_prefix}-{name}"
        told = manifest.keep(context.bucket, context.config.s3.prefix, name, baked.report)
        tags = {**image_tags(context, plan, name, title), requests.TAG_MANIFEST: manifest.digest(told)}
        request = requests.image_request(running.instance, title, tags, running=running.spot)
        context.hold()
        image = context.images.wait_until_available(context.images.create(request, name))
    tell_image(context, image)
    context.machines.terminate(running.instance)
    return image, baked


def complete_image(context: Context, plan: Plan, name: str, image_id: str) -> tuple[Image, acceptance.Accepted]:
    """An earlier launcher began the image, so it had accepted the machine's signal: hear that again, and wait."""
    errand = Build(name, acceptance.BAKE, context.config.s3.prefix)
    baked = errands.heard_before(context, plan, errand, plan.payload.sha256)
    with context.display.phase("create image"):
        image = context.images.wait_until_available(image_id)
    for machine in context.machines.ours(name, acceptance.BAKE):
        context.machines.terminate(machine.id)
    return image, baked


def verify_image(
    context: Context, plan: Plan, image: Image, name: str, options: Options
) -> tuple[Image, acceptance.Accepted]:
    """Boot the image, let the machine prove itself again, and mark the image as verified."""
    audio = options.audio
    if audio is not None:
        audio = replace(audio, language=audio.language or plan.model["language"])
        errand = Build(name, acceptance.VERIFY, context.config.s3.prefix)
        context.bucket.put(attempt.audio_key(errand, audio), audio.path.read_bytes())
    volume_gb = max(plan.volume_gb, image.volume_gb)
    job = Job(name, acceptance.VERIFY, image, volume_gb, plan.places, audio=audio, keep=options.keep)
    _, verified = errands.carry_out(context, plan, job, image.tags.get(requests.TAG_PAYLOAD, ""))
    manifest.check_booted(verified.report, image)
    with context.display.phase("clean up"):
        context.hold()
        context.images.tag(image.id, {requests.TAG_VERIFIED: "true"})
        cleanup.sweep(context, name)
    return replace(image, tags={**image.tags, requests.TAG_VERIFIED: "true"}), verified


def tell_image(context: Context, image: Image, *, reused: bool = False) -> None:
    """Say to programs that an image exists."""
    context.display.tell(events.IMAGE, image=image.id, name=image.name, verified=image.verified, reused=reused)


def image_tags(context: Context, plan: Plan, name: str, title: str) -> dict[str, str]:
    """What an image says of itself; it is not called verified before it was, and until then it has a deadline."""
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
