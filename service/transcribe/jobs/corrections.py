"""The corrections of finished jobs, beside what the model wrote, which is never changed; they go with their job."""

from collections.abc import Mapping

from transcribe.corrections import Corrections
from transcribe.jobs.database import Database
from transcribe.jobs.sqlite import sqlite3

MOST_CHARACTERS = 2_000_000  # of one job's corrections; a day of speech has about so many
SPEAKER, SEGMENT = "speaker", "segment"  # kinds of rows: a speaker's name by the machine's, a text by the segment's id
PUT = (
    "INSERT OR REPLACE INTO corrections (job, kind, name, body)"
    " SELECT id, ?, ?, ? FROM jobs WHERE id = ? AND status = 'done'"
)
TAKE_BACK = "DELETE FROM corrections WHERE kind = ? AND name = ? AND job = ?"


class TooManyCorrectionsError(Exception):
    """A job's corrections would be larger than is kept."""


class CorrectionStore:
    """The corrections in one store. Every method may be called from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, job_id: str) -> Corrections:
        """What was corrected in the job; nothing if there is no such job."""
        query = "SELECT kind, name, body FROM corrections WHERE job = ? ORDER BY kind, name"
        rows = self._database.rows(query, (job_id,))
        speakers = {name: body for kind, name, body in rows if kind == SPEAKER}
        segments = {int(name): body for kind, name, body in rows if kind == SEGMENT}
        return Corrections(speakers, dict(sorted(segments.items())))

    def change(self, job_id: str, speakers: Mapping[str, str | None], segments: Mapping[int, str | None]) -> None:
        """Adds corrections of a finished job, each in place of an earlier one of the same; None takes one back. All or
        nothing. Raises TooManyCorrectionsError."""
        changes = [(SPEAKER, name, body) for name, body in speakers.items()]
        changes += [(SEGMENT, str(number), body) for number, body in segments.items()]

        def change(connection: sqlite3.Connection) -> None:
            for kind, name, body in changes:
                if body is None:
                    connection.execute(TAKE_BACK, (kind, name, job_id))
                else:
                    connection.execute(PUT, (kind, name, body, job_id))
            query = "SELECT coalesce(sum(length(body)), 0) FROM corrections WHERE job = ?"
            if connection.execute(query, (job_id,)).fetchone()[0] > MOST_CHARACTERS:
                raise TooManyCorrectionsError

        self._database.write(change)
