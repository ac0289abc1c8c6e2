"""A machine's errand from launch to accepted signal; when AWS takes the machine away, another one goes on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from baker.aws import requests
from baker.bake import acceptance, attempt, run
from baker.bake import launch as launching
from baker.bake.attempt import Build
from baker.bake.launch import Job, Running
from baker.bake.plan import Plan
from baker.context import Context
from baker.display import events
from baker.errors import BakeError, TakenAwayError

ATTEMPTS = 3
PHASES = {
    acceptance.BAKE: ("launch machine", "bake on the machine"),
    acceptance.VERIFY: ("boot the image", "verify on the image"),
}


def carry_out(context: Context, plan: Plan, job: Job, payload_sha256: str) -> tuple[Running, acceptance.Accepted]:
    """The machine that did the errand, still running, and its signal. Raises BakeError with the reason."""
    launch, follow = PHASES[job.mode]
    with context.display.phase(launch):
        running = launching.obtain(context, job)
    while True:
        try:
            with context.display.phase(follow), explained_by_log(context, running):
                expected = expectation(plan, running.errand, payload_sha256)
                accepted = run.wait_for_signal(context, running, expected)
            tell_accepted(context, running, accepted)
            return running, accepted
        except TakenAwayError as error:
            if running.errand.attempt == ATTEMPTS:
                raise
            context.display.note(f"{error}; trying another machine", "yellow")
        context.machines.terminate(running.instance)
        context.machines.wait(running.instance, "terminated")
        with context.display.phase(launch):
            running = launching.launch(context, _steadier(job), running.errand.attempt + 1)


def heard_before(context: Context, plan: Plan, errand: Build, payload_sha256: str) -> acceptance.Accepted:
    """The signal that an earlier launcher accepted, judged once more: what it then did is no proof of it."""
    started = attempt.recall(context.bucket, errand)
    report = context.bucket.get(started.errand.key("report.json")) if started else None
    if started is None or report is None:
        raise BakeError(f"nothing in the bucket tells how the machine of {errand.id} fared")
    return acceptance.accept(report, expectation(plan, started.errand, payload_sha256))


def expectation(plan: Plan, errand: Build, payload_sha256: str) -> acceptance.Expected:
    """What the signal of `errand` must be."""
    limit = float(plan.declared["verify"]["max_word_error_rate"])
    return acceptance.Expected(errand.id, errand.nonce, errand.mode, payload_sha256, plan.reference, limit)


def tell_accepted(context: Context, running: Running, accepted: acceptance.Accepted) -> None:
    """Keep the log of a machine that did well, and say to programs that it did."""
    context.display.tell(
        events.VERDICT,
        machine=running.instance,
        role=running.errand.mode,
        accepted=True,
        reason="",
        checks=len(accepted.report["checks"]),
        word_error_rate=accepted.word_error_rate,
        log=run.save_log(context, running.errand, running.instance),
    )


@contextmanager
def explained_by_log(context: Context, running: Running) -> Iterator[None]:
    """On a failure, save the machine's log while the machine is there, and say where it is."""
    try:
        yield
    except TakenAwayError:
        raise
    except BakeError as error:
        path = run.save_log(context, running.errand, running.instance)
        told = {"machine": running.instance, "role": running.errand.mode, "accepted": False}
        context.display.tell(events.VERDICT, **told, reason=str(error), log=path)
        raise BakeError(f"{error}; log: {path}" if path else f"{error}; the machine left no log") from None


def _steadier(job: Job) -> Job:
    """The job for its next attempt: AWS takes spot machines away, and rarely others."""
    steady = tuple(place for place in job.places if place.market == requests.ON_DEMAND)
    return replace(job, places=steady or job.places)
