"""A bake, as a flat recipe. Each line of it is a phase that a person sees and the report times."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from baker import build, following, interrupts, launching, launchspec, planning, signal
from baker.build import Audio, Build
from baker.context import Context
from baker.errors import AwsError, BakeError
from baker.images import Image
from baker.planning import Plan


@dataclass(frozen=True)
class Options:
    """What this run is asked for beyond the configuration."""

    force: bool = False  # bake even if an image from the same inputs exists
    audio: Audio | None = None  # a recording to transcribe on the finished image


@dataclass(frozen=True)
class Outcome:
    """A verified image, and what its machines said; `baked` is None where an image was reused."""

    plan: Plan
    image: Image
    bake: str
    baked: signal.Accepted | None = None
    verified: signal.Accepted | None = None


def bake(context: Context, options: Options) -> Outcome:
    """From the tree to a verified image. On any failure nothing is left but the log and the reason."""
    with context.display.phase("plan"):
        plan = planning.make(context)
    for name in plan.untracked:
        context.display.note(f"  left out, since git does not track it: {name}", "yellow")
    if plan.reusable and not options.force:
        return reuse(context, plan, plan.reusable, options.audio)
    name = build.new_bake_name()
    with swept_on_failure(context, name):
        image, baked = make_image(context, plan, name)
        image, verified = verify_image(context, plan, image, name, options.audio)
    return Outcome(plan, image, name, baked, verified)


def reuse(context: Context, plan: Plan, image: Image, audio: Audio | None) -> Outcome:
    """Nothing has changed: take the image that exists, and boot it only if there is something to transcribe."""
    name = image.tags.get(launchspec.TAG_BAKE, "")
    if audio is None:
        return Outcome(plan, image, name)
    run = build.new_bake_name()
    with swept_on_failure(context, run):
        image, verified = verify_image(context, plan, image, run, audio)
    return Outcome(plan, image, name, verified=verified)


def make_image(context: Context, plan: Plan, name: str) -> tuple[Image, signal.Accepted]:
    """Bake a machine, and make an image of it once its signal is accepted."""
    display = context.display
    errand = Build(name, signal.BAKE, context.config.s3.prefix)
    with display.phase("upload payload"):
        context.bucket.put(build.payload_key(errand.prefix, plan.payload), plan.payload.data)
    with display.phase("launch machine"):
        seconds = context.config.bake.deadline_minutes * 60
        parameters = build.parameters(errand, context.bucket, seconds, payload=plan.payload)
        instance = launching.launch(context, errand, plan.source, plan.volume_gb, parameters)
    with display.phase("bake on the machine"), explained_by_log(context, errand, instance):
        expected = expectation(plan, errand, plan.payload.sha256)
        baked = following.wait_for_signal(context, errand, instance, expected)
    with display.phase("stop machine"):
        context.machines.stop(instance)
    with display.phase("create image"):
        title = f"{context.config.image.name_prefix}-{name}"
        request = launchspec.image_request(instance, title, image_tags(context, plan, name, title))
        image = context.images.wait_until_available(context.images.create(request, name))
    context.machines.terminate(instance)
    return image, baked


def verify_image(
    context: Context, plan: Plan, image: Image, name: str, audio: Audio | None
) -> tuple[Image, signal.Accepted]:
    """Boot the image, let the machine prove itself again, and mark the image as verified."""
    display = context.display
    errand = Build(name, signal.VERIFY, context.config.s3.prefix)
    with display.phase("boot the image"):
        if audio is not None:
            audio = replace(audio, language=audio.language or plan.model["language"])
            context.bucket.put(errand.key(f"audio{audio.path.suffix.lower()}"), audio.path.read_bytes())
        seconds = context.config.bake.deadline_minutes * 60
        parameters = build.parameters(errand, context.bucket, seconds, audio=audio)
        volume = max(plan.volume_gb, image.volume_gb)
        instance = launching.launch(context, errand, image, volume, parameters)
    with display.phase("verify on the image"), explained_by_log(context, errand, instance):
        expected = expectation(plan, errand, image.tags.get(launchspec.TAG_PAYLOAD, ""))
        verified = following.wait_for_signal(context, errand, instance, expected)
    with display.phase("clean up"):
        context.images.tag(image.id, {launchspec.TAG_VERIFIED: "true"})
        launching.sweep(context, name)
    return context.images.get(image.id) or image, verified


def expectation(plan: Plan, errand: Build, payload_sha256: str) -> signal.Expected:
    """What the signal of `errand` must be."""
    limit = float(plan.declared["verify"]["max_word_error_rate"])
    return signal.Expected(errand.id, errand.nonce, errand.mode, payload_sha256, plan.reference, limit)


def image_tags(context: Context, plan: Plan, name: str, title: str) -> dict[str, str]:
    """What an image says of itself; it is not called verified before it was."""
    return {
        **context.config.tags,
        "Name": title,
        launchspec.TAG_BAKE: name,
        launchspec.TAG_CONTENT: plan.content_hash,
        launchspec.TAG_INPUTS: plan.inputs_tag,
        launchspec.TAG_PAYLOAD: plan.payload.sha256,
        launchspec.TAG_MODEL: f"{plan.model['id']}@{plan.model['revision']}",
    }


@contextmanager
def explained_by_log(context: Context, errand: Build, instance: str) -> Iterator[None]:
    """On a failure, save the machine's log while the machine is there, and say where it is."""
    try:
        yield
    except BakeError as error:
        path = following.save_log(context, errand, instance)
        raise BakeError(f"{error}; log: {path}" if path else f"{error}; the machine left no log") from None


@contextmanager
def swept_on_failure(context: Context, name: str) -> Iterator[None]:
    """Whatever goes wrong inside: end the bake's instances and remove its image, undisturbed by signals."""
    try:
        yield
    except BaseException:
        with interrupts.held_off(context.display.note):
            try:
                launching.sweep(context, name)
            except (AwsError, BakeError) as error:
                minutes = context.config.bake.deadline_minutes
                context.display.note(
                    f"cleaning up failed: {error}; the machine ends itself {minutes} minutes after launch"
                )
        raise
