"""A bake for programs: one JSON object a line, of the kinds that events.schema.json beside this file describes."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

Tell = Callable[..., None]  # the kind of an event, and its fields by name

PHASE, STEP, NOTE, BAKE, VERDICT, IMAGE, END = "phase", "step", "note", "bake", "verdict", "image", "end"
BEGUN, DONE, FAILED = "begun", "done", "failed"  # of a phase


def untold(event: str, **fields: object) -> None:
    """For people only."""


def to(stream: TextIO) -> Tell:
    """What writes events to `stream`, each at once."""

    def tell(event: str, **fields: object) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        stream.write(json.dumps({"time": now, "event": event, **fields}, ensure_ascii=False) + "\n")
        stream.flush()

    return tell
