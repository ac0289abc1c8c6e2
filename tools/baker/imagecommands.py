"""The commands about images that exist: list, publish, rollback, prune, diff."""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from baker import catalog, clouds, imagetables, publishing, retention
from baker.context import Context, open_context
from baker.errors import AwsError, UsageError
from baker.progress import Display


@contextmanager
def looking(root: Path, options: argparse.Namespace) -> Iterator[Context]:
    """Where images are looked at; whatever is wrong is a UsageError, since nothing is changed."""
    with clouds.planning_config(root, options.cloud, options.config) as config:
        try:
            yield open_context(root, config, Display())
        except AwsError as error:
            raise UsageError(str(error)) from None


def acting(root: Path, options: argparse.Namespace) -> Context:
    """Where images are changed."""
    display = Display()
    return open_context(root, clouds.bake_config(root, options, display), display)


def list_images(root: Path, options: argparse.Namespace) -> int:
    """Every image, and who needs it."""
    with looking(root, options) as context:
        entries = catalog.read(context)
        if options.json:
            print(json.dumps(catalog.document(entries), indent=1))
        else:
            imagetables.print_catalog(context.display.console, entries)
    return 0


def publish(root: Path, options: argparse.Namespace) -> int:
    """Make an image the one that is launched."""
    context = acting(root, options)
    image = catalog.choose(context, options.image)
    held = publishing.publish(context, image)
    imagetables.print_published(context, image.id, held)
    return 0


def rollback(root: Path, options: argparse.Namespace) -> int:
    """Go back to what was published before."""
    context = acting(root, options)
    left, held = publishing.roll_back(context)
    context.display.note(f"  left {left}; it is still there: bake.py publish {left}", "dim")
    imagetables.print_published(context, held[context.config.aws.region], held)
    return 0


def prune(root: Path, options: argparse.Namespace) -> int:
    """Remove what nobody needs; without --yes only say what that would be."""
    if options.keep is not None and options.keep < 0:
        raise UsageError("--keep must not be negative")
    context = acting(root, options)
    keep = context.config.publish.keep if options.keep is None else options.keep
    verdicts = retention.judge(catalog.read(context), keep)
    imagetables.print_verdicts(context.display.console, verdicts)
    gone = [verdict.entry.id for verdict in verdicts if not verdict.reasons]
    if not gone:
        context.display.note("nothing to remove")
    elif options.yes:
        with context.display.phase("prune"):
            retention.remove(context, verdicts)
        context.display.note(f"removed {', '.join(gone)}, with disks and copies")
    else:
        context.display.note(f"would remove {', '.join(gone)}: bake.py prune --yes")
    return 0
