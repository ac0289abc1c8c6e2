"""The commands about jobs of the fleet: submit, jobs."""

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from transcribe.fleet.documents import GIVEN_UP, State

from baker.commands import asked
from baker.commands.images import acting
from baker.context import BakeContext
from baker.display.literal import literal
from baker.errors import AwsError, BakeError, UsageError
from baker.fleet import figures, ledger, recordings
from baker.fleet import jobs as fleet_jobs
from baker.fleet.cloud import FleetCloud, open_fleet

LARGE_HOURS = 100.0  # of audio, that want a --yes
WATCH_SECONDS = 5.0
ALL = "all"  # instead of a job's id
SHOWN = 50  # jobs of a table; all are counted


def submit(root: Path, options: argparse.Namespace) -> int:
    """Send recordings to the fleet."""
    wanted = asked.wanted(options)
    context = acting(root, options)
    fleet = open_fleet(context)
    looking = (SpinnerColumn(), TextColumn("{task.completed:,.0f} recordings found"))
    with Progress(*looking, console=context.display.console, transient=True) as bar:
        task = bar.add_task("", total=None)
        found = recordings.find(context, options.what, lambda: bar.advance(task))
    _estimate(context, fleet, found, sure=options.yes)
    columns = (TextColumn("submit"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    new, known, nothing, problems = 0, 0, Counter[str](), []
    with Progress(*columns, console=context.display.console) as bar:
        task = bar.add_task("submit", total=len(found))
        for sent in fleet_jobs.submit(fleet, found, wanted):
            bar.advance(task)
            new, known = new + sent.new, known + (not sent.new and not sent.problem)
            problems += [sent.problem] if sent.problem else []
            nothing.update([sent.came_to] if sent.came_to else [])
            if len(found) == 1 and sent.job:
                context.display.note(f"job {sent.job}")
    context.display.note(f"{new} sent, {known} had been sent before; results: {_results(fleet)}")
    if nothing:
        told = ", ".join(f"{count} {status}" for status, count in sorted(nothing.items()))
        context.display.note(f"of those that had been sent before {told}: --again sends them again", "yellow")
    for problem in problems:
        context.display.note(problem, "red")
    if problems:
        raise BakeError(f"{len(problems)} of {len(found)} could not be sent; the same command again sends only those")
    return 0


def _estimate(context: BakeContext, fleet: FleetCloud, found: Sequence[recordings.Recording], *, sure: bool) -> None:
    """Say how much it is. Raises UsageError if it is much and nobody has said that it is meant."""
    hours = sum(each.seconds for each in found) / 3600
    large = hours > LARGE_HOURS
    cost = fleet_jobs.recent_cost(fleet) if large else None
    price = f", about {cost * hours:,.2f} US dollars at {cost:.4f} an hour" if cost is not None else ""
    context.display.note(f"{len(found)} recordings, about {hours:,.1f} hours of audio by their size{price}")
    if large and not sure:
        raise UsageError("that is much: give the command again with --yes")


def _results(fleet: FleetCloud) -> str:
    return f"s3://{fleet.bucket.name}/{fleet.layout.prefix}/out/"


def jobs(root: Path, options: argparse.Namespace) -> int:
    """Show the fleet's jobs, or change one."""
    context = acting(root, options)
    fleet = open_fleet(context)
    if options.redrive:
        return _redrive(context, fleet, options.redrive)
    if options.cancel:
        fleet_jobs.cancel(fleet, options.cancel)
        context.display.note(f"the job {options.cancel} is cancelled")
        return 0
    if options.ledger:
        return _ledger(context, fleet, options.ledger, options.last_hours)
    earlier: dict[str, tuple[str, State | None]] = {}  # most states are over, and change no more
    while True:
        dead = fleet_jobs.given_up(fleet, earlier) if options.dead else None
        known = dead.states if dead else fleet_jobs.listed(fleet, earlier)
        if options.json:
            print(msgspec.json.encode(known).decode())
        elif dead:
            _print_dead(context, fleet, dead)
        else:
            _print(context, known)
        if not options.watch or all(state.over or state.status == "dead" for state in known):
            return 0
        context.sleep(WATCH_SECONDS)


def _ledger(context: BakeContext, fleet: FleetCloud, file: Path, hours: float | None) -> int:
    """Write the page of a run: all jobs, or those that were sent in the last so many hours."""
    since = time.time() - hours * 3600 if hours else 0.0
    made = ledger.read([state for state in fleet_jobs.listed(fleet) if state.created >= since])
    try:
        made = replace(made, told=figures.read(context, made.begin, made.end, time.time()))
    except AwsError as error:  # the page is good without them
        context.display.note(f"without what machines told CloudWatch: {error}", "yellow")
    try:
        file.write_text(ledger.html(made), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}; --ledger names a file that can be written") from error
    context.display.note(f"the ledger of {made.jobs} jobs: {file}")
    return 0


def _redrive(context: BakeContext, fleet: FleetCloud, job: str) -> int:
    """Try one job again that was given up, or all of them."""
    if job != ALL:
        fleet_jobs.redrive(fleet, job)
        context.display.note(f"the job {job} waits again")
        return 0
    tried = list(fleet_jobs.redrive_all(fleet))
    problems = [problem for problem in tried if problem]
    context.display.note(f"{len(tried) - len(problems)} jobs wait again")
    for problem in problems:
        context.display.note(problem, "red")
    if problems:
        raise BakeError(f"{len(problems)} of {len(tried)} jobs could not be tried again")
    return 0


def _print_dead(context: BakeContext, fleet: FleetCloud, dead: fleet_jobs.GivenUp) -> None:
    """A line for each, with the reason; all of them, since each wants a decision."""
    for state in dead.states:
        error = state.error or GIVEN_UP
        context.display.note(f"{state.job}  {' '.join(state.name.split()) or '-'}: {' '.join(error.message.split())}")
    for key in dead.drops:
        file = f"s3://{fleet.bucket.name}/{key}"
        context.display.note(f"{file}: no machine made a job of it; bake.py submit {file} sends it")
    context.display.note(f"{len(dead.states)} given up; --redrive JOB tries one again, --redrive {ALL} each of them")


def _print(context: BakeContext, known: Sequence[State]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("job", "status", "done", "owner", "recording", "error"):
        table.add_column(column, overflow="fold")
    for state in known[:SHOWN]:
        share = f"{min(state.progress / state.seconds, 1):.0%}" if state.seconds else ""
        error = (state.error.code or state.error.message) if state.error else ""
        row = (state.job, state.status, share, state.owner, state.name, error)
        table.add_row(*(literal(cell) for cell in row))
    context.display.console.print(table)
    counts = ", ".join(f"{count} {status}" for status, count in Counter(state.status for state in known).items())
    hours = sum(state.progress for state in known) / 3600
    cost = fleet_jobs.hourly_cost(known)
    price = f"; an hour of audio costs {cost:.4f} US dollars" if cost is not None else ""
    context.display.note(f"{counts or 'no jobs'}; {hours:,.2f} hours of audio done{price}")
