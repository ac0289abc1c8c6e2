"""Which chunk goes to the engine next, where it does one thing at a time."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.stores import new
from transcribe.audio.chunking import AudioChunk
from transcribe.jobs.store import Store
from transcribe.types import SAMPLE_RATE
from transcribe.worker.assembly import Assembly
from transcribe.worker.scheduler import ActiveJob, ChunkScheduler


class Jobs:
    """Jobs in progress, whose chunks are all cut."""

    def __init__(self, store: Store, *, ahead: bool = True) -> None:
        self._store = store
        self._names: dict[str, str] = {}
        self._given: list[ActiveJob] = []
        self.scheduler = ChunkScheduler(max_in_flight=14, ready=99, ahead=ahead)

    def add(self, name: str, *lengths: float) -> None:
        """A job with chunks of so many seconds; its name is that of its key and a number."""
        self._store.create(new(name.rstrip("0123456789")))
        job = self._store.claim()
        assert job is not None
        self._names[job.id] = name
        active = self.scheduler.add(job, Assembly())
        for length in lengths:
            self.scheduler.put(active, AudioChunk(0.0, np.zeros(int(length * SAMPLE_RATE), np.float32), ()))

    def next(self, *, ahead: bool = False) -> str:
        """Whose chunk is given to the engine, or ''."""
        if (taken := self.scheduler.next_chunk(ahead=ahead)) is None:
            return ""
        self._given.append(taken[0])
        return self._names[taken[0].job.id]

    def done(self, name: str) -> None:
        """The engine has done what it was given of this job."""
        active = next(one for one in self._given if self._names[one.job.id] == name and one.in_flight)
        active.in_flight.clear()
        if not active.chunks:
            self.scheduler.remove(active)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "jobs.sqlite3")
    yield store
    store.close()


@pytest.fixture
def jobs(store: Store) -> Jobs:
    return Jobs(store)


def test_a_key_that_has_nothing_in_the_engine_goes_first(jobs: Jobs) -> None:
    for number in range(1, 5):
        jobs.add(f"flood{number}", 20.0, 20.0)
    assert jobs.next() == "flood1"
    jobs.add("quiet", 20.0, 20.0)
    assert [jobs.next(), jobs.next()] == ["quiet", "flood2"]


def test_a_brief_chunk_keeps_the_other_keys_out_until_it_is_done(jobs: Jobs) -> None:
    jobs.add("flood1", 20.0, 20.0, 20.0)
    jobs.add("flood2", 3.0)
    assert jobs.next(ahead=True) == ""  # nobody to go ahead of
    assert jobs.next() == "flood1"
    jobs.add("quiet", 3.0)
    assert jobs.next(ahead=True) == "quiet"
    assert jobs.next() == ""
    jobs.add("third", 20.0)
    assert [jobs.next(), jobs.next()] == ["third", ""]
    jobs.done("quiet")
    assert jobs.next() == "flood2"


@pytest.mark.parametrize("seconds", [3.0, 20.0])
def test_beside_what_waits_only_a_brief_chunk_of_another_key_is_given(jobs: Jobs, seconds: float) -> None:
    jobs.add("flood1", 20.0)
    assert jobs.next() == "flood1"
    jobs.add("flood2", 3.0)
    jobs.add("third", 20.0)
    jobs.add("quiet", seconds)
    assert jobs.next(ahead=True) == ("quiet" if seconds < 8 else "")


def test_a_key_does_not_keep_out_its_own_chunks(jobs: Jobs) -> None:
    jobs.add("flood", 20.0)
    assert jobs.next() == "flood"
    jobs.add("quiet1", 3.0)
    jobs.add("quiet2", 3.0)
    assert [jobs.next(), jobs.next()] == ["quiet1", "quiet2"]


def test_clips_of_many_keys_do_not_keep_a_flood_out_for_ever(jobs: Jobs) -> None:
    jobs.add("flood", *[20.0] * 4)
    given = [jobs.next()]
    jobs.add("a", 3.0)
    for one, other in zip("abababab", "babababa", strict=True):
        given += [jobs.next(), jobs.next()]
        jobs.add(other, 3.0)
        jobs.done(one)
        if given[-1] == "flood":
            jobs.done("flood")
    assert given.count("flood") == 4


@pytest.mark.parametrize("ahead", [True, False])
def test_a_key_waits_for_one_chunk_of_another_however_many_jobs_that_has(store: Store, ahead: bool) -> None:
    jobs = Jobs(store, ahead=ahead)
    for number in range(20):
        jobs.add(f"flood{number}", 20.0)
    assert jobs.next() == "flood0"
    jobs.done("flood0")
    jobs.add("quiet", 20.0, 20.0, 20.0)
    given = []
    for _ in range(6):
        given.append(jobs.next())
        jobs.done(given[-1])
    assert given == ["quiet", "flood1", "quiet", "flood2", "quiet", "flood3"]


def test_where_windows_are_encoded_together_turns_alone_decide(store: Store) -> None:
    jobs = Jobs(store, ahead=False)
    jobs.add("flood1", 20.0, 20.0)
    jobs.add("flood2", 20.0, 20.0)
    assert jobs.next() == "flood1"
    jobs.add("quiet", 3.0)
    assert jobs.next(ahead=True) == ""
    assert [jobs.next(), jobs.next(), jobs.next()] == ["quiet", "flood2", "flood1"]
