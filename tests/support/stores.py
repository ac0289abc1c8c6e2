"""A job store whose time stands still, and jobs for it."""

from dataclasses import replace
from typing import Any

from transcribe.jobs.models import NewJob
from transcribe.jobs.store import Store
from transcribe.types import DecodeOptions

OPTIONS = DecodeOptions(language="sv", prompt="Ärendet", words=True)


class Clock:
    """Time that moves only when a test sets it."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def new(key_id: str = "", **changes: Any) -> NewJob:
    """A job of a key."""
    return replace(NewJob(key_id=key_id, options=OPTIONS), **changes)


def claimed(store: Store) -> tuple[str, int]:
    """The next job's id and attempt."""
    job = store.claim()
    assert job is not None
    return job.id, job.attempts
