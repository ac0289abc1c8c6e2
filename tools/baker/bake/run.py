"""From a launched machine to its accepted signal."""

import itertools
import json
from collections.abc import Mapping
from typing import Any

from baker.aws.client import Patience
from baker.aws.instances import ENDED
from baker.bake import acceptance
from baker.bake.attempt import Build
from baker.bake.launch import Running
from baker.context import Context
from baker.display.estimates import Step
from baker.errors import AwsError, BakeError, TakenAwayError

SIGNAL_SECONDS = 1.0  # between looks at the bucket
STATE_EVERY = 5  # looks at the bucket between looks at the instance
LATE_SECONDS = 120.0  # a machine ends itself at its deadline; the launcher waits this much longer to hear of it
IMPAIRED_LOOKS = 3  # in a row: a check that fails once may be a hiccup
TAKEN_AWAY = frozenset({
    "Server.SpotInstanceTermination", "Server.SpotInstanceShutdown", "Server.InsufficientInstanceCapacity",
    "Server.InternalError", "Server.ScheduledStop",
})  # fmt: skip
MARKER = "TRANSCRIBE-BAKE"


def wait_for_signal(context: Context, running: Running, expected: acceptance.Expected) -> acceptance.Accepted:
    """Show progress until the machine reports, and accept or reject what it says.

    Raises BakeError when the machine ends or its deadline passes without a word.
    """
    build, instance_id = running.errand, running.instance
    end = context.clock() + (running.deadline - context.now()).total_seconds() + LATE_SECONDS
    patience, impaired = Patience(), 0
    for looks in itertools.count():
        try:
            report = context.bucket.get(build.key("report.json"))
            if report is not None:
                return acceptance.accept(report, expected)
            show_progress(context, build)
            if looks % STATE_EVERY == 0:
                seen = context.machines.look(instance_id)
                if seen.state in ENDED:
                    return _last_look(context, build, instance_id, expected)
                impaired = impaired + 1 if seen.impaired else 0
                if impaired == IMPAIRED_LOOKS:
                    raise TakenAwayError(f"the machine {instance_id} fails AWS' status checks")
            patience.calm()
        except AwsError as error:
            patience.bear(error)
        if context.clock() > end:
            raise BakeError(f"no signal from {instance_id} by its deadline, {running.deadline:%H:%M:%S} UTC")
        context.sleep(SIGNAL_SECONDS)
    raise AssertionError("counts for ever")


def show_progress(context: Context, build: Build) -> None:
    """Draw what the machine says of itself; whatever is wrong with that is no reason to fail."""
    raw = context.bucket.get(build.key("progress.json"))
    try:
        told = json.loads(raw) if raw else None
    except ValueError:
        return
    if not isinstance(told, Mapping) or told.get("build_id") != build.id:
        return
    done, total = told.get("done"), told.get("total")
    context.display.step(
        Step(
            phase=str(told.get("phase", ""))[:40],
            state=str(told.get("state", ""))[:60],
            done=done if isinstance(done, int) else 0,
            total=total if isinstance(total, int) else 0,
        )
    )


def _last_look(context: Context, build: Build, instance_id: str, expected: acceptance.Expected) -> acceptance.Accepted:
    """The machine is ending. A report may have come just before; otherwise the console may say why."""
    report = context.bucket.get(build.key("report.json"))
    if report is not None:
        return acceptance.accept(report, expected)
    code = context.machines.why_ended(instance_id)
    if code in TAKEN_AWAY:
        raise TakenAwayError(f"AWS took the machine {instance_id} away ({code})")
    marker = [line for line in context.machines.console(instance_id).splitlines() if MARKER in line]
    words = marker[-1].split(MARKER, 1)[1].split() if marker else []
    if len(words) >= 3 and words[0] == build.id:
        raise BakeError(f"the machine {instance_id} ended; its console says {words[2]}, but no report arrived")
    raise BakeError(f"the machine {instance_id} ended without a signal")


def save_log(context: Context, build: Build, instance_id: str) -> str:
    """Keep what the machine left: its log, which it uploads before its report, and its console.

    Returns the file's path, empty if there was nothing. Saving is a courtesy on the way out of a failure: it must
    never raise and hide the reason.
    """
    try:
        log = (context.bucket.get(build.key("log.txt")) or b"").decode(errors="replace")
        console = context.machines.console(instance_id)
        if not log and not console:
            return ""
        context.logs.mkdir(parents=True, exist_ok=True)
        path = context.logs / f"{build.id}.log"
        path.write_text(f"{log}\n===== console of {instance_id} =====\n{console}\n", encoding="utf-8")
        return str(path.relative_to(context.root))
    except (AwsError, OSError):
        return ""


def logs_of(context: Context, bake: str) -> str:
    """Where the logs of a bake's machines are, for a person."""
    return f"{context.logs.relative_to(context.root)}/{bake}-*.log"


def machine_phases(report: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The phases that a machine reports, with their seconds."""
    return [
        (str(phase.get("name", "")), float(phase.get("seconds", 0)))
        for phase in report.get("phases", [])
        if isinstance(phase, Mapping)
    ]
