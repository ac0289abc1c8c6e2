"""What a person reads about images that exist."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from baker.aws.images import Image
from baker.context import Context
from baker.images.catalog import Entry
from baker.images.diff import Difference
from baker.images.retention import Verdict


def print_catalog(console: Console, entries: Sequence[Entry]) -> None:
    """One line for each image, newest first."""
    if not entries:
        console.print("there is no image yet")
        return
    table = _of_images("verified", "copies", "needed")
    for entry in entries:
        image = entry.image
        copies = [name for name in entry.held if name != entry.home]
        mark = "[green]yes[/green]" if image.verified else "[yellow]no[/yellow]"
        needs = "; ".join(entry.needs)
        bold = any(held.published for held in entry.held.values())
        row = (entry.id, image.name, _time(image), mark, ", ".join(copies), escape(needs))
        table.add_row(*row, style="bold" if bold else None)
    console.print(table)


def print_published(context: Context, image_id: str, held: Mapping[str, str]) -> None:
    """What is launched from now on, and where that is written."""
    console, wanted = context.display.console, context.config.publish
    console.print(f"\n[bold green]published[/bold green]  [bold]{image_id}[/bold]")
    for region, found in held.items():
        console.print(f"  {region}  {escape(wanted.ssm_parameter)} = {found}", style="dim")
    shared = [*wanted.accounts, *wanted.organizations]
    if shared:
        console.print(f"  shared with {escape(', '.join(shared))}", style="dim")


def print_difference(console: Console, images: Sequence[Image], found: Difference) -> None:
    """What changes from the first image to the second, and how large each is."""
    console.print(f"from [bold]{images[0].id}[/bold]  {escape(images[0].name)}")
    console.print(f"to   [bold]{images[1].id}[/bold]  {escape(images[1].name)}")
    if not found.groups:
        console.print("\nthey are made of the same things")
    for name, changes in found.groups.items():
        table = Table(box=None, show_header=False, title=f"\n{name}", title_justify="left", title_style="bold")
        for change in changes:
            mark = "[green]+[/green]" if not change.before else "[red]-[/red]" if not change.after else "~"
            both = " → ".join(filter(None, (change.before, change.after)))
            table.add_row(mark, escape(change.what), f"[dim]{escape(both)}[/dim]")
        console.print(table)
    sizes = Table(box=None, show_header=False, title="\nMB", title_justify="left", title_style="bold")
    for name, (before, after) in found.bytes.items():
        sizes.add_row(name, f"{before / 1e6:,.1f}", f"{after / 1e6:,.1f}", f"{(after - before) / 1e6:+,.1f}")
    console.print(sizes)


def print_verdicts(console: Console, verdicts: Sequence[Verdict]) -> None:
    """Every verified image, and why it stays."""
    if not verdicts:
        return
    table = _of_images("stays because")
    for verdict in verdicts:
        why = escape("; ".join(verdict.reasons)) or "[red]nobody needs it[/red]"
        image = verdict.entry.image
        table.add_row(verdict.entry.id, image.name, _time(image), why)
    console.print(table)


def _of_images(*columns: str) -> Table:
    """A table whose ids are whole on the narrowest terminal, since other commands take them."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("image", no_wrap=True)
    for column in ("name", "created", *columns):
        table.add_column(column, overflow="fold")
    return table


def _time(image: Image) -> str:
    return image.created[:16].replace("T", " ")
