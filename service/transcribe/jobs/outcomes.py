"""How the outcome of an attempt is stored: SQL that runs within the transactions of the store."""

# ruff: noqa: S608 - statements are put together from constants; every value is bound

from typing import Any

from transcribe.jobs.models import Outcome, to_json

CURRENT = "id = :id AND status = 'running' AND attempts = :attempt"
AGAIN = "id = :id AND status IN ('running', '{}') AND attempts = :attempt"  # what failed to commit may be there
ADVANCE = f"UPDATE jobs SET progress = :progress, resume = :resume WHERE {CURRENT}"
FINISH = (
    "UPDATE jobs SET status = 'done', finished = :now, language = :language, coverage = :coverage, resume = NULL,"
    f" duration = coalesce(:duration, duration), progress = coalesce(:duration, duration, progress)"
    f" WHERE {AGAIN.format('done')}"
)
INSERT = "INSERT OR REPLACE INTO segments (job, id, body) VALUES (?, ?, ?)"


def row_of(outcome: Outcome, now: float) -> tuple[str, dict[str, Any], list[tuple[str, int, str]]]:
    """The statement that stores an outcome, its values, and the rows of its text."""
    values = attempt_at(outcome.job_id, outcome.attempt)
    texts = [(outcome.job_id, segment.id, to_json(segment)) for segment in outcome.segments]
    if outcome.ending:
        ending = outcome.ending
        values |= {"now": now, "language": ending.language, "coverage": to_json(dict(ending.coverage))}
        return FINISH, values | {"duration": ending.duration}, texts
    resume = to_json(outcome.resume) if outcome.resume else None
    return ADVANCE, values | {"progress": outcome.progress, "resume": resume}, texts


def attempt_at(job_id: str, attempt: int) -> dict[str, Any]:
    """The values of CURRENT."""
    return {"id": job_id, "attempt": attempt}
