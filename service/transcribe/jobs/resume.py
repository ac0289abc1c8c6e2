"""What a later attempt needs to go on with a job, as the worker's assembly stores it. It may come from another machine,
so it is checked before anything is built on it."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from transcribe.types import Segment

Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0.0)]


class Gap(msgspec.Struct):
    """An entry of the coverage report."""

    start: float
    end: float
    reason: str
    text: str = ""
    channel: int | None = None


class Coverage(msgspec.Struct):
    """What was heard, what of it has text, and what was left out."""

    speech: float
    text: float
    count: int
    dropped: list[Gap]
    missing: float = 0.0
    warnings: list[str] = []


class Strand(msgspec.Struct):
    """Where the text of a channel ends."""

    channel: int | None
    end: float
    language: str | None
    chances: dict[str, float] = {}


class Resume(msgspec.Struct):
    """The state of an assembly. `end` stands for `strands` in what versions before channels have stored."""

    chunks: Count
    progress: Seconds
    next_id: Count
    coverage: Coverage
    cut: Seconds = 0.0
    held: list[Segment] = []
    spoken: dict[str, int] = {}
    strands: list[Strand] | None = None
    end: float | None = None
    language: str | None = None


def check(found: Mapping[str, Any], segments: Sequence[Segment]) -> None:
    """Raises ValueError unless an attempt can go on from `found` and the segments that were kept so far."""
    state = msgspec.convert(found, Resume)
    if state.strands is None and state.end is None:
        raise ValueError("it does not say where the text ends")
    ids = [segment.id for segment in segments]
    if len(set(ids)) < len(ids):
        raise ValueError("it has a segment twice")
    if not all(0 <= number < state.next_id for number in ids):
        raise ValueError("its next segment has the number of one that is there")
