"""Commands for bakes whose launcher is gone: list them, continue one, remove what is left."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from baker import target
from baker.aws.client import read_only
from baker.context import BakeContext, open_context
from baker.display.literal import literal
from baker.display.progress import Display, open_console
from baker.errors import UsageError
from baker.recovery import cleanup, lease, records
from baker.recovery.lease import LeaseHolder
from baker.recovery.records import BakeState

REAPING = "what is past its deadline"  # what the lease names in place of a bake


def status(root: Path, options: argparse.Namespace) -> int:
    """Show the newest bakes and what exists of each."""
    context = _open(root, options)
    console = context.display.console
    with read_only():
        found, holder = records.survey(context), lease.present(context)
    if options.json:
        print(json.dumps([_plain(context, one, holder) for one in found], indent=1))
        return 0
    if not found:
        console.print(literal(f"the bucket {context.bucket.name} knows of no bake"))
        return 0
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("bake", "began (UTC)", "is", "exists"):  # names and ids are whole, since other commands take them
        table.add_column(column, no_wrap=column in ("bake", "exists"), overflow="fold")
    for one in found:
        began = one.record.began[:16].replace("T", " ")
        facts = (one.record.name, began, verdict(context, one, holder), _existing(one))
        table.add_row(*(literal(fact) for fact in facts))
    console.print(table)
    return 0


def reap(root: Path, options: argparse.Namespace) -> int:
    """Show what is left of bakes that are over, and with --yes remove it."""
    context = _open(root, options)
    if not options.yes:
        with read_only():
            holder = lease.present(context)
            _reap(context, options, holder.bake if holder else "")
        return 0
    try:
        with lease.held(context, options.bake or REAPING) as alone:
            _reap(alone, options)
    except lease.HeldError as error:
        if options.bake == error.bake:
            raise
        _reap(context, options, error.bake)  # what another launcher works on is left to it, and bakes are swept daily
    return 0


def _reap(context: BakeContext, options: argparse.Namespace, at_work: str = "") -> None:
    console, now = context.display.console, context.now()
    left = cleanup.of_bake(context, options.bake) if options.bake else cleanup.overdue(context, now, at_work)
    if not len(left):
        console.print(literal(f"nothing {f'of {options.bake}' if options.bake else 'past its deadline'} is left"))
        return
    _print(console, left, "removing" if options.yes else "would remove")
    if not options.yes:
        console.print("nothing was touched; --yes removes it", style="dim")
        return
    cleanup.remove(context, left)
    console.print(f"removed {len(left)}")


def chosen(context: BakeContext, name: str) -> str:
    """The bake to resume: `name`, or the only one that is not finished."""
    if name:
        return name
    with read_only():
        found = records.unfinished(context)
    if len(found) == 1:
        return found[0].record.name
    names = ", ".join(one.record.name for one in found)
    raise UsageError(f"which of these: {names}? name it" if found else "no bake is unfinished: see `bake.py status`")


def verdict(context: BakeContext, found: BakeState, holder: LeaseHolder | None) -> str:
    """What has become of a bake, in a few words; `holder` is the launcher that is at work."""
    if holder is not None and holder.bake == found.record.name:
        return f"under way, by {holder.who}"
    return _unfinished(context, found) if found.unfinished else _over(found)


def _unfinished(context: BakeContext, found: BakeState) -> str:
    if any(machine.overdue(context.now()) for machine in found.instances):
        return "past its deadline: reap"
    if found.kept is not None:
        return f"failed, its machine kept {found.kept.until}: {found.record.reason[:80]}"
    if found.instances:
        return f"unfinished, {found.instances[0].role} until {found.instances[0].deadline:%H:%M}: resume or reap"
    return "unfinished: resume or reap"


def _over(found: BakeState) -> str:
    if found.record.end == records.FAILED:
        return f"failed: {found.record.reason[:80]}"
    if any(image.verified for image in found.images):
        return "verified"
    return "over, and its image is gone" if found.record.end else "over; it had made nothing yet"


def _open(root: Path, options: argparse.Namespace) -> BakeContext:
    display = Display(open_console())
    return open_context(root, target.bake_config(root, options, Display(Console(quiet=True))), display)


def _existing(found: BakeState) -> str:
    machines = [f"{machine.id}\n  {machine.state}" for machine in found.instances]
    return "\n".join([*machines, *(f"{image.id}\n  {image.state}" for image in found.images)])


def _plain(context: BakeContext, found: BakeState, holder: LeaseHolder | None) -> dict[str, object]:
    return {
        **asdict(found.record),
        "is": verdict(context, found, holder),
        "instances": [machine.id for machine in found.instances],
        "images": {image.id: "verified" if image.verified else image.state for image in found.images},
    }


def _print(console: Console, left: cleanup.Leftovers, doing: str) -> None:
    lines = [f"{one.id}  {one.kind} {one.zone}, {one.state}, of {one.bake}" for one in left.machines]
    lines += [f"{one.id}  {one.name}, not verified, with {len(one.snapshots)} snapshots" for one in left.images]
    lines += [f"{one.id}  {one.gb} GiB, of {one.bake}" for one in (*left.volumes, *left.snapshots)]
    for line in lines:
        console.print(literal(f"{doing} {line}"))
