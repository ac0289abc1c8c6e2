"""Runs a machine from its launch to its accepted signal. If AWS reclaims the machine, another one takes its place."""

import itertools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from baker.aws.client import TransientErrors
from baker.bake import acceptance, console
from baker.bake import attempt as attempts
from baker.bake.acceptance import AcceptedSignal, ExpectedSignal
from baker.bake.attempt import MachineAttempt
from baker.bake.launch import MachineTask, RunningMachine, launch, obtain
from baker.bake.plan import BakePlan
from baker.bake.watch import Watch
from baker.config import ON_DEMAND
from baker.context import BakeContext
from baker.display.estimates import MachineStep
from baker.display.progress import Event
from baker.errors import AwsError, BakeError, ReclaimedError

ATTEMPTS = 3
PHASES = {
    acceptance.BAKE: ("launch machine", "bake on the machine"),
    acceptance.VERIFY: ("boot the image", "verify on the image"),
}
POLL_SECONDS = 1.0  # between polls of the bucket
LATE_SECONDS = 120.0  # a machine ends itself at its deadline; the launcher waits this much longer for its report


def run_until_signal(
    context: BakeContext, plan: BakePlan, task: MachineTask, payload_sha256: str
) -> tuple[RunningMachine, AcceptedSignal]:
    """The machine, still running, and its accepted signal. Raises BakeError with the reason."""
    launching, following = PHASES[task.mode]
    with context.display.phase(launching):
        machine = obtain(context, task)
    while True:
        try:
            with context.display.phase(following), _log_saved_on_failure(context, machine):
                accepted = follow(context, machine, expected_signal(plan, machine.attempt, payload_sha256))
            _emit_accepted(context, machine, accepted)
            return machine, accepted
        except ReclaimedError as error:
            if machine.attempt.number == ATTEMPTS:
                raise
            context.display.note(f"{error}; trying another machine", "yellow")
        context.machines.terminate(machine.instance)
        context.machines.wait(machine.instance, "terminated")
        task = _elsewhere(task)
        with context.display.phase(launching):
            machine = launch(context, task, machine.attempt.number + 1)


def load_accepted_signal(
    context: BakeContext, plan: BakePlan, attempt: MachineAttempt, payload_sha256: str
) -> AcceptedSignal:
    """The signal that an earlier launcher accepted. It is checked again: that an image exists proves nothing."""
    recorded = attempts.recall(context.bucket, attempt)
    report = context.bucket.get(recorded.attempt.key("report.json")) if recorded else None
    if recorded is None or report is None:
        raise BakeError(f"the bucket has no report of the machine of {attempt.id}")
    return acceptance.accept(report, expected_signal(plan, recorded.attempt, payload_sha256))


def expected_signal(plan: BakePlan, attempt: MachineAttempt, payload_sha256: str) -> ExpectedSignal:
    """What the signal of an attempt must match."""
    limit = float(plan.declared["verify"]["max_word_error_rate"])
    return ExpectedSignal(attempt.id, attempt.nonce, attempt.mode, payload_sha256, plan.reference, limit)


def follow(context: BakeContext, machine: RunningMachine, expected: ExpectedSignal) -> AcceptedSignal:
    """Show the machine's progress until it reports, and accept or reject the report.

    Raises BakeError if the machine ends, or its deadline passes, without a report.
    """
    attempt, instance_id = machine.attempt, machine.instance
    end = context.clock() + (machine.deadline - context.now()).total_seconds() + LATE_SECONDS
    errors, watch = TransientErrors(), Watch(context, machine)
    for polls in itertools.count():
        try:
            report = context.bucket.get(attempt.key("report.json"))
            if report is not None:
                return acceptance.accept(report, expected)
            show_progress(context, attempt)
            if watch.ended(polls):
                return _accept_last_report(context, attempt, instance_id, expected)
            errors.reset()
        except AwsError as error:
            errors.tolerate(error)
        if context.clock() > end:
            raise BakeError(f"no signal from {instance_id} by its deadline, {machine.deadline:%H:%M:%S} UTC")
        context.sleep(POLL_SECONDS)
    raise AssertionError("counts for ever")


