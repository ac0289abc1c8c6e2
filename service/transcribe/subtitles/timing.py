"""When each subtitle comes and goes.

As it is spoken, where it can be read in that time. Where it cannot, it stays longer: into the pause behind it, or, if
there is room before it, from a little earlier on, and those behind it wait for it. None begins more than LEAD before
its first word or ends more than LAG after its last. Speech that is too fast even so is shown faster than it can be
read well, as little as needed, at most twice as fast; only then do subtitles fall further behind. No text is dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transcribe.subtitles.rules import GAP, LAG, LEAD, LONGEST, Piece, SubtitleOptions

CHAIN = 500  # ms: a shorter gap is closed to GAP, for a flicker is worse than none
HASTE = 0.5  # of the reading time, at the least
REACH = 20  # subtitles that make up for one that would come too late


@dataclass
class _Slot:
    """A subtitle's words, in ms, and the time that it needs."""

    spoken: int
    silent: int
    least: int
    full: int


def times(subtitles: Sequence[Sequence[Sequence[Piece]]], options: SubtitleOptions) -> list[tuple[int, int]]:
    """Start and end of each, in ms."""
    slots = [_slot(lines, options) for lines in subtitles]
    _hurry(slots)
    starts = _starts(slots)
    found: list[tuple[int, int]] = []
    at = 0
    for number, slot in enumerate(slots):
        start = max(at, starts[number])
        end = start + slot.least
        room = starts[number + 1] - GAP if number + 1 < len(slots) else slot.silent
        end = max(end, min(slot.silent, room, start + LONGEST))
        if number + 1 < len(slots) and end < room < end + CHAIN:
            end = min(room, start + LONGEST)
        found.append((start, end))
        at = end + GAP
    return found


def _slot(lines: Sequence[Sequence[Piece]], options: SubtitleOptions) -> _Slot:
    pieces = [one for line in lines for one in line]
    width = sum(one.width for one in pieces) + sum(one.space for one in pieces[1:])
    need = min(options.reading_time(width), LONGEST)
    return _Slot(pieces[0].start, min(pieces[-1].end, pieces[0].start + LONGEST), need, need)


def _earliest(slot: _Slot) -> int:
    return max(0, slot.spoken - LEAD)


def _hurry(slots: list[_Slot]) -> None:
    """Shortens what cannot all be shown before its latest end, even if each begins as early as it may."""
    ends: list[int] = []
    for number, slot in enumerate(slots):
        ends.append(max(_earliest(slot), ends[-1] + GAP if ends else 0) + slot.least)
        while ends[number] > slot.silent + LAG:
            first = number
            while first > max(0, number - REACH) and ends[first - 1] + GAP > _earliest(slots[first]):
                first -= 1
            if not _squeeze(slots[first : number + 1], ends[number] - slot.silent - LAG):
                break
            for again in range(first, number + 1):
                before = ends[again - 1] + GAP if again else 0
                ends[again] = max(_earliest(slots[again]), before) + slots[again].least


def _squeeze(run: list[_Slot], excess: int) -> bool:
    """Takes `excess` ms, or what there is, off the run's times, each in proportion; False if nothing could be taken."""
    spare = [slot.least - int(slot.full * HASTE) for slot in run]
    total = sum(spare)
    if total <= 0:
        return False
    for slot, one in zip(run, spare, strict=True):
        slot.least -= min(one, -(-one * min(excess, total) // total))
    return True


def _starts(slots: list[_Slot]) -> list[int]:
    """When each should begin: with its first word, or earlier, as far as it may, so that the next is not kept."""
    starts = [0] * len(slots)
    following: int | None = None
    for number in range(len(slots) - 1, -1, -1):
        slot = slots[number]
        latest = min(slot.spoken, slot.silent + LAG - slot.least)
        if following is not None:
            latest = min(latest, following - GAP - slot.least)
        starts[number] = following = max(_earliest(slot), latest)
    return starts
