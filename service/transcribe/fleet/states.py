"""Changes of a job that several machines and submitters may make at once: each is one conditional write."""

from collections.abc import Callable

import msgspec

from transcribe.fleet.bucket import Bucket, Found
from transcribe.fleet.documents import FINAL, Outcome, State, decoded
from transcribe.fleet.layout import Layout

TRIES = 8  # writes that others came before


class ContendedError(Exception):
    """Others wrote the same object every time. Trying again later helps."""


def read(bucket: Bucket, layout: Layout, job: str) -> tuple[State, Found] | None:
    """The job's state and the object that it was read from, or None. Raises ValueError."""
    found = bucket.read(layout.state(job))
    return (decoded(found.data, State), found) if found else None


def change(bucket: Bucket, layout: Layout, job: str, update: Callable[[State], State]) -> State | None:
    """Writes what `update` makes of the job's state; returns it as it is then, or None if there is no such job.

    `update` is called again when somebody else has written meanwhile, and must not mind having been called before: the
    answer to a write may be lost. Raises ContendedError.
    """
    for _ in range(TRIES):
        known = read(bucket, layout, job)
        if known is None:
            return None
        state, found = known
        wanted = update(state)
        if wanted == state or bucket.put_if(layout.state(job), wanted.encoded(), found.etag):
            return wanted
    raise ContendedError(f"the state of the job {job} changes all the time")


def outcome(bucket: Bucket, layout: Layout, job: str) -> Outcome | None:
    """How the job ended, or None as long as it has not. Raises ValueError."""
    found = bucket.read(layout.outcome(job))
    return decoded(found.data, Outcome) if found else None


def conclude(bucket: Bucket, layout: Layout, ended: Outcome) -> Outcome:
    """Makes `ended` the job's outcome, unless it has one: returns the one that counts."""
    if bucket.put_new(layout.outcome(ended.job), ended.encoded()):
        return ended
    return outcome(bucket, layout, ended.job) or ended  # removed meanwhile


def close(bucket: Bucket, layout: Layout, ended: Outcome) -> bool:
    """Says in the job's state how it ended; False if the job was removed."""

    def update(state: State) -> State:
        if state.status in FINAL:
            return state
        return msgspec.structs.replace(
            state,
            status=ended.status,
            progress=ended.duration,
            error=ended.error,
            language=ended.language,
            coverage=ended.coverage,
            attempts=ended.attempts,
            started=ended.started or state.started,
            finished=ended.finished,
            speed=ended.speed,
            dollars_per_hour=ended.dollars_per_hour,
        )

    return change(bucket, layout, ended.job, update) is not None


def cancel(bucket: Bucket, layout: Layout, state: State, now: float) -> Outcome:
    """Ends a job that is not over; returns the outcome that counts, which may be another's."""
    ended = conclude(
        bucket, layout, Outcome(job=state.job, owner=state.owner, status="cancelled", finished=now, attempts=0)
    )
    close(bucket, layout, ended)
    return ended
