"""The tables that commands print."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from baker.aws.dry_run import ALLOWED, DENIED, REFUSED, UNKNOWN, DryRunResult
from baker.aws.images import Ami
from baker.bake.plan import BakePlan
from baker.bake.timeline import check_rows
from baker.context import BakeContext
from baker.display.literal import literal
from baker.doctor.finding import FAILS, NOTE, OK, Finding
from baker.doctor.finding import UNKNOWN as NOT_KNOWN
from baker.images.catalog import CatalogImage, Retention
from baker.images.diff import ImageDifference

Document = Mapping[str, Any]
STYLES = {OK: "green", NOTE: "yellow", NOT_KNOWN: "yellow", FAILS: "bold red"}
MARKS = {"": "[dim]–[/dim]", "pass": "[green]pass[/green]", "fail": "[red]fail[/red]"}


def print_plan(console: Console, plan: BakePlan, config_rows: Mapping[str, str]) -> None:
    """What a bake would launch, from what, and whether it needs to."""
    table = _facts()
    for name, value in config_rows.items():
        table.add_row(name, literal(value))
    table.add_row("source image", _with_aside(plan.source.id, plan.source.name))
    table.add_row("volume", f"{plan.volume_gb} GiB gp3, encrypted")
    table.add_row("model", literal(f"{plan.model['id']} at {plan.model['revision']}"))
    table.add_row("payload", f"{len(plan.payload.data):,} bytes in {len(plan.payload.digests)} files")
    table.add_row("sha256", plan.payload.sha256)
    table.add_row("user-data", f"{plan.user_data_bytes:,} of 16,384 bytes")
    table.add_row("content hash", plan.content_hash)
    table.add_row("", literal(plan.inputs_tag, "dim"))
    for name in plan.untracked:
        table.add_row("[yellow]left out[/yellow]", _with_aside(name, "git does not track it"))
    for name in plan.changed_files:
        table.add_row("changed", literal(name))
    table.add_row("so a bake", literal(outlook(plan)))
    console.print(table)


def print_permissions(console: Console, results: Sequence[DryRunResult]) -> None:
    """What AWS' dry runs said, by answer."""
    table = _facts()
    for answer, style in ((ALLOWED, "green"), (UNKNOWN, "yellow"), (DENIED, "red"), (REFUSED, "red")):
        named = [result.operation for result in results if result.answer == answer]
        if named:
            why = "  [dim]nothing exists yet to ask about, or AWS does not say[/dim]" if answer == UNKNOWN else ""
            table.add_row(f"[{style}]{answer}[/{style}]", ", ".join(named) + why)
    console.print(table)


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    """One row for each thing that was looked at, and below it what to do."""
    table = _facts()
    for found in findings:
        table.add_row(literal(found.verdict, STYLES[found.verdict]), literal(f"{found.name}: {found.detail}"))
        if found.mend and found.verdict != OK:
            table.add_row("", literal(f"→ {found.mend}", "dim"))
    console.print(table)


def outlook(plan: BakePlan) -> str:
    """What a bake would do, in a few words."""
    if plan.reusable:
        return f"would reuse {plan.reusable.id}: it was made from exactly this"
    if plan.newest is None:
        return "would make the first image"
    return f"would make a new image; since {plan.newest.id} these changed: {', '.join(plan.changed)}"


def print_report(console: Console, report: Document) -> None:
    """The end of a bake: phases, Salt, checks, transcript, image."""
    baked, verified = report.get("baked"), report.get("verified")
    if baked or verified:
        console.print()
        console.print(_phases(report))
        console.print(_checks(baked, verified, console.width))
        _print_salt(console, baked, verified)
        _print_transcripts(console, report, verified or baked or {})
    _print_image(console, report)


def _phases(report: Document) -> Table:
    table = Table("phase", box=box.SIMPLE_HEAD, title="Where the time went", title_justify="left", title_style="bold")
    table.add_column("seconds", justify="right")
    inside = {"bake on the machine": report.get("baked"), "verify on the image": report.get("verified")}
    for phase in report["phases"]:
        table.add_row(literal(phase["name"]), f"{phase['seconds']:.1f}")
        for inner in (inside.get(phase["name"]) or {}).get("phases", []):
            table.add_row(literal(f"  {inner['name']}", "dim"), f"[dim]{inner['seconds']:.1f}[/dim]")
    table.add_section()
    table.add_row("[bold]in all[/bold]", f"[bold]{report['seconds']:.1f}[/bold]")
    return table


def _checks(baked: Document | None, verified: Document | None, width: int) -> Table:
    """Every check, on the machine that was baked and on the one that booted from the image, each on one line."""
    table = Table(box=box.SIMPLE_HEAD, title="Verification", title_justify="left", title_style="bold")
    columns = {title: machine for title, machine in (("baked", baked), ("booted", verified)) if machine}
    rows = check_rows(list(columns.values()))
    table.add_column("check", no_wrap=True)
    for title in columns:
        table.add_column(title, justify="center", no_wrap=True)
    table.add_column("detail", style="dim", no_wrap=True, overflow="ellipsis")
    room = width - max((len(row.name) for row in rows), default=0) - sum(len(title) + 3 for title in columns) - 8
    for row in rows:  # the whole detail is in the report
        short = row.detail if len(row.detail) <= room else row.detail[: max(room, 10) - 1] + "…"
        table.add_row(literal(row.name), *(MARKS[verdict] for verdict in row.verdicts), literal(short))
    return table


