"""The commands about images that exist: list, publish, rollback, prune, diff, launch."""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from baker import target as clouds
from baker.aws.client import only_looking
from baker.commands import imagetables
from baker.context import Context, open_context
from baker.deploy import serve, template
from baker.deploy.template import Serving
from baker.display.progress import Display
from baker.errors import UsageError
from baker.images import catalog, manifest, retention
from baker.images import diff as comparing
from baker.images import publish as publishing


@contextmanager
def looking(root: Path, options: argparse.Namespace) -> Iterator[Context]:
    """Where images are looked at; whatever is wrong is a UsageError, since nothing is changed."""
    with clouds.planning_config(root, options.cloud, options.config) as config, only_looking():
        yield open_context(root, config, Display())


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


def diff(root: Path, options: argparse.Namespace) -> int:
    """What separates two images."""
    with looking(root, options) as context:
        images = [catalog.choose(context, word) for word in (options.a, options.b)]
        told = [manifest.need(context.bucket, context.config.s3.prefix, image) for image in images]
        found = comparing.difference(*told)
        if options.json:
            print(json.dumps(found.document(), indent=1))
        else:
            imagetables.print_difference(context.display.console, images, found)
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


def launch(root: Path, options: argparse.Namespace) -> int:
    """Start what serves from the published image, or end it."""
    context = acting(root, options)
    if options.end:
        with context.display.phase("end what was launched"):
            ended = serve.end(context)
        context.display.note(f"ended {', '.join(ended) or 'no machine'}; the template and its groups are gone")
        return 0
    if options.keys:
        context = serve.with_keys(context, str(options.keys.resolve()))
    told = template.serving(root, context.config)
    with context.display.phase("launch template"):
        name = serve.template(context, told)
    if options.group:
        with context.display.phase("group"):
            target = serve.group(context, told)
        context.display.note(f"the group {name} is behind {target}: name it in a listener of your balancer")
        if options.wait:
            with context.display.phase("wait until its machines are there"):
                instances = serve.members(context)
            for instance in instances:
                _serves(root, options, context, instance, told)
        return 0
    with context.display.phase("start a machine"):
        instance = serve.one(context)
    _serves(root, options, context, instance, told)
    return 0


def _serves(root: Path, options: argparse.Namespace, context: Context, instance: str, told: Serving) -> None:
    """Say where a machine serves; if that is wished, once it does."""
    url = clouds.address(root, options.cloud, context, instance, told.port)
    if options.wait:
        with context.display.phase("wait until it is ready"):
            serve.wait_ready(context, url, told)
    context.display.note(f"{instance} serves at {url}")
