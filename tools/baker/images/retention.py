"""Which images may go, and their removal."""

from collections.abc import Sequence
from dataclasses import dataclass

from baker.context import Context
from baker.images import regions
from baker.images.catalog import Entry


@dataclass(frozen=True)
class Verdict:
    """An image, and why it stays; without a reason it may go."""

    entry: Entry
    reasons: tuple[str, ...]


def judge(entries: Sequence[Entry], keep: int) -> list[Verdict]:
    """What prune would do with each verified image, newest first: the `keep` newest stay, and whatever is needed.

    An image that is not verified is being made, or left over: that is for `reap`. A copy whose image is gone counts
    for none of the newest.
    """
    verified = [entry for entry in entries if entry.image.verified]
    whole = [entry.id for entry in verified if entry.home in entry.held]
    newest = {id_: number for number, id_ in enumerate(whole[:keep], 1)}
    return [
        Verdict(entry, (*([f"number {newest[entry.id]} of {keep}"] if entry.id in newest else []), *entry.needs))
        for entry in verified
    ]


def remove(context: Context, verdicts: Sequence[Verdict]) -> list[Entry]:
    """Remove every image without a reason to stay, its copies first: while it is there, they can be found by it."""
    places = {region.name: region for region in regions.every(context)}
    gone = [verdict.entry for verdict in verdicts if not verdict.reasons]
    for entry in gone:
        for name in sorted(entry.held, key=lambda name: name == entry.home):
            places[name].images.remove(entry.held[name].image)
    return gone