def _print_salt(console: Console, baked: Document | None, verified: Document | None) -> None:
    if baked:
        first, second = baked["salt"]["first"], baked["salt"]["second"]
        console.print(f"  first apply: {first['states']} states, {first['changed']} changed", highlight=False)
        console.print(f"  [bold]second apply: {second['changed']} changes[/bold] in {second['states']} states")
    if verified:
        again = verified["salt"]["second"]
        console.print(f"  apply on the booted image: {again['changed']} changes in {again['states']} states")
        if verified.get("boot_to_ready_seconds") is not None:
            console.print(f"  boot to ready: {verified['boot_to_ready_seconds']:.1f} s")


def _print_transcripts(console: Console, report: Document, machine: Document) -> None:
    """The clip's reference and transcript, and the transcript of the recording that --audio named."""
    clip, audio = machine["clip"], machine.get("audio")
    table = _facts(title="Transcript")
    table.add_row("reference", literal(report["reference"]))
    table.add_row("transcript", literal(clip["text"].strip(), "bold"))
    table.add_row("word error rate", f"{machine['word_error_rate']:.1%}")
    if audio:
        table.add_row("your recording", literal(audio["text"].strip(), "bold"))
    console.print(table)


def _print_image(console: Console, report: Document) -> None:
    image = report["image"]
    word = "reused" if report["reused"] else "baked and verified"
    found = (literal(f"\n{word}", "bold green"), "  ", literal(image["id"], "bold"), "  ", literal(image["name"]))
    console.print(Text.assemble(*found))
    console.print(literal("  from {id} {name}".format(**report["source_image"]), "dim"))
    console.print(literal(f"  content hash {report['content_hash']}", "dim"))


def _with_aside(text: str, aside: str) -> Text:
    return Text.assemble(literal(text), "  ", literal(aside, "dim"))


def _facts(title: str = "") -> Table:
    table = Table(
        box=None, show_header=False, pad_edge=False, title=title or None, title_justify="left", title_style="bold"
    )
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def print_catalog(console: Console, entries: Sequence[CatalogImage]) -> None:
    """One line for each image, newest first."""
    if not entries:
        console.print("there is no image yet")
        return
    table = _of_images("verified", "copies", "needed")
    for entry in entries:
        image = entry.image
        copies = [name for name in entry.replicas if name != entry.home]
        mark = "[green]yes[/green]" if image.verified else "[yellow]no[/yellow]"
        needs = "; ".join(entry.needs)
        bold = any(replica.published for replica in entry.replicas.values())
        facts = [literal(fact) for fact in (entry.id, image.name, _time(image), ", ".join(copies), needs)]
        table.add_row(*facts[:3], mark, *facts[3:], style="bold" if bold else None)
    console.print(table)


def print_published(context: BakeContext, image_id: str, replica: Mapping[str, str]) -> None:
    """What is launched from now on, and where that is written."""
    console, wanted = context.display.console, context.config.publish
    console.print("\n[bold green]published[/bold green] ", literal(image_id, "bold"))
    for region, found in replica.items():
        console.print(literal(f"  {region}  {wanted.ssm_parameter} = {found}", "dim"))
    shared = [*wanted.accounts, *wanted.organizations]
    if shared:
        console.print(literal(f"  shared with {', '.join(shared)}", "dim"))


def print_difference(console: Console, images: Sequence[Ami], found: ImageDifference) -> None:
    """What changes from the first image to the second, and how large each is."""
    for word, image in zip(("from ", "to   "), images, strict=True):
        console.print(Text.assemble(word, literal(image.id, "bold"), "  ", literal(image.name)))
    if not found.groups:
        console.print("\nthey are made of the same things")
    for name, changes in found.groups.items():
        table = Table(box=None, show_header=False, title=literal(f"\n{name}"), title_justify="left", title_style="bold")
        for change in changes:
            mark = "[green]+[/green]" if not change.before else "[red]-[/red]" if not change.after else "~"
            both = " → ".join(filter(None, (change.before, change.after)))
            table.add_row(mark, literal(change.what), literal(both, "dim"))
        console.print(table)
    sizes = Table(box=None, show_header=False, title="\nMB", title_justify="left", title_style="bold")
    for name, (before, after) in found.bytes.items():
        sizes.add_row(literal(name), f"{before / 1e6:,.1f}", f"{after / 1e6:,.1f}", f"{(after - before) / 1e6:+,.1f}")
    console.print(sizes)


def print_retention(console: Console, decisions: Sequence[Retention]) -> None:
    """Every verified image, and why it stays."""
    if not decisions:
        return
    table = _of_images("stays because")
    for decision in decisions:
        why = literal("; ".join(decision.reasons)) if decision.reasons else literal("not needed", "red")
        image = decision.image.image
        table.add_row(*(literal(fact) for fact in (decision.image.id, image.name, _time(image))), why)
    console.print(table)


def _of_images(*columns: str) -> Table:
    """A table whose ids are whole on the narrowest terminal, since other commands take them."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("image", no_wrap=True)
    for column in ("name", "created", *columns):
        table.add_column(column, overflow="fold")
    return table


def _time(image: Ami) -> str:
    return image.created[:16].replace("T", " ")
