"""The order of the queue, and its bounds: SQL that runs within the transactions of the store."""

# ruff: noqa: S608 - statements are put together from constants; every value is bound

from transcribe.jobs.models import Bounds, Job, LeftOut, NewJob, QueueFullError, QueueStats, job_from, row_from, to_json
from transcribe.jobs.sqlite import sqlite3

LONGEST_HANDICAP = 600.0  # seconds that a long recording lets shorter ones go first: short before long, none starves
LENGTH = "coalesce(duration, estimate)"
WORK = f"({LENGTH} * channels)"  # seconds of audio: each channel that is heard by itself counts
RANK = f"(created + min({WORK}, {LONGEST_HANDICAP}))"
LEFT = f"(max({LENGTH} - progress, 0) * channels)"  # those that still wait
TURN = "(coalesce(turns.value, 0) - (detached = 0) * :round)"
TURNS = "json_each(:turns) AS turns ON turns.key = key_id"  # when each key's turn was last
BUSY_KEYS = "(SELECT key_id, count(*) AS running FROM jobs WHERE status = 'running' GROUP BY key_id) AS busy"
DUE = "(not_before <= :now OR not_before > :now + :longest)"  # a later time is from before the clock was set back
LONGEST_DELAY = 60.0  # seconds between two attempts after setbacks
MAX_ATTEMPTS = 3
TRIES = "(attempts - releases)"


def add(connection: sqlite3.Connection, new: NewJob, created: float) -> Job:
    """Adds a new job."""
    row = row_from(new, created)
    columns, values = ", ".join(row), ", ".join(f":{name}" for name in row)
    return job_from(connection.execute(f"INSERT INTO jobs ({columns}) VALUES ({values}) RETURNING *", row).fetchone())


class Turns(dict[str, int]):
    """For each key of which jobs were claimed, a number that grows: the higher, the later was its last turn."""

    def take(self, key_id: str) -> None:
        """Notes that it is this key's turn now."""
        self[key_id] = max(self.values(), default=0) + 1


def claim_next(
    connection: sqlite3.Connection, left_out: LeftOut, turns: Turns, now: float, max_attempts: int
) -> sqlite3.Row | None:
    """Starts an attempt at the job that is next of those not left out; its row, or None.

    The key with the fewest running jobs comes first, and of several the one whose turn was the longest ago: so no key
    waits for the others' queues. Where a client waits for the text the turn counts as one that was a round earlier, so
    that it does not wait for all keys that have jobs either.
    """
    lengths = left_out.lengths
    values = {
        "now": now,
        "most": max_attempts,
        "keys": to_json([*left_out.keys]),
        "turns": to_json(turns),
        "round": len(turns),
        "longest": LONGEST_DELAY,
    }
    values |= {f"from{n}": low for n, (low, _) in enumerate(lengths)}
    values |= {f"to{n}": high for n, (_, high) in enumerate(lengths)}
    bands = "".join(f" AND NOT ({WORK} >= :from{n} AND {WORK} < :to{n})" for n in range(len(lengths)))
    chosen = (
        f"SELECT jobs.id FROM jobs LEFT JOIN {BUSY_KEYS} USING (key_id) LEFT JOIN {TURNS}"
        f" WHERE status = 'queued' AND {TRIES} < :most AND {DUE}"
        f" AND key_id NOT IN (SELECT value FROM json_each(:keys)){bands}"
        f" ORDER BY coalesce(busy.running, 0), {TURN}, {RANK}, created, jobs.id LIMIT 1"
    )
    start = "UPDATE jobs SET status = 'running', started = :now, attempts = attempts + 1"
    row: sqlite3.Row | None = connection.execute(f"{start} WHERE id = ({chosen}) RETURNING *", values).fetchone()
    if row:
        turns.take(row["key_id"])
    return row


def find_repeat(connection: sqlite3.Connection, new: NewJob, since: float) -> Job | None:
    """The job that `new` repeats; it becomes detached if `new` is."""
    row = connection.execute(
        "SELECT * FROM jobs WHERE key_id = ? AND fingerprint = ? AND created >= ?"
        " AND status IN ('queued', 'running', 'done') ORDER BY created DESC LIMIT 1",
        (new.key_id, new.fingerprint, since),
    ).fetchone()
    if row and new.detached and not row["detached"]:
        row = connection.execute("UPDATE jobs SET detached = 1 WHERE id = ? RETURNING *", (row["id"],)).fetchone()
    return job_from(row) if row else None


def queue_stats(connection: sqlite3.Connection, key_id: str | None, *, before: float | None = None) -> QueueStats:
    """Counts the unfinished jobs, of all keys or one; with `before`, only those that run or rank before it."""
    row = connection.execute(
        "SELECT coalesce(sum(status = 'queued'), 0), coalesce(sum(status = 'running'), 0),"
        f" coalesce(sum({LEFT}), 0.0) FROM jobs WHERE status IN ('queued', 'running')"
        f" AND (:key IS NULL OR key_id = :key) AND (:before IS NULL OR status = 'running' OR {RANK} < :before)",
        {"key": key_id, "before": before},
    ).fetchone()
    return QueueStats(queued=row[0], running=row[1], seconds=row[2])


def check_bounds(connection: sqlite3.Connection, new: NewJob, bounds: Bounds) -> None:
    """Raises QueueFullError. A recording longer than the whole bound may still come when nothing else waits."""
    everyone, own = queue_stats(connection, None), queue_stats(connection, new.key_id)
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
    query = " OR ".join(f"EXISTS (SELECT 1 FROM jobs WHERE key_id {side} :key)" for side in "<>")  # by the index
    return bool(connection.execute(f"SELECT {query}", {"key": key_id}).fetchone()[0])
