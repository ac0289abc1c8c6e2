"""A bake, as a list of steps:

    plan -> hold the lease -> upload -> launch, follow, accept -> stop -> image -> verify

and then, by a command of its own, publish.

Every step first looks for what an earlier launcher has done of it, so resuming a bake is running its steps again.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from baker import interrupts
from baker.aws import dry_run
from baker.aws.client import read_only
from baker.bake import attempt, report, steps
from baker.bake.plan import BakePlan, make_plan, permitted
from baker.bake.report import BakeOutcome
from baker.bake.steps import BakeOptions, BakeRun
from baker.config import LauncherConfig, SourceSection
from baker.context import BakeContext
from baker.display import estimates
from baker.display.progress import Event
from baker.doctor import credentials, finding
from baker.errors import AwsError, BakeError, Interrupted, UnfinishedError, UsageError
from baker.inputs import pillar
from baker.recovery import lease, records
from baker.recovery.cleanup import cleanup_on_failure


@dataclass(frozen=True)
class Step:
    """One step: what it does, and what it then removes. A failure in any step removes all that the bake has made."""

    does: Callable[[BakeRun], None]
    removes: Callable[[BakeRun], None] | None = None
    makes_image: bool = True  # not needed once there is an image


# If any step fails, cleanup_on_failure removes everything that carries the bake's tag: which of the step's requests AWS
# has carried out is not always known.
STEPS = (
    Step(steps.find_image),
    Step(steps.upload),  # the payload stays: its key is its content, and the next bake may need the same
    Step(steps.launch_follow_accept),  # if AWS reclaims the machine, it is terminated and another one launched
    Step(steps.stop),
    Step(steps.create_image, removes=steps.terminate_baked_machine, makes_image=False),
    Step(steps.verify, removes=steps.mark_verified_and_sweep, makes_image=False),
)


def bake(context: BakeContext, options: BakeOptions) -> BakeOutcome:
    """From the tree to a verified image. After a failure nothing is left but the log and the reason."""
    with context.display.phase("plan"):
        plan = make_plan(context)
    finding.require(list(credentials.life(context)))
    for name in plan.untracked:
        context.display.note(f"  left out, since git does not track it: {name}", "yellow")
    name = attempt.new_bake_name()
    with lease.held(context, name) as holder:
        with read_only():
            records.raise_if_unfinished(records.unfinished(holder))
        if plan.reusable and not options.force:
            return reuse(BakeRun(holder, plan, name, replace(options, keep=False), image=plan.reusable))
        dry_run.require(permitted(holder, plan))
        begun = records.begin(holder, name, plan.content_hash, plan.source.id, plan.model["revision"])
        return run_steps(BakeRun(holder, plan, name, options), begun)


def resume(context: BakeContext, name: str) -> BakeOutcome:
    """Continue a bake whose launcher died; it ends like any other, in a verified image or with nothing left."""
    with context.display.phase("plan"):
        begun = records.load(context, name)
        if begun.end == records.FAILED:
            raise UsageError(f"{name} has failed, so it cannot be resumed: {begun.reason}")
        plan = make_plan(replace(context, config=_config_of(context, begun)))
        if plan.content_hash != begun.content_hash:
            raise UsageError(
                f"the tree is not what {name} was begun from: check that out again, or `bake.py reap --bake {name}`"
            )
    with lease.held(context, name) as holder:
        return run_steps(BakeRun(holder, plan, name, BakeOptions()), begun)


def run_steps(run: BakeRun, begun: records.BakeRecord) -> BakeOutcome:
    """Run every step that is still to do, and record how the bake ends."""
    context = run.context
    load_estimate(context, run.plan)
    context.display.emit(Event.BAKE, bake=run.name, content_hash=run.plan.content_hash)
    try:
        with cleanup_on_failure(context, run.name):
            for step in STEPS:
                if step.makes_image and run.image is not None:
                    continue
                step.does(run)
                if step.removes:
                    step.removes(run)
    except (lease.LostError, UnfinishedError):
        raise  # a launcher that took over, or that resumes, will record the end
    except (BakeError, UsageError, Interrupted) as error:
        with interrupts.held_off(context.display.note), suppress(AwsError):
            records.ended(context, begun, records.FAILED, str(error))
        raise
    try:
        records.ended(context, begun, records.VERIFIED)
    except AwsError as error:  # the image is good all the same
        context.display.note(f"the bucket does not know that {run.name} has ended: {error}", "yellow")
    return outcome(run)


def reuse(run: BakeRun) -> BakeOutcome:
    """Nothing has changed: take the existing image, and boot it only if there is a recording to transcribe."""
    if run.options.recording is not None:
        with cleanup_on_failure(run.context, run.name):
            steps.boot_image(run)
            steps.mark_verified_and_sweep(run)
    return outcome(run, reused=True)


def outcome(run: BakeRun, *, reused: bool = False) -> BakeOutcome:
    """The end of a bake that succeeded."""
    image = steps.made(run.image)
    steps.emit_image(run.context, image, reused=reused)
    return BakeOutcome(run.plan, image, image.bake if reused else run.name, run.baked, run.verified)


def load_estimate(context: BakeContext, plan: BakePlan) -> None:
    """Let the display estimate what is left by the last bake's report, if there is one."""
    if plan.newest is None:
        return
    with suppress(AwsError):
        last = report.load(context.bucket, report.key_of(context.config.s3.prefix, plan.newest.bake))
        context.display.estimate = estimates.of(last)


def _config_of(context: BakeContext, begun: records.BakeRecord) -> LauncherConfig:
    """The configuration, pinned to the source image and the model commit that the bake was begun from."""
    pinned = pillar.merge(context.config.pillar, {"model": {"revision": begun.model_revision}})
    return replace(context.config, source=SourceSection(ami=begun.source_ami), pillar=pinned)