def show_progress(context: BakeContext, attempt: MachineAttempt) -> None:
    """Draw the progress that the machine uploads; anything unreadable in it is ignored."""
    raw = context.bucket.get(attempt.key("progress.json"))
    try:
        progress = json.loads(raw) if raw else None
    except ValueError:
        return
    if not isinstance(progress, Mapping) or progress.get("build_id") != attempt.id:
        return
    done, total = progress.get("done"), progress.get("total")
    context.display.step(
        MachineStep(
            phase=str(progress.get("phase", ""))[:40],
            state=str(progress.get("state", ""))[:60],
            done=done if isinstance(done, int) else 0,
            total=total if isinstance(total, int) else 0,
        )
    )


def save_log(context: BakeContext, attempt: MachineAttempt, instance_id: str) -> str:
    """Save the machine's log, which it uploads before its report, and its console; returns the file's path.

    The path is empty if there was nothing to save. Never raises: that would hide why a bake failed.
    """
    try:
        log = (context.bucket.get(attempt.key("log.txt")) or b"").decode(errors="replace")
        console = context.machines.console(instance_id)
        if not log and not console:
            return ""
        context.logs.mkdir(parents=True, exist_ok=True)
        path = context.logs / f"{attempt.id}.log"
        path.write_text(f"{log}\n===== console of {instance_id} =====\n{console}\n", encoding="utf-8")
        return str(path.relative_to(context.root))
    except (AwsError, OSError):
        return ""


def logs_of(context: BakeContext, bake: str) -> str:
    """Where the logs of a bake's machines are, for a person."""
    return f"{context.logs.relative_to(context.root)}/{bake}-*.log"


def machine_phases(report: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The phases in a machine's report, with their seconds."""
    return [
        (str(phase.get("name", "")), float(phase.get("seconds", 0)))
        for phase in report.get("phases", [])
        if isinstance(phase, Mapping)
    ]


def _accept_last_report(
    context: BakeContext, attempt: MachineAttempt, instance_id: str, expected: ExpectedSignal
) -> AcceptedSignal:
    """The machine has ended. It may have reported just before; if not, AWS or its console may say why it ended."""
    report = context.bucket.get(attempt.key("report.json"))
    if report is not None:
        return acceptance.accept(report, expected)
    reason = context.machines.why_ended(instance_id)
    if reason.reclaimed:
        raise ReclaimedError(f"AWS took the machine {instance_id} away ({reason})")
    words = console.read(context.machines.console(instance_id), attempt)
    if words.verdict:
        raise BakeError(f"the machine {instance_id} ended; its console says {words}, but no report arrived")
    told = "; ".join(filter(None, (str(reason), reason.mend, words.last)))
    raise BakeError(f"the machine {instance_id} ended without a signal" + f" ({told})" * bool(told))


def _emit_accepted(context: BakeContext, machine: RunningMachine, accepted: AcceptedSignal) -> None:
    """Save the log of a machine whose signal was accepted, and emit the event."""
    context.display.emit(
        Event.VERDICT,
        machine=machine.instance,
        role=machine.attempt.mode,
        accepted=True,
        reason="",
        checks=len(accepted.report["checks"]),
        word_error_rate=accepted.word_error_rate,
        log=save_log(context, machine.attempt, machine.instance),
    )


@contextmanager
def _log_saved_on_failure(context: BakeContext, machine: RunningMachine) -> Iterator[None]:
    """On a failure, save the machine's log while the machine still exists, and name the file in the error."""
    try:
        yield
    except ReclaimedError:
        raise
    except BakeError as error:
        path = save_log(context, machine.attempt, machine.instance)
        fields = {"machine": machine.instance, "role": machine.attempt.mode, "accepted": False}
        context.display.emit(Event.VERDICT, **fields, reason=str(error), log=path)
        raise BakeError(f"{error}; log: {path}" if path else f"{error}; the machine left no log") from None


def _elsewhere(task: MachineTask) -> MachineTask:
    """The task for its next attempt: on demand, which AWS rarely reclaims, and if it was, in another zone first."""
    on_demand = tuple(place for place in task.places if place.market == ON_DEMAND)
    if on_demand and on_demand != task.places:
        return replace(task, places=on_demand)
    return replace(task, places=(*task.places[1:], task.places[0]))
