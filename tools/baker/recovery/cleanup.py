"""Removes what bakes have left. Everything is found by its tags, since the response with its id may have been lost."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime

from baker import interrupts
from baker.aws.client import POLL_SECONDS
from baker.aws.images import Ami
from baker.aws.instances import Ec2Instance
from baker.aws.volumes import Volume
from baker.context import BakeContext
from baker.errors import AwsError, BakeError, KeptError, UnfinishedError
from baker.recovery import lease

POLLS = 4  # POLL_SECONDS apart: AWS may not list what was made a moment ago


@dataclass(frozen=True)
class Leftovers:
    """What nobody needs any more."""

    machines: Sequence[Ec2Instance] = ()
    images: Sequence[Ami] = ()
    volumes: Sequence[Volume] = ()
    snapshots: Sequence[Volume] = ()

    def __len__(self) -> int:
        return len(self.machines) + len(self.images) + len(self.volumes) + len(self.snapshots)


@contextmanager
def cleanup_on_failure(context: BakeContext, name: str) -> Iterator[None]:
    """If anything inside fails, remove everything of the bake; signals cannot interrupt that.

    Exceptions: if another launcher took over, or AWS is only slow, touch nothing. If the bake failed, was not
    interrupted, and its machine was launched with --keep, keep that machine and raise KeptError.
    """
    try:
        yield
    except lease.LostError:
        raise
    except UnfinishedError as error:
        raise UnfinishedError(f"{error}; `bake.py resume {name}` waits for it again, and nothing was removed") from None
    except BaseException as error:
        with interrupts.held_off(context.display.note):
            kept = _clean_up(context, name, may_keep=isinstance(error, BakeError))
        if kept is None:
            raise
        raise KeptError(
            f"{error}; its machine {kept.id} is kept {kept.until}, and never becomes an image: "
            f"`bake.py reap --bake {name} --yes` ends it before",
            kept.id,
        ) from None


def _clean_up(context: BakeContext, name: str, *, may_keep: bool) -> Ec2Instance | None:
    """Remove what can be removed; returns the machine that is kept, if any."""
    try:
        with suppress(AwsError):
            context.renew_lease()
        kept = keep_failed_machine(context, name) if may_keep else None
        if kept is None:
            sweep(context, name)
        return kept
    except lease.LostError:
        raise
    except BakeError as error:
        context.display.note(f"cleaning up failed: {error}; {_what_then(context, name, error)}")
        return None


def _what_then(context: BakeContext, name: str, error: BakeError) -> str:
    """What becomes of what could not be removed, and what a person can do about it."""
    minutes = context.config.bake.deadline_minutes
    ends = f"a machine that runs ends itself {minutes} minutes after launch at most"
    reap = f"`bake.py reap --bake {name} --yes` removes the rest"
    if isinstance(error, AwsError) and error.logged_out:
        resume = f"`bake.py resume {name}` continues the bake"
        return f"{ends}. Once AWS takes the keys again, {resume}, or {reap}, also what is stopped"
    return f"{ends}, and {reap}"


def overdue(context: BakeContext, now: datetime, at_work: str = "") -> Leftovers:
    """What is past its deadline.

    Skips bakes that are in progress: those with a machine before its deadline, and the one named by `at_work`.
    """
    machines = context.machines.ours()
    busy = {at_work, *(machine.bake for machine in machines if not machine.overdue(now))}
    images = context.images.ours()
    return Leftovers(
        [machine for machine in machines if machine.overdue(now) and machine.bake != at_work],
        [image for image in images if not image.verified and image.bake not in busy and image.overdue(now)],
        [volume for volume in context.volumes.volumes() if volume.bake not in busy and volume.overdue(now)],
        [snapshot for snapshot in _orphans(context, images) if snapshot.bake not in busy and snapshot.overdue(now)],
    )


def of_bake(context: BakeContext, bake: str) -> Leftovers:
    """Everything of one bake but a verified image, whatever its deadline."""
    return replace(_beside_machines(context, bake, context.images.ours()), machines=context.machines.ours(bake))


def sweep(context: BakeContext, bake: str) -> None:
    """Terminate every machine of a bake, and remove everything of it but a verified image.

    Machines are terminated as soon as they are found, before anything else that could fail.
    """
    terminated: dict[str, Ec2Instance] = {}
    for poll in range(POLLS):
        for machine in context.machines.ours(bake):
            if machine.id not in terminated:
                context.machines.terminate(machine.id)
                terminated[machine.id] = machine
        images = context.images.ours()
        if terminated and any(image.bake == bake for image in images):
            break
        if poll < POLLS - 1:
            context.sleep(POLL_SECONDS)
    _discard(context, _beside_machines(context, bake, images), terminated)


def keep_failed_machine(context: BakeContext, bake: str) -> Ec2Instance | None:
    """Remove all of a bake but the machine to keep, which is returned. None: there is none, and nothing was removed."""
    machines = context.machines.ours(bake)
    kept = next((machine for machine in machines if _keepable(context, machine)), None)
    if kept is not None:
        images = context.images.ours()
        unverified = [image for image in images if image.bake == bake and not image.verified]
        orphans = [snapshot for snapshot in _orphans(context, images) if snapshot.bake == bake]
        others = [machine for machine in machines if machine.id != kept.id]
        remove(context, Leftovers(machines=others, images=unverified, snapshots=orphans))
    return kept


def _keepable(context: BakeContext, machine: Ec2Instance) -> bool:
    """Whether it was launched with --keep, and will still end itself: only a running machine can do that."""
    return machine.keep and machine.state in ("pending", "running") and not machine.overdue(context.now())


def remove(context: BakeContext, left: Leftovers) -> None:
    """Terminate the machines, then remove the rest."""
    for machine in left.machines:
        context.machines.terminate(machine.id)
    _discard(context, left, [machine.id for machine in left.machines])


def _discard(context: BakeContext, left: Leftovers, terminated: Iterable[str]) -> None:
    """Remove images and, once the terminated machines are gone, volumes and snapshots."""
    for image in left.images:
        context.images.remove(image)
    for machine_id in terminated:
        context.machines.wait(machine_id, "terminated")
    for volume in left.volumes:
        context.volumes.delete_volume(volume.id)
    for snapshot in left.snapshots:
        context.volumes.delete_snapshot(snapshot.id)


def _beside_machines(context: BakeContext, bake: str, images: list[Ami]) -> Leftovers:
    return Leftovers(
        images=[image for image in images if image.bake == bake and not image.verified],
        volumes=[volume for volume in context.volumes.volumes() if volume.bake == bake],
        snapshots=[snapshot for snapshot in _orphans(context, images) if snapshot.bake == bake],
    )


def _orphans(context: BakeContext, images: list[Ami]) -> list[Volume]:
    """Snapshots of bakes that belong to no image; the others are removed with their image."""
    used = {snapshot for image in images for snapshot in image.snapshots}
    return [snapshot for snapshot in context.volumes.snapshots() if snapshot.id not in used]
