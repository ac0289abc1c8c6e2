"""The fleet's bucket and queues, by the launcher's clients."""

import getpass
from dataclasses import dataclass

from transcribe.fleet import queues
from transcribe.fleet.bucket import Bucket
from transcribe.fleet.layout import Layout
from transcribe.fleet.queues import Queues

from baker.aws.client import aws_errors
from baker.config import LauncherConfig
from baker.context import BakeContext
from baker.errors import UsageError


@dataclass(frozen=True)
class FleetCloud:
    """Where jobs are put, and whose they are."""

    bucket: Bucket
    queues: Queues
    layout: Layout
    owner: str


def bucket_name(config: LauncherConfig) -> str:
    """The bucket of the fleet."""
    return config.fleet.bucket or config.s3.bucket


def open_fleet(context: BakeContext) -> FleetCloud:
    """The fleet that the configuration names. Raises UsageError if it names none, or nobody has launched it yet."""
    config = context.config
    if not config.fleet.queue:
        raise UsageError("[fleet] queue names no queue: a fleet needs one, see docs/fleet.md")
    with aws_errors("GetQueueUrl"):
        found = queues.find(context.clients.other("sqs"), config.fleet.queue)
    if found is None:
        raise UsageError(
            f"[fleet] there are no queues {config.fleet.queue!r} in {config.aws.region}: bake.py launch makes them"
        )
    return _cloud(context, found)


def make_queues(context: BakeContext) -> FleetCloud:
    """Creates the queues of the fleet, where they are not there yet."""
    with aws_errors("CreateQueue"):
        made = queues.make(context.clients.other("sqs"), context.config.fleet.queue, dict(context.config.tags))
    return _cloud(context, made)


def remove(fleet: FleetCloud) -> None:
    """Removes the queues and every object of a fleet, as far as they are there."""
    with aws_errors("DeleteQueue"):
        fleet.queues.remove()
    with aws_errors(f"DeleteObject {fleet.layout.prefix}"):
        fleet.bucket.delete(list(fleet.bucket.keys(f"{fleet.layout.prefix}/")))


def _cloud(context: BakeContext, found: Queues) -> FleetCloud:
    config = context.config
    owner = config.fleet.owner or getpass.getuser()
    return FleetCloud(Bucket(context.clients.s3, bucket_name(config)), found, Layout(config.fleet.prefix), owner)
