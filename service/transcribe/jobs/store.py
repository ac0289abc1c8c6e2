"""The job store, shared by the API and the worker. What a method returned from outlives every process, and a power cut
as well, except for jobs whose clients wait, and for what the worker did last: it does that again.

A worker's attempt at a job is identified by `attempt` (Job.attempts as claimed). Writes of an earlier attempt are
ignored, so that every job ends exactly once.
"""

# ruff: noqa: S608 - statements are put together from constants; every value is bound

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from transcribe import logs
from transcribe.jobs.commits import Answer
from transcribe.jobs.corrections import CorrectionStore
from transcribe.jobs.database import BUSY_SECONDS, Database, StoreError
from transcribe.jobs.models import (
    SEGMENT_DECODER,
    Bounds,
    Job,
    JobError,
    LeftOut,
    Mark,
    NewJob,
    Outcome,
    QueueStats,
    job_from,
    to_json,
)
from transcribe.jobs.outcomes import AGAIN, CURRENT, FINISH, INSERT, attempt_at, row_of
from transcribe.jobs.queue import (
    LONGEST_DELAY,
    LONGEST_HANDICAP,
    MAX_ATTEMPTS,
    TRIES,
    Turns,
    add,
    check_bounds,
    claim_next,
    find_repeat,
    queue_stats,
)
from transcribe.jobs.sqlite import sqlite3
from transcribe.jobs.tickets import Tickets
from transcribe.jobs.wakeups import Bell, Listener
from transcribe.types import Segment

__all__ = ["CLIENTS", "LONGEST_DELAY", "LONGEST_HANDICAP", "WORKER", "Store", "StoreError"]

FAIL = "UPDATE jobs SET status = 'failed', finished = :now, progress = 0, error = :error"
REQUEUE = "UPDATE jobs SET status = 'queued', started = NULL, progress = iif(resume IS NULL, 0, progress)"
FORGET = "DELETE FROM segments WHERE job IN (SELECT id FROM jobs WHERE {} AND resume IS NULL)"  # nothing to go on from
WORKER, MACHINE = "worker", "machine"  # names of facts
CLIENTS = "clients"  # who waits for what the worker does


