"""Ending what bakes have left. All is found by its tags, since the answer that told its id may be what was lost."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from baker.aws.client import POLL_SECONDS
from baker.aws.images import Image
from baker.aws.instances import Machine
from baker.aws.volumes import Piece
from baker.context import Context

LOOKS = 4  # POLL_SECONDS apart: what was made a moment ago may not be shown yet


@dataclass(frozen=True)
class Leftovers:
    """What nobody needs any more."""

    machines: Sequence[Machine] = ()
    images: Sequence[Image] = ()
    volumes: Sequence[Piece] = ()
    snapshots: Sequence[Piece] = ()

    def __len__(self) -> int:
        return len(self.machines) + len(self.images) + len(self.volumes) + len(self.snapshots)


def overdue(context: Context, now: datetime, at_work: str = "") -> Leftovers:
    """What is past its deadline. A bake with a machine whose time is not over is under way, and so is the one that a
    launcher is `at_work` on: nothing of them is.
    """
    machines = context.machines.ours()
    busy = {at_work, *(machine.bake for machine in machines if not machine.overdue(now))}
    images = context.images.ours()
    return Leftovers(
        [machine for machine in machines if machine.overdue(now) and machine.bake != at_work],
        [image for image in images if not image.verified and image.bake not in busy and image.overdue(now)],
        [volume for volume in context.storage.volumes() if volume.bake not in busy and volume.overdue(now)],
        [piece for piece in _loose(context, images) if piece.bake not in busy and piece.overdue(now)],
    )


def of_bake(context: Context, bake: str) -> Leftovers:
    """Everything of one bake but a verified image, whatever its deadline."""
    return replace(_beside_machines(context, bake, context.images.ours()), machines=context.machines.ours(bake))


def sweep(context: Context, bake: str) -> None:
    """End every machine of a bake, and remove everything of it but a verified image.

    Machines are ended as they are found, before anything else that could fail.
    """
    ended: dict[str, Machine] = {}
    for look in range(LOOKS):
        for machine in context.machines.ours(bake):
            if machine.id not in ended:
                context.machines.terminate(machine.id)
                ended[machine.id] = machine
        images = context.images.ours()
        if ended and any(image.bake == bake for image in images):
            break
        if look < LOOKS - 1:
            context.sleep(POLL_SECONDS)
    _discard(context, _beside_machines(context, bake, images), ended)


def spare(context: Context, bake: str) -> Machine | None:
    """Remove all of a bake but the machine to be kept, which is returned. None: there is none, and nothing was done."""
    machines = context.machines.ours(bake)
    kept = next((machine for machine in machines if _keepable(context, machine)), None)
    if kept is not None:
        images = context.images.ours()
        left = [image for image in images if image.bake == bake and not image.verified]
        loose = [piece for piece in _loose(context, images) if piece.bake == bake]
        others = [machine for machine in machines if machine.id != kept.id]
        remove(context, Leftovers(machines=others, images=left, snapshots=loose))
    return kept


def _keepable(context: Context, machine: Machine) -> bool:
    """Whether it was launched to be kept, and will end itself: what does not run, or should have ended, will not."""
    return machine.keep and machine.state in ("pending", "running") and not machine.overdue(context.now())


def remove(context: Context, left: Leftovers) -> None:
    """End the machines, then remove the rest."""
    for machine in left.machines:
        context.machines.terminate(machine.id)
    _discard(context, left, [machine.id for machine in left.machines])


def _discard(context: Context, left: Leftovers, ending: Iterable[str]) -> None:
    """Remove images, and once the machines that are ending are gone, volumes and snapshots."""
    for image in left.images:
        context.images.remove(image)
    for machine_id in ending:
        context.machines.wait(machine_id, "terminated")
    for volume in left.volumes:
        context.storage.delete_volume(volume.id)
    for snapshot in left.snapshots:
        context.storage.delete_snapshot(snapshot.id)


def _beside_machines(context: Context, bake: str, images: list[Image]) -> Leftovers:
    return Leftovers(
        images=[image for image in images if image.bake == bake and not image.verified],
        volumes=[volume for volume in context.storage.volumes() if volume.bake == bake],
        snapshots=[piece for piece in _loose(context, images) if piece.bake == bake],
    )


def _loose(context: Context, images: list[Image]) -> list[Piece]:
    """Snapshots of bakes that no image has; the others go with their image."""
    kept = {snapshot for image in images for snapshot in image.snapshots}
    return [piece for piece in context.storage.snapshots() if piece.id not in kept]
