"""The durable job store, shared by the API and the worker. What a method returned from is on the disk.

A worker's attempt at a job is identified by `attempt` (Job.attempts as claimed). Writes of an earlier attempt are
ignored, so that every job ends exactly once.
"""

# ruff: noqa: S608 - statements are put together from constants; every value is bound

import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from transcribe import logs
from transcribe.jobs.corrections import CorrectionStore
from transcribe.jobs.database import BUSY_SECONDS, Database, StoreError
from transcribe.jobs.models import (
    SEGMENT_DECODER,
    Bounds,
    Job,
    JobError,
    NewJob,
    QueueFullError,
    QueueStats,
    job_from,
    row_from,
    to_json,
)
from transcribe.jobs.tickets import Tickets
from transcribe.types import Segment

__all__ = ["LONGEST_HANDICAP", "Store", "StoreError"]

LONGEST_HANDICAP = 600.0  # seconds that a long recording lets shorter ones go first: short before long, none starves
LENGTH = "coalesce(duration, estimate)"
WORK = f"({LENGTH} * channels)"  # seconds of audio: each channel that is heard by itself counts
RANK = f"(created + min({WORK}, {LONGEST_HANDICAP}))"
LEFT = f"(max({LENGTH} - progress, 0) * channels)"  # those that still wait
BUSY_KEYS = "(SELECT key_id, count(*) AS running FROM jobs WHERE status = 'running' GROUP BY key_id) AS busy"
DUE = "(not_before <= :now OR not_before > :now + :longest)"  # a later time is from before the clock was set back
LONGEST_DELAY = 60.0  # seconds between two attempts after setbacks
MAX_ATTEMPTS = 3
TRIES = "(attempts - releases)"
CURRENT = "id = :id AND status = 'running' AND attempts = :attempt"
FAIL = "UPDATE jobs SET status = 'failed', finished = :now, progress = 0, error = :error"
REQUEUE = (
    "UPDATE jobs SET status = 'queued', started = NULL, progress = CASE WHEN resume IS NULL THEN 0 ELSE progress END"
)
FORGET = "DELETE FROM segments WHERE job IN (SELECT id FROM jobs WHERE {} AND resume IS NULL)"  # nothing to go on from
WORKER, MACHINE = "worker", "machine"  # names of facts