class Store:
    """Jobs, their segments and the worker's facts in one file. Every method may be called from any thread."""

    def __init__(
        self, path: Path, *, clock: Callable[[], float] = time.time, busy_seconds: float = BUSY_SECONDS
    ) -> None:
        """Opens or creates the file. Methods wait `busy_seconds` for other writers. Raises StoreError."""
        self._database = Database(path, busy_seconds=busy_seconds)
        self.sync, self.scrub = self._database.sync, self._database.scrub
        self._clock = clock
        self._turns = Turns()
        self._worker, self._clients = (Bell(_pipe(path, who)) for who in (WORKER, CLIENTS))
        self.tickets = Tickets(self._database, clock)
        self.corrections = CorrectionStore(self._database)

    def version(self) -> int:
        """Changes with every commit of any process; poll it to wait."""
        return self._database.version()

    def listener(self, who: str) -> Listener:
        """Wakes WORKER when there may be something to do, or CLIENTS, who wait for it, when jobs changed. It may miss
        something, so look at `version` as well."""
        return Listener(_pipe(self._database.path, who))

    def close(self) -> None:
        """Closes every connection."""
        self._database.close()
        for bell in (self._worker, self._clients):
            bell.close()

    # Used by the API

    def create(self, new: NewJob, *, bounds: Bounds | None = None, reuse_since: float | None = None) -> Job:
        """Stores the job, or returns the one it repeats (created at or after `reuse_since` with the same key and
        fingerprint, not failed or cancelled). Raises QueueFullError."""

        def change(connection: sqlite3.Connection) -> Job:
            if reuse_since is not None and (found := find_repeat(connection, new, reuse_since)):
                return found
            if bounds:
                check_bounds(connection, new, bounds)
            return add(connection, new, self._clock())

        job = self._database.write(change, durable=new.detached)
        self._worker.ring()
        return job

    def get(self, job_id: str) -> Job | None:
        """The job, or None."""
        rows = self._database.rows("SELECT * FROM jobs WHERE id = ?", (job_id,))
        return job_from(rows[0]) if rows else None

    def jobs(self, key_id: str, *, limit: int = 20, before: float | None = None) -> list[Job]:
        """A key's jobs, newest first, those created before `before`."""
        query = "SELECT * FROM jobs WHERE key_id = ? AND created < ? ORDER BY created DESC, id LIMIT ?"
        rows = self._database.rows(query, (key_id, float("inf") if before is None else before, limit))
        return [job_from(row) for row in rows]

    def segments(self, job_id: str, after: int = -1, limit: int = -1) -> list[Segment]:
        """The job's segments so far, those with an id above `after`: all, or the first `limit`."""
        query = "SELECT body FROM segments WHERE job = ? AND id > ? ORDER BY id LIMIT ?"
        rows = self._database.rows(query, (job_id, after, limit))
        return [SEGMENT_DECODER.decode(row[0]) for row in rows]

    def cancel(self, job_id: str, *, unless_detached: bool = False) -> bool:
        """Ends an unfinished job; True if it was this call that ended it."""
        which = f"id = :id AND status IN ('queued', 'running'){' AND NOT detached' if unless_detached else ''}"
        ended = self._changes(f"UPDATE jobs SET status = 'cancelled', finished = :now WHERE {which}", {"id": job_id})
        return self._told(ended, self._worker, self._clients)

    def delete(self, job_id: str) -> bool:
        """Removes the job and its text; True if it was there."""
        deleted = self._changes("DELETE FROM jobs WHERE id = :id", {"id": job_id})
        self._told(deleted, self._worker, self._clients)
        self._database.scrub()
        return deleted

    def expire(self, before: float, *, fleet: bool = False) -> list[str]:
        """Removes the jobs that finished before that moment; returns their ids. A machine of a `fleet` keeps those that
        it still has tickets for. Elsewhere nobody asks for those any more, and they go with their tickets."""
        kept = " AND id NOT IN (SELECT job FROM tickets)" if fleet else ""

        def change(connection: sqlite3.Connection) -> list[str]:
            rows = connection.execute(f"DELETE FROM jobs WHERE finished < ?{kept} RETURNING id", (before,)).fetchall()
            connection.executemany("DELETE FROM tickets WHERE job = ?", rows)
            return [row[0] for row in rows]

        gone = self._database.write(change)
        if gone:
            self._database.scrub()
        return gone

    def unfinished(self) -> list[Job]:
        """The jobs whose uploads are still needed."""
        rows = self._database.rows("SELECT * FROM jobs WHERE status IN ('queued', 'running')")
        return [job for job in map(job_from, rows) if not job.over]

    def counts(self) -> dict[str, int]:
        """How many jobs are stored, by status."""
        return {row[0]: row[1] for row in self._database.rows("SELECT status, count(*) FROM jobs GROUP BY status")}

    def pending_webhooks(self) -> list[Job]:
        """The jobs that are over and whose callback has not been made yet."""
        query = "SELECT * FROM jobs WHERE callback != '' AND status NOT IN ('queued', 'running') ORDER BY finished"
        return [job_from(row) for row in self._database.rows(query)]

    def webhook_done(self, job_id: str) -> None:
        """Marks the callback as made, or given up."""
        self._changes("UPDATE jobs SET callback = '' WHERE id = :id", {"id": job_id})

    def queue_stats(self, key_id: str | None = None) -> QueueStats:
        """The unfinished jobs of all keys, or of one."""
        return queue_stats(self._database.reader(), key_id)

    def ahead(self, job: Job) -> QueueStats:
        """The jobs that are worked on before this one: those running, and those queued ahead of it."""
        mine = job.created + min(job.work, LONGEST_HANDICAP)
        return queue_stats(self._database.reader(), None, before=mine)

    # Used by the worker

    def claim(
        self,
        max_attempts: int = MAX_ATTEMPTS,
        *,
        lengths: Sequence[tuple[float, float]] = (),
        keys: Collection[str] = (),
    ) -> Job | None:
        """The same as `claim_all` for one job; None if nothing waits."""
        left_out = LeftOut(lengths, keys)
        return next(iter(self.claim_all(lambda claimed: None if claimed else left_out, max_attempts)), None)

    def claim_all(
        self, choose: Callable[[Sequence[Job]], LeftOut | None], max_attempts: int = MAX_ATTEMPTS
    ) -> list[Job]:
        """Starts attempts at the next queued jobs whose time has come, in one commit. Before each, `choose` says which
        are left out, given those just claimed, or None to take no more."""

        def change(connection: sqlite3.Connection) -> list[Job]:
            claimed: list[Job] = []
            while (left_out := choose(claimed)) is not None:
                if (row := claim_next(connection, left_out, self._turns, self._clock(), max_attempts)) is None:
                    break
                job = job_from(row)
                if job.error is None:
                    claimed.append(job)
                else:  # it cannot be read
                    values = {**attempt_at(job.id, job.attempts), "error": to_json(job.error), "now": self._clock()}
                    connection.execute(f"{FAIL} WHERE {CURRENT}", values)
            return claimed

        started = self._database.write(change, durable=False)
        if any(job.detached for job in started):
            self.sync()  # a recording that ends the machine is not tried for ever
        return started

    def queued(self) -> bool:
        """Whether jobs wait to be claimed, be it later."""
        return bool(self._database.rows("SELECT EXISTS (SELECT 1 FROM jobs WHERE status = 'queued')")[0][0])

    def marks(self, job_ids: Collection[str]) -> dict[str, Mark]:
        """Of these jobs, as far as they are there, what changes when they do."""
        query = "SELECT id, status, attempts, progress FROM jobs WHERE id IN (SELECT value FROM json_each(?))"
        rows = self._database.rows(query, (to_json([*job_ids]),))
        return {row[0]: Mark(row[1], row[2], row[3]) for row in rows}

    def running(self) -> dict[str, int]:
        """The attempts of the jobs that run, by id: what the worker must still work on."""
        query = "SELECT id, attempts FROM jobs WHERE status = 'running'"
        return {row[0]: row[1] for row in self._database.rows(query)}

    def set_duration(self, job_id: str, attempt: int, duration: float) -> bool:
        """Records the true length of the audio; returns False, as all below do, if the attempt is stale."""
        values = attempt_at(job_id, attempt) | {"duration": duration}
        return self._changes(f"UPDATE jobs SET duration = :duration WHERE {CURRENT}", values, durable=False)

    def set_channels(self, job_id: str, attempt: int, channels: int) -> bool:
        """Records how many channels are heard each by itself, or 1."""
        statement = f"UPDATE jobs SET channels = :channels WHERE {CURRENT}"
        return self._changes(statement, attempt_at(job_id, attempt) | {"channels": channels}, durable=False)

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
        return self.save([Outcome(job_id, attempt, segments, progress, resume)])[0]

    def save(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """Stores what came of several attempts, in one commit; for each whether it counts, as above."""
        rows = [row_of(outcome, self._clock()) for outcome in outcomes]

        def change(connection: sqlite3.Connection) -> list[bool]:
            kept = []
            for statement, values, texts in rows:
                kept.append(bool(connection.execute(statement, values).rowcount))
                if kept[-1]:
                    connection.executemany(INSERT, texts)
            return kept

        return self._told(self._database.write(change, durable=False))

    def finish(
        self,
        job_id: str,
        attempt: int,
        *,
        language: str,
        coverage: Mapping[str, Any],
        duration: float | None = None,
        segments: Sequence[Segment] | None = None,
    ) -> bool:
        """Marks the job as done; `duration` is its audio's length, if that is not stored yet; `segments`, if there are
        any, take the place of the text that was added."""
        values = {**attempt_at(job_id, attempt), "language": language, "coverage": to_json(dict(coverage))}
        values |= {"now": self._clock(), "duration": duration}
        texts = None if segments is None else [(job_id, segment.id, to_json(segment)) for segment in segments]

        def change(connection: sqlite3.Connection) -> bool:
            changed = bool(connection.execute(FINISH, values).rowcount)
            if changed and texts is not None:
                connection.execute("DELETE FROM segments WHERE job = ?", (job_id,))
                connection.executemany(INSERT, texts)
            return changed

        return self._told(self._database.write(change, durable=False))

    def fail(self, job_id: str, attempt: int, error: JobError) -> bool:
        """Marks the job as failed with `error`, and removes its text."""
        values = {**attempt_at(job_id, attempt), "error": to_json(error), "now": self._clock()}

        def change(connection: sqlite3.Connection) -> tuple[bool, bool]:
            changed = bool(connection.execute(f"{FAIL} WHERE {AGAIN.format('failed')}", values).rowcount)
            delete = f"DELETE FROM segments WHERE {changed} AND job = :id"
            return changed, bool(connection.execute(delete, values).rowcount)

        changed, had_text = self._database.write(change, durable=False)
        self._told(changed)
        if had_text:
            self._database.scrub()
        return changed

    def release(self, job_id: str, attempt: int, *, delay: float | None = None) -> bool:
        """Puts a running job back without counting the attempt: a draining worker's unfinished work or, with a `delay`
        in seconds before the next attempt, after a transient error."""
        later = {"later": self._clock() + (delay or 0.0), "setback": int(delay is not None)}
        values = attempt_at(job_id, attempt) | later
        again = f"{REQUEUE}, releases = releases + 1, setbacks = setbacks + :setback, not_before = :later"

        def change(connection: sqlite3.Connection) -> bool:
            connection.execute(FORGET.format(CURRENT), values)
            return bool(connection.execute(f"{again} WHERE {CURRENT}", values).rowcount)

        return self._database.write(change, durable=False)

    def restart(self, job_id: str, attempt: int) -> bool:
        """Removes the text of earlier attempts: this one cannot continue from it."""
        values = attempt_at(job_id, attempt)

        def change(connection: sqlite3.Connection) -> bool:
            update = f"UPDATE jobs SET progress = 0, resume = NULL WHERE {CURRENT}"
            changed = connection.execute(update, values).rowcount
            connection.execute(FORGET.format(CURRENT), values)
            return bool(changed)

        return self._database.write(change, durable=False)

    def requeue_running(self, max_attempts: int = MAX_ATTEMPTS) -> tuple[list[str], list[str]]:
        """Called when a worker starts: jobs that an earlier one left running are queued again, or failed after
        `max_attempts` attempts. Returns the ids of both."""
        error = JobError(
            f"The transcription process stopped {max_attempts} times while working on this recording.",
            code="worker_died",
        )
        values = {"most": max_attempts, "error": to_json(error), "now": self._clock()}

        def change(connection: sqlite3.Connection) -> tuple[list[str], list[str]]:
            connection.execute(FORGET.format("status = 'running'"))
            failed = connection.execute(
                f"{FAIL} WHERE status = 'running' AND {TRIES} >= :most RETURNING id", values
            ).fetchall()
            requeued = connection.execute(f"{REQUEUE} WHERE status = 'running' RETURNING id").fetchall()
            connection.executemany("DELETE FROM segments WHERE job = ?", failed)
            return [row[0] for row in requeued], [row[0] for row in failed]

        return self._database.write(change)

    # The worker's facts

    def set_worker(self, facts: Mapping[str, Any]) -> None:
        """Publishes the worker's facts: state (loading | ready | broken | draining), device, dtype, cuda, torch, model,
        revision, speed (audio seconds per second), pid; `reason` if broken; `metrics` as name → number, and
        `batch_sizes` as size → count. `updated` is set here; call it at least every 5 s."""
        body = to_json({**facts, "updated": self._clock()})
        put = "INSERT OR REPLACE INTO facts (name, body) VALUES (?, ?)"
        self._database.write(lambda connection: connection.execute(put, (WORKER, body)), durable=False)

    def worker(self) -> dict[str, Any] | None:
        """The worker's facts, or None if there never was one, or if they cannot be read: the next report mends that."""
        query = "SELECT CAST(body AS BLOB) FROM facts WHERE name = ?"
        rows = self._database.rows(query, (WORKER,))
        try:
            return msgspec.json.decode(rows[0][0], type=dict[str, Any]) if rows else None
        except ValueError as error:
            logs.failure("facts_unreadable", error)
            return None

    def identity(self) -> str:
        """What tells this machine from others: made once, and kept as long as the file is."""

        def change(connection: sqlite3.Connection) -> str:
            new = (MACHINE, to_json(uuid4().hex))
            connection.execute("INSERT OR IGNORE INTO facts (name, body) VALUES (?, ?)", new)
            found: str = connection.execute("SELECT body FROM facts WHERE name = ?", (MACHINE,)).fetchone()[0]
            return found

        return str(msgspec.json.decode(self._database.write(change)))

    def _told(self, changed: Answer, *bells: Bell) -> Answer:
        """Wakes who waits for the worker, or those who listen to the `bells`."""
        for bell in bells or (self._clients,):
            bell.ring()
        return changed

    def _changes(self, statement: str, values: Mapping[str, Any], *, durable: bool = True) -> bool:
        """Runs one writing statement; True if it changed a row. It may use `:now`."""
        bound = {**values, "now": self._clock()}
        return self._database.write(lambda file: bool(file.execute(statement, bound).rowcount), durable=durable)


def _pipe(path: Path, who: str) -> Path:
    return path.with_name(f"{path.name}-wakes-{who}")
