"""What may enter the queue, what stands before what in it, and which job is only a repeat of another."""

# ruff: noqa: S608 - statements are put together from constants; every value is bound

from sqlite3 import Connection

from transcribe.jobs.models import Bounds, Job, NewJob, QueueFullError, QueueStats, job_from

LONGEST_HANDICAP = 600.0  # seconds that a long recording lets shorter ones go first: short before long, none starves
LENGTH = "coalesce(duration, estimate)"
RANK = f"(created + min({LENGTH}, {LONGEST_HANDICAP}))"
LEFT = f"max({LENGTH} - progress, 0)"  # seconds of audio that still wait


def repeated(connection: Connection, new: NewJob, since: float) -> Job | None:
    """The job that `new` repeats; it outlives its first client if this one asks for that."""
    row = connection.execute(
        "SELECT * FROM jobs WHERE key_id = ? AND fingerprint = ? AND created >= ?"
        " AND status IN ('queued', 'running', 'done') ORDER BY created DESC LIMIT 1",
        (new.key_id, new.fingerprint, since),
    ).fetchone()
    if row and new.detached and not row["detached"]:
        row = connection.execute("UPDATE jobs SET detached = 1 WHERE id = ? RETURNING *", (row["id"],)).fetchone()
    return job_from(row) if row else None


def stats(connection: Connection, key_id: str | None, *, before: float | None = None) -> QueueStats:
    """Counts the unfinished jobs, of all keys or one; with `before`, only those that run or rank before it."""
    row = connection.execute(
        "SELECT coalesce(sum(status = 'queued'), 0), coalesce(sum(status = 'running'), 0),"
        f" coalesce(sum({LEFT}), 0.0) FROM jobs WHERE status IN ('queued', 'running')"
        f" AND (:key IS NULL OR key_id = :key) AND (:before IS NULL OR status = 'running' OR {RANK} < :before)",
        {"key": key_id, "before": before},
    ).fetchone()
    return QueueStats(queued=row[0], running=row[1], seconds=row[2])


def check_bounds(connection: Connection, new: NewJob, bounds: Bounds) -> None:
    """Raises QueueFullError. A recording longer than the whole bound may still come when nothing else waits."""
    everyone, own = stats(connection, None), stats(connection, new.key_id)
    average = everyone.seconds / max(everyone.queued + everyone.running, 1)
    if own.queued + own.running >= bounds.key_jobs:
        raise QueueFullError("key_jobs", average)
    if everyone.queued + everyone.running >= bounds.jobs:
        raise QueueFullError("jobs", average)
    if everyone.seconds and everyone.seconds + new.estimate > bounds.audio_seconds:
        raise QueueFullError("audio_seconds", everyone.seconds + new.estimate - bounds.audio_seconds)
