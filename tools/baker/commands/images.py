"""The commands about images that exist: list, publish, rollback, prune, diff, launch."""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from baker import target
from baker.aws.client import read_only
from baker.aws.images import Ami
from baker.commands import tables
from baker.context import BakeContext, open_context
from baker.deploy import roll, serve, template
from baker.deploy.template import ServiceSetup
from baker.display.progress import Display
from baker.errors import UsageError
from baker.fleet import drops
from baker.fleet.cloud import make_queues
from baker.images import catalog, manifest
from baker.images.diff import difference
from baker.images.publish import publish_image, roll_back


@contextmanager
def looking(root: Path, options: argparse.Namespace) -> Iterator[BakeContext]:
    """Where images are looked at; whatever is wrong is a UsageError, since nothing is changed."""
    with target.planning_config(root, options.cloud, options.config) as config, read_only():
        yield open_context(root, config, Display())


def acting(root: Path, options: argparse.Namespace) -> BakeContext:
    """Where images are changed."""
    display = Display()
    return open_context(root, target.bake_config(root, options, display), display)


def list_images(root: Path, options: argparse.Namespace) -> int:
    """Every image, and who needs it."""
    with looking(root, options) as context:
        entries = catalog.read(context)
        if options.json:
            print(json.dumps(catalog.document(entries), indent=1))
        else:
            tables.print_catalog(context.display.console, entries)
    return 0


def publish(root: Path, options: argparse.Namespace) -> int:
    """Make an image the one that is launched."""
    context = acting(root, options)
    image = catalog.choose(context, options.image)
    if options.roll is None:
        replicas = publish_image(context, image)
    else:
        replicas = roll_out(root, options, _of_group(context, options.roll), image)
    tables.print_published(context, image.id, replicas)
    return 0


def diff(root: Path, options: argparse.Namespace) -> int:
    """What separates two images."""
    with looking(root, options) as context:
        images = [catalog.choose(context, word) for word in (options.a, options.b)]
        manifests = [manifest.need(context.bucket, context.config.s3.prefix, image) for image in images]
        found = difference(*manifests)
        if options.json:
            print(json.dumps(found.document(), indent=1))
        else:
            tables.print_difference(context.display.console, images, found)
    return 0


def rollback(root: Path, options: argparse.Namespace) -> int:
    """Go back to what was published before."""
    context = acting(root, options)
    if options.group is None:
        left, replicas = roll_back(context)
    else:
        left, replicas = roll.back(_of_group(context, options.group))
    context.display.note(f"  left {left}; it is still there: bake.py publish {left}", "dim")
    tables.print_published(context, replicas[context.config.aws.region], replicas)
    return 0


def roll_out(root: Path, options: argparse.Namespace, context: BakeContext, image: Ami) -> dict[str, str]:
    """Let an image replace the machines of a group; returns it by region."""
    setup = template.service_setup(root, context.config)
    if options.cloud == target.AWS and not context.config.fleet.queue:
        where = serve.reachable(context, replace(setup, open=True))
        if where:
            raise UsageError(f"a canary could be reached {where}")

    def reach(instance: str) -> list[str]:
        return [url for url in target.addresses(root, options.cloud, context, instance, setup.port) if url]

    return roll.forward(context, image, reach)


def _of_group(context: BakeContext, name: str) -> BakeContext:
    """The same, for the group of this name; empty: the configured one."""
    launch = context.config.launch
    return replace(context, config=replace(context.config, launch=replace(launch, name=name or launch.name)))


def prune(root: Path, options: argparse.Namespace) -> int:
    """Remove images that are not needed; without --yes only list them."""
    if options.keep is not None and options.keep < 0:
        raise UsageError("--keep must not be negative")
    context = acting(root, options)
    keep = context.config.publish.keep if options.keep is None else options.keep
    decisions = catalog.judge(catalog.read(context), keep)
    tables.print_retention(context.display.console, decisions)
    gone = [decision.image.id for decision in decisions if not decision.reasons]
    if not gone:
        context.display.note("nothing to remove")
    elif options.yes:
        with context.display.phase("prune"):
            catalog.remove(context, decisions)
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
    setup = template.service_setup(root, context.config)
    if context.config.fleet.queue:
        with context.display.phase("queues of the fleet"):
            drops.listen(context, make_queues(context))
    with context.display.phase("launch template"):
        name = serve.template(context, setup)
    if options.group:
        with context.display.phase("group"):
            target_group = serve.group(context, setup)
        context.display.note(f"the group {name} is behind {target_group}: name it in a listener of your balancer")
        if serve.mixed(context.config):
            context.display.note(_markets(context, options.cloud))
        if options.wait:
            with context.display.phase("wait until its machines are there"):
                instances = serve.members(context)
            for instance in instances:
                _serves(root, options, context, instance, setup)
        return 0
    with context.display.phase("start a machine"):
        instance = serve.one(context)
    _serves(root, options, context, instance, setup)
    return 0


def _markets(context: BakeContext, cloud: str) -> str:
    """What a group makes of two markets, for a person."""
    if cloud == target.LOCAL:
        return "the local cloud starts all machines of a group on demand"
    least = context.config.launch.min_size
    return f"{least} of its machines are on demand, those beyond are spot; where no spot is to be had, it has no more"


def _serves(root: Path, options: argparse.Namespace, context: BakeContext, instance: str, setup: ServiceSetup) -> None:
    """Print where a machine serves; with --wait, once it does."""
    public, private = target.addresses(root, options.cloud, context, instance, setup.port)
    where = serve.reachable(context, setup) if options.cloud == target.AWS else ""
    if where:
        context.display.note(f"{instance} runs. It can be reached {where}", "yellow")
        return
    if options.wait:
        with context.display.phase("wait until it is ready"):
            serve.wait_ready(context, [url for url in (public, private) if url], setup)
    if public:
        inside = f" (inside its network: {private})" if private else ""
        context.display.note(f"{instance} serves at {public}{inside}")
    else:
        context.display.note(f"{instance} serves at {private}, from inside its network")
