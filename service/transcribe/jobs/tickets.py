"""What this machine holds of a fleet: for each of its jobs a ticket, in the same file as the job itself, so that both
are there or neither.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from transcribe.jobs.database import Database
from transcribe.jobs.models import SEGMENT_DECODER, Job, JobError, NewJob, Status, job_from, row_from, to_json
from transcribe.jobs.sqlite import sqlite3
from transcribe.types import Segment

PUT = "INSERT OR REPLACE INTO tickets (job, body) VALUES (?, ?)"


@dataclass(frozen=True)
class Ticket:
    """How a job is held: the `receipt` of the message with this id from the queue with this URL, which has come `count`
    times. `receipt` is '' once the message is deleted. `adopted`: the job is in the store. `concluded`: its outcome was
    there before. `callback` is the URL to call when all is done."""

    job: str
    queue: str
    receipt: str
    message: str
    count: int
    adopted: bool = False
    concluded: bool = False
    callback: str = ""


@dataclass(frozen=True)
class Start:
    """Where another machine has left off: seconds of audio done, the whole length, the worker's state, and the text."""

    progress: float
    duration: float | None
    resume: Mapping[str, Any]
    segments: Sequence[Segment]


DECODER = msgspec.json.Decoder(Ticket)


class Tickets:
    """The tickets of one store. Every method may be called from any thread."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def all(self) -> list[Ticket]:
        """Every ticket, the oldest first."""
        rows = self._database.rows("SELECT body FROM tickets ORDER BY rowid")
        return [DECODER.decode(row[0]) for row in rows]

    def get(self, job_id: str) -> Ticket | None:
        """The job's ticket, or None."""
        rows = self._database.rows("SELECT body FROM tickets WHERE job = ?", (job_id,))
        return DECODER.decode(rows[0][0]) if rows else None

    def put(self, ticket: Ticket) -> None:
        """Stores the ticket in place of the job's earlier one."""
        body = to_json(ticket)
        self._database.write(lambda connection: connection.execute(PUT, (ticket.job, body)))

    def adopt(self, ticket: Ticket, new: NewJob, start: Start | None = None) -> None:
        """Stores the job with its ticket, in place of an earlier copy of it; with `start` it goes on from there. A
        concluded one is over at once, and only waits to be called back for."""
        now = self._clock()

        def change(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM jobs WHERE id = ?", (new.id,))
            row = row_from(new, now)
            if ticket.concluded:
                row |= {"status": "done", "finished": now}
            if start:
                resume = to_json(dict(start.resume))
                row |= {"progress": start.progress, "duration": start.duration, "resume": resume}
            columns, values = ", ".join(row), ", ".join(f":{name}" for name in row)
            connection.execute(f"INSERT INTO jobs ({columns}) VALUES ({values})", row)  # noqa: S608  names of columns
            texts = [(new.id, segment.id, to_json(segment)) for segment in (start.segments if start else ())]
            connection.executemany("INSERT INTO segments (job, id, body) VALUES (?, ?, ?)", texts)
            connection.execute(PUT, (ticket.job, to_json(ticket)))

        self._database.write(change)

    def snapshot(self, job_id: str) -> tuple[Job, list[Segment]] | None:
        """The job and its text of the same moment, or None."""
        connection = self._database.reader()
        connection.execute("BEGIN")
        try:
            row = connection.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
            texts = connection.execute("SELECT body FROM segments WHERE job = ? ORDER BY id", (job_id,)).fetchall()
        finally:
            connection.execute("COMMIT")
        return (job_from(row), [SEGMENT_DECODER.decode(text[0]) for text in texts]) if row else None

    def settle(self, ticket: Ticket, callback: str, status: Status, error: JobError | None) -> None:
        """The message is deleted: only the callback is left to make. The job has ended in this way, which is not always
        what became of it here."""
        ended = (callback, status, to_json(error) if error else None, ticket.job)

        def change(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE jobs SET callback = ?, status = ?, error = ? WHERE id = ?", ended)
            connection.execute(PUT, (ticket.job, to_json(replace(ticket, receipt=""))))

        self._database.write(change)

    def withdraw(self, job_id: str) -> None:
        """Removes the job, its text and its ticket: whatever becomes of it, this machine has no more part in it."""

        def change(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
            connection.execute("DELETE FROM tickets WHERE job = ?", (job_id,))

        self._database.write(change)
        self._database.scrub()