class Store:
    """Jobs, their segments and the worker's facts in one file. Every method may be called from any thread."""

    def __init__(
        self, path: Path, *, clock: Callable[[], float] = time.time, busy_seconds: float = BUSY_SECONDS
    ) -> None:
        """Opens or creates the file. Methods wait `busy_seconds` for other writers. Raises StoreError."""
        self._database = Database(path, busy_seconds=busy_seconds)
        self._clock = clock
        self.tickets = Tickets(self._database, clock)
        self.corrections = CorrectionStore(self._database)

    def version(self) -> int:
        """Changes with every commit of any process; poll it to wait."""
        return self._database.version()

    def close(self) -> None:
        """Closes every connection."""
        self._database.close()

    # Used by the API

    def create(self, new: NewJob, *, bounds: Bounds | None = None, reuse_since: float | None = None) -> Job:
        """Stores the job, or returns the one it repeats (created at or after `reuse_since` with the same key and
        fingerprint, not failed or cancelled). Raises QueueFullError."""
        with self._database.transaction() as connection:
            if reuse_since is not None and (found := _find_repeat(connection, new, reuse_since)):
                return found
            if bounds:
                _check_bounds(connection, new, bounds)
            row = row_from(new, self._clock())
            columns, values = ", ".join(row), ", ".join(f":{name}" for name in row)
            created = connection.execute(f"INSERT INTO jobs ({columns}) VALUES ({values}) RETURNING *", row).fetchone()
            return job_from(created)

    def get(self, job_id: str) -> Job | None:
        """The job, or None."""
        row = self._database.reader().execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return job_from(row) if row else None

    def jobs(self, key_id: str, *, limit: int = 20, before: float | None = None) -> list[Job]:
        """A key's jobs, newest first, those created before `before`."""
        rows = self._database.reader().execute(
            "SELECT * FROM jobs WHERE key_id = ? AND created < ? ORDER BY created DESC, id LIMIT ?",
            (key_id, before if before is not None else float("inf"), limit),
        )
        return [job_from(row) for row in rows]

    def segments(self, job_id: str, after: int = -1, limit: int = -1) -> list[Segment]:
        """The job's segments so far, those with an id above `after`: all, or the first `limit`."""
        query = "SELECT body FROM segments WHERE job = ? AND id > ? ORDER BY id LIMIT ?"
        rows = self._database.reader().execute(query, (job_id, after, limit))
        return [SEGMENT_DECODER.decode(row[0]) for row in rows]

    def cancel(self, job_id: str, *, unless_detached: bool = False) -> bool:
        """Ends an unfinished job; True if it was this call that ended it."""
        condition = " AND NOT detached" if unless_detached else ""
        return self._changes(
            "UPDATE jobs SET status = 'cancelled', finished = :now"
            f" WHERE id = :id AND status IN ('queued', 'running'){condition}",
            {"id": job_id},
        )

    def delete(self, job_id: str) -> bool:
        """Removes the job and its text; True if it was there."""
        return self._changes("DELETE FROM jobs WHERE id = :id", {"id": job_id})

    def expire(self, before: float, *, fleet: bool = False) -> list[str]:
        """Removes the jobs that finished before that moment; returns their ids. A machine of a `fleet` keeps those that
        it still has tickets for. Elsewhere nobody asks for those any more, and they go with their tickets."""
        kept = " AND id NOT IN (SELECT job FROM tickets)" if fleet else ""
        with self._database.transaction() as connection:
            rows = connection.execute(f"DELETE FROM jobs WHERE finished < ?{kept} RETURNING id", (before,)).fetchall()
            connection.executemany("DELETE FROM tickets WHERE job = ?", rows)
        return [row[0] for row in rows]

    def unfinished(self) -> list[Job]:
        """The jobs whose uploads are still needed."""
        rows = self._database.reader().execute("SELECT * FROM jobs WHERE status IN ('queued', 'running')")
        return [job for job in map(job_from, rows) if not job.over]

    def counts(self) -> dict[str, int]:
        """How many jobs are stored, by status."""
        rows = self._database.reader().execute("SELECT status, count(*) FROM jobs GROUP BY status")
        return {row[0]: row[1] for row in rows}

    def pending_webhooks(self) -> list[Job]:
        """The jobs that are over and whose callback has not been made yet."""
        rows = self._database.reader().execute(
            "SELECT * FROM jobs WHERE callback != '' AND status NOT IN ('queued', 'running') ORDER BY finished"
        )
        return [job_from(row) for row in rows]

    def webhook_done(self, job_id: str) -> None:
        """Marks the callback as made, or given up."""
        self._changes("UPDATE jobs SET callback = '' WHERE id = :id", {"id": job_id})

    def queue_stats(self, key_id: str | None = None) -> QueueStats:
        """The unfinished jobs of all keys, or of one."""
        return _queue_stats(self._database.reader(), key_id)

    def ahead(self, job: Job) -> QueueStats:
        """The jobs that are worked on before this one: those running, and those queued ahead of it."""
        mine = job.created + min(job.work, LONGEST_HANDICAP)
        return _queue_stats(self._database.reader(), None, before=mine)

    # Used by the worker

    def claim(
        self,
        max_attempts: int = MAX_ATTEMPTS,
        *,
        lengths: Sequence[tuple[float, float]] = (),
        keys: Collection[str] = (),
    ) -> Job | None:
        """Starts an attempt at the next queued job whose time has come; None if nothing
        waits. Left out are jobs of the `keys`, and those whose seconds of audio are in one of the `lengths` (from, to).

        The key with the fewest running jobs comes first, so that no key waits for another's queue.
        """
        values = {"now": self._clock(), "most": max_attempts, "keys": to_json([*keys])}
        values["longest"] = LONGEST_DELAY
        values |= {f"from{n}": low for n, (low, _) in enumerate(lengths)}
        values |= {f"to{n}": high for n, (_, high) in enumerate(lengths)}
        left_out = "".join(f" AND NOT ({WORK} >= :from{n} AND {WORK} < :to{n})" for n in range(len(lengths)))
        chosen = (
            f"SELECT id FROM jobs LEFT JOIN {BUSY_KEYS} USING (key_id)"
            f" WHERE status = 'queued' AND {TRIES} < :most AND {DUE}"
            f" AND key_id NOT IN (SELECT value FROM json_each(:keys)){left_out}"
            f" ORDER BY coalesce(busy.running, 0), {RANK}, created, id LIMIT 1"
        )
        while True:
            with self._database.transaction() as connection:
                row = connection.execute(
                    "UPDATE jobs SET status = 'running', started = :now, attempts = attempts + 1"
                    f" WHERE id = ({chosen}) RETURNING *",
                    values,
                ).fetchone()
            job = job_from(row) if row else None
            if job is None or job.error is None:
                return job
            self.fail(job.id, job.attempts, job.error)  # it cannot be read

    def running(self) -> dict[str, int]:
        """The attempts of the jobs that run, by id: what the worker must still work on."""
        rows = self._database.reader().execute("SELECT id, attempts FROM jobs WHERE status = 'running'")
        return {row[0]: row[1] for row in rows}

    def set_duration(self, job_id: str, attempt: int, duration: float) -> bool:
        """Records the true length of the audio; returns False, as all below do, if the attempt is stale."""
        return self._changes(
            f"UPDATE jobs SET duration = :duration WHERE {CURRENT}", _try(job_id, attempt), duration=duration
        )

    def set_channels(self, job_id: str, attempt: int, channels: int) -> bool:
        """Records how many channels are heard each by itself, or 1."""
        return self._changes(
            f"UPDATE jobs SET channels = :channels WHERE {CURRENT}", _try(job_id, attempt), channels=channels
        )

    def add_segments(
        self,
        job_id: str,
        attempt: int,
        segments: Sequence[Segment],
        *,
        progress: float,
        resume: Mapping[str, Any] | None = None,
    ) -> bool:
        """Adds text (ids continue over the whole job) and records the seconds of audio done so far. With `resume` (JSON
        values) a later attempt continues from here; without, it starts over."""
        values = {**_try(job_id, attempt), "progress": progress, "resume": to_json(resume) if resume else None}
        update = f"UPDATE jobs SET progress = :progress, resume = :resume WHERE {CURRENT}"
        with self._database.transaction() as connection:
            if not connection.execute(update, values).rowcount:
                return False
            _insert(connection, job_id, segments)
        return True

    def finish(
        self,
        job_id: str,
        attempt: int,
        *,
        language: str,
        coverage: Mapping[str, Any],
        segments: Sequence[Segment] | None = None,
    ) -> bool:
        """Marks the job as done; `segments`, if there are any, take the place of the text that was added."""
        values = {**_try(job_id, attempt), "language": language, "coverage": to_json(dict(coverage))}
        with self._database.transaction() as connection:
            changed = connection.execute(
                "UPDATE jobs SET status = 'done', finished = :now, language = :language, coverage = :coverage,"
                f" resume = NULL, progress = coalesce(duration, progress) WHERE {CURRENT}",
                {**values, "now": self._clock()},
            ).rowcount
            if changed and segments is not None:
                connection.execute("DELETE FROM segments WHERE job = ?", (job_id,))
                _insert(connection, job_id, segments)
        return bool(changed)

    def fail(self, job_id: str, attempt: int, error: JobError) -> bool:
        """Marks the job as failed with `error`, and removes its text."""
        values = {**_try(job_id, attempt), "error": to_json(error), "now": self._clock()}
        with self._database.transaction() as connection:
            changed = connection.execute(f"{FAIL} WHERE {CURRENT}", values).rowcount
            if changed:
                connection.execute("DELETE FROM segments WHERE job = :id", values)
        return bool(changed)

    def release(self, job_id: str, attempt: int, *, delay: float | None = None) -> bool:
        """Puts a running job back without counting the attempt: a draining worker's unfinished work or, with a `delay`
        in seconds before the next attempt, after a transient error."""
        values = {**_try(job_id, attempt), "later": self._clock() + (delay or 0.0), "setback": int(delay is not None)}
        more = "releases = releases + 1, setbacks = setbacks + :setback, not_before = :later"
        with self._database.transaction() as connection:
            connection.execute(FORGET.format(CURRENT), values)
            return bool(connection.execute(f"{REQUEUE}, {more} WHERE {CURRENT}", values).rowcount)

    def restart(self, job_id: str, attempt: int) -> bool:
        """Removes the text of earlier attempts: this one cannot continue from it."""
        values = _try(job_id, attempt)
        with self._database.transaction() as connection:
            changed = connection.execute(
                f"UPDATE jobs SET progress = 0, resume = NULL WHERE {CURRENT}", values
            ).rowcount
            connection.execute(FORGET.format(CURRENT), values)
        return bool(changed)

    def requeue_running(self, max_attempts: int = MAX_ATTEMPTS) -> tuple[list[str], list[str]]:
        """Called when a worker starts: jobs that an earlier one left running are queued again, or failed after
        `max_attempts` attempts. Returns the ids of both."""
        error = JobError(
            f"The transcription process stopped {max_attempts} times while working on this recording.",
            code="worker_died",
        )
        values = {"most": max_attempts, "error": to_json(error), "now": self._clock()}
        with self._database.transaction() as connection:
            connection.execute(FORGET.format("status = 'running'"))
            failed = connection.execute(
                f"{FAIL} WHERE status = 'running' AND {TRIES} >= :most RETURNING id", values
            ).fetchall()
            requeued = connection.execute(f"{REQUEUE} WHERE status = 'running' RETURNING id").fetchall()
            connection.executemany("DELETE FROM segments WHERE job = ?", failed)
        return [row[0] for row in requeued], [row[0] for row in failed]

    # The worker's facts

    def set_worker(self, facts: Mapping[str, Any]) -> None:
        """Publishes the worker's facts: state (loading | ready | broken | draining), device, dtype, cuda, torch, model,
        revision, speed (audio seconds per second), pid; `reason` if broken; `metrics` as name → number, and
        `batch_sizes` as size → count. `updated` is set here; call it at least every 5 s."""
        body = to_json({**facts, "updated": self._clock()})
        with self._database.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO facts (name, body) VALUES (?, ?)", (WORKER, body))

    def worker(self) -> dict[str, Any] | None:
        """The worker's facts, or None if there never was one, or if they cannot be read: the next report mends that."""
        query = "SELECT CAST(body AS BLOB) FROM facts WHERE name = ?"
        row = self._database.reader().execute(query, (WORKER,)).fetchone()
        try:
            return msgspec.json.decode(row[0], type=dict[str, Any]) if row else None
        except ValueError as error:
            logs.failure("facts_unreadable", error)
            return None

    def identity(self) -> str:
        """What tells this machine from others: made once, and kept as long as the file is."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO facts (name, body) VALUES (?, ?)", (MACHINE, to_json(uuid4().hex))
            )
            row = connection.execute("SELECT body FROM facts WHERE name = ?", (MACHINE,)).fetchone()
        return str(msgspec.json.decode(row[0]))

    def _changes(self, statement: str, keys: Mapping[str, Any], **values: Any) -> bool:
        """Runs one writing statement; True if it changed a row. It may use `:now`."""
        with self._database.transaction() as connection:
            return bool(connection.execute(statement, {**keys, **values, "now": self._clock()}).rowcount)


def _insert(connection: sqlite3.Connection, job_id: str, segments: Sequence[Segment]) -> None:
    rows = [(job_id, segment.id, to_json(segment)) for segment in segments]
    connection.executemany("INSERT INTO segments (job, id, body) VALUES (?, ?, ?)", rows)


def _try(job_id: str, attempt: int) -> dict[str, Any]:
    return {"id": job_id, "attempt": attempt}


def _find_repeat(connection: sqlite3.Connection, new: NewJob, since: float) -> Job | None:
    """The job that `new` repeats; it becomes detached if `new` is."""
    row = connection.execute(
        "SELECT * FROM jobs WHERE key_id = ? AND fingerprint = ? AND created >= ?"
        " AND status IN ('queued', 'running', 'done') ORDER BY created DESC LIMIT 1",
        (new.key_id, new.fingerprint, since),
    ).fetchone()
    if row and new.detached and not row["detached"]:
        row = connection.execute("UPDATE jobs SET detached = 1 WHERE id = ? RETURNING *", (row["id"],)).fetchone()
    return job_from(row) if row else None


def _queue_stats(connection: sqlite3.Connection, key_id: str | None, *, before: float | None = None) -> QueueStats:
    """Counts the unfinished jobs, of all keys or one; with `before`, only those that run or rank before it."""
    row = connection.execute(
        "SELECT coalesce(sum(status = 'queued'), 0), coalesce(sum(status = 'running'), 0),"
        f" coalesce(sum({LEFT}), 0.0) FROM jobs WHERE status IN ('queued', 'running')"
        f" AND (:key IS NULL OR key_id = :key) AND (:before IS NULL OR status = 'running' OR {RANK} < :before)",
        {"key": key_id, "before": before},
    ).fetchone()
    return QueueStats(queued=row[0], running=row[1], seconds=row[2])


def _check_bounds(connection: sqlite3.Connection, new: NewJob, bounds: Bounds) -> None:
    """Raises QueueFullError. A recording longer than the whole bound may still come when nothing else waits."""
    everyone, own = _queue_stats(connection, None), _queue_stats(connection, new.key_id)
    shared = bounds.shared or _has_neighbours(connection, new.key_id)
    average = everyone.seconds / max(everyone.jobs, 1)
    # Of what is shared, a key may have as much as is free: alone it gets half.
    if own.jobs >= bounds.key_jobs or (shared and own.jobs and own.jobs >= bounds.jobs - everyone.jobs):
        raise QueueFullError("key_jobs", average)
    if everyone.jobs >= bounds.jobs:
        raise QueueFullError("jobs", average)
    share = max(bounds.audio_seconds - everyone.seconds, 0.0)
    if shared and own.seconds and own.seconds + new.work > share:
        raise QueueFullError("key_audio_seconds", own.seconds + new.work - share)
    if everyone.seconds and everyone.seconds + new.work > bounds.audio_seconds:
        raise QueueFullError("audio_seconds", everyone.seconds + new.work - bounds.audio_seconds)


def _has_neighbours(connection: sqlite3.Connection, key_id: str) -> bool:
    """Whether other keys use the store as well, as far as it remembers."""
    query = "SELECT EXISTS (SELECT 1 FROM jobs WHERE key_id != ?)"
    return bool(connection.execute(query, (key_id,)).fetchone()[0])
