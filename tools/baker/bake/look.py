"""One small machine that only looks and reports: whether a bake could succeed where it would run."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from baker.aws.client import wait_for
from baker.bake import acceptance, attempt, console
from baker.bake.launch import MachineTask, RunningMachine, launch
from baker.bake.plan import refuse_unserved, volume_size
from baker.bake.run import show_progress
from baker.context import BakeContext
from baker.doctor.finding import FAILS, NOTE, OK, Finding, found
from baker.errors import BakeError, UsageError
from baker.inputs import payload, pillar
from baker.inputs.source_system import NEWEST, OLDEST
from baker.recovery import cleanup, lease

MINUTES = 10  # its deadline; it usually ends within three
REPORT_SECONDS = 480.0


def cost(context: BakeContext) -> str:
    """What the machine may cost, before it is started."""
    known = context.prices.hourly(context.config)
    kind = context.config.instance.types[0]
    price = known.get(kind)
    usual = f"at most ${price * MINUTES / 60:.2f}" if price is not None else "a few cents"
    return f"a machine ({kind}) looks for some three minutes: {usual}; it ends itself after {MINUTES} minutes"


def at_a_machine(context: BakeContext) -> list[Finding]:
    """Start the machine, wait for its report, end it, and judge what it told. Nothing is left."""
    name = attempt.new_bake_name()
    short = replace(context.config, bake=replace(context.config.bake, deadline_minutes=MINUTES))
    findings: list[Finding] = []
    try:
        with lease.held(replace(context, config=short), name) as holder, holder.display.phase("a machine looks"):
            with cleanup.cleanup_on_failure(holder, name):
                machine = launch(holder, _task(holder, name))
                findings += judge(_report(holder, machine))
                findings += _consoles(holder, machine)
            cleanup.sweep(holder, name)
    except BakeError as error:
        findings.append(Finding("machine", FAILS, str(error), "the log above and the console say more"))
    except UsageError as error:  # no machine was started
        findings.append(
            Finding("machine", FAILS, str(error), "once that is settled, run `bake.py doctor --machine` again")
        )
    return findings


def judge(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """What the facts that the machine reported mean for a bake."""
    yield Finding("machine, system", OK, f"{facts.get('system')}, {facts.get('architecture')}")
    python = str(facts.get("python"))
    version = tuple(int(part) for part in python.split(".")[:2] if part.isdigit())
    bad = "" if OLDEST <= version <= NEWEST else f"Python {python}; the locks serve 3.11 to 3.14"
    yield found("machine, Python", bad, python, "name another image in [source]")
    free = float(facts.get("free_gb") or 0)
    needed = float(facts.get("needed_gb") or 0)
    bad = f"{free} GB free, a bake needs {needed:.0f}" if free < needed else ""
    yield found("machine, disk", bad, f"{free} GB free", "set [instance] volume_gb")
    for where, why in dict(facts.get("reachable") or {}).items():
        yield found(f"machine, reaches {where}", str(why), "answers", "look at routes, the group, and a proxy")
    busy = str(facts.get("packages_busy") or "")
    waits = "a bake waits until it is over" if busy else ""
    yield Finding("machine, apt", NOTE if busy else OK, busy or "nobody is at work", waits)
    restarts = "there; a bake's work is kept from it" if facts.get("needrestart") else "not there"
    yield Finding("machine, needrestart", OK, restarts)
    on_bus, devices = facts.get("gpu_on_bus"), facts.get("nvidia_devices")
    bad = "an NVIDIA device is on the bus, and no driver has made /dev/nvidia*" if on_bus and not devices else ""
    yield found("machine, GPU", bad, ", ".join(devices or []) or "none", "name a source image with the NVIDIA driver")


def _task(context: BakeContext, name: str) -> MachineTask:
    """The very user-data of a bake, with a payload that only looks."""
    source = context.images.source(context.config.source)
    refuse_unserved(source)
    wanted = pillar.merge(pillar.load(context.root), context.config.pillar)
    packed = payload.build(context.root, {})
    context.bucket.put(attempt.payload_key(context.config.s3.prefix, packed), packed.data)
    places = context.zones.places(context.config.instance)
    origin = {"hub": wanted["model"]["endpoint"], "lock": wanted["install"]["lock"]}
    volume_gb = volume_size(context.config.instance.volume_gb, source)
    return MachineTask(name, acceptance.LOOK, source, volume_gb, places, payload=packed, origin=origin)


def _report(context: BakeContext, machine: RunningMachine) -> Mapping[str, Any]:
    """The facts in the machine's report. Raises BakeError with its last words if none arrives."""

    def poll() -> bytes | None:
        show_progress(context, machine.attempt)
        raw = context.bucket.get(machine.attempt.key("report.json"))
        if raw is None and context.machines.state(machine.instance) == "terminated":
            words = console.read(context.machines.console(machine.instance), machine.attempt)
            reason = context.machines.why_ended(machine.instance)
            raise BakeError(f"the machine ended without a report: {words.last or reason or 'it left no word'}")
        return raw

    raw = wait_for(poll, REPORT_SECONDS, context.sleep)
    if raw is None:
        words = console.read(context.machines.console(machine.instance), machine.attempt)
        raise BakeError(f"no report after {REPORT_SECONDS:.0f} s: {words.last or 'its console says nothing'}")
    report = json.loads(raw)
    if (report.get("build_id"), report.get("nonce")) != (machine.attempt.id, machine.attempt.nonce):
        raise BakeError("the report is not this machine's")
    if report.get("verdict") != "success":
        raise BakeError(f"the machine reports a failure: {report.get('reason')}")
    facts: Mapping[str, Any] = report.get("facts") or {}
    return facts


def _consoles(context: BakeContext, machine: RunningMachine) -> list[Finding]:
    """The console can be read while the machine runs, and after its end."""
    running = console.read(context.machines.console(machine.instance), machine.attempt)
    context.machines.terminate(machine.instance)
    with suppress(BakeError):
        context.machines.wait(machine.instance, "terminated")
    after = console.read(context.machines.console(machine.instance), machine.attempt)
    return [
        Finding("machine, console", OK if running.verdict else NOTE, "read while it runs" if running.verdict else
                "says nothing while it runs", "types built on Nitro show it at once"),
        Finding("machine, console after the end", OK if after.verdict else NOTE,
                "read" if after.verdict else "not (yet) there", "EC2 shows it some minutes later"),
    ]  # fmt: skip
