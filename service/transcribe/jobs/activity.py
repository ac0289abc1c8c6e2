"""What of a machine's work is not in the job store: requests that are under way, and recordings on their way in."""

import time
from pathlib import Path

WORKERS_LOCK = "worker.lock"  # in the folder of uploads, as long as the machine lives
NAME = "requests"  # in the folder of results: its age says when a request was last under way
FRESH_SECONDS = 20.0  # some rounds of the server's


def tell(results: Path) -> None:
    """Says that a request is under way now. Raises OSError."""
    (results / NAME).touch()


def requests(results: Path) -> bool:
    """Whether a request was under way within the last seconds."""
    age = _age(results / NAME)
    return age is not None and age < FRESH_SECONDS


def uploads(temp: Path, seconds: float) -> bool:
    """Whether a recording lies in the folder of uploads that was written to in so many seconds."""
    ages = (_age(path) for path in temp.iterdir() if path.name != WORKERS_LOCK)
    return any(age is not None and age < seconds for age in ages)


def _age(path: Path) -> float | None:
    """Seconds since the file was written to; None if there is none."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
