"""What the job store lets in: bounds on the queue, and repeats that are no new jobs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transcribe.jobs.models import Bounds, NewJob, QueueFullError
from transcribe.jobs.store import Store
from transcribe.types import DecodeOptions


class Clock:
    """Time that only moves when told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Store:
    return Store(tmp_path / "jobs.sqlite3", clock=clock)


def new(key_id: str = "", **changes: Any) -> NewJob:
    return replace(NewJob(key_id=key_id, options=DecodeOptions(language="sv")), **changes)


def test_bounds_refuse_with_the_excess(store: Store) -> None:
    bounds = Bounds(jobs=3, audio_seconds=100.0, key_jobs=2)
    store.create(new("a", estimate=40.0), bounds=bounds)
    store.create(new("a", estimate=40.0), bounds=bounds)
    with pytest.raises(QueueFullError) as key:
        store.create(new("a", estimate=1.0), bounds=bounds)
    assert (key.value.bound, key.value.excess) == ("key_jobs", 40.0)
    with pytest.raises(QueueFullError) as audio:
        store.create(new("b", estimate=30.0), bounds=bounds)
    assert (audio.value.bound, audio.value.excess) == ("audio_seconds", 10.0)
    store.create(new("b", estimate=10.0), bounds=bounds)
    with pytest.raises(QueueFullError) as jobs:
        store.create(new("c", estimate=1.0), bounds=bounds)
    assert (jobs.value.bound, jobs.value.excess) == ("jobs", 30.0)


def test_a_key_leaves_room_to_others_once_there_are_others(store: Store) -> None:
    bounds = Bounds(jobs=100, audio_seconds=1000.0, key_jobs=50)
    for _ in range(5):
        store.create(new("a", estimate=1.0), bounds=bounds)
    store.create(new("b", estimate=1.0), bounds=bounds)
    for _ in range(5):  # what they are in truth is found out by the worker
        job = store.claim(keys=["b"])
        assert job is not None
        assert store.set_duration(job.id, 1, 120.0)
    with pytest.raises(QueueFullError) as full:
        store.create(new("a", estimate=1.0), bounds=bounds)
    assert full.value.bound == "key_audio_seconds"
    assert store.create(new("b", estimate=100.0), bounds=bounds)


def test_one_very_long_recording_may_come_when_nothing_waits(store: Store) -> None:
    store.create(new(estimate=500.0), bounds=Bounds(jobs=3, audio_seconds=100.0, key_jobs=2))


def test_a_repeat_is_the_same_job_only_for_its_key(store: Store, clock: Clock) -> None:
    first = store.create(new("a", fingerprint="f"))
    clock.now += 10
    assert store.create(new("a", fingerprint="f"), reuse_since=1000.0).id == first.id
    assert store.create(new("b", fingerprint="f"), reuse_since=1000.0).id != first.id
    assert store.create(new("a", fingerprint="g"), reuse_since=1000.0).id != first.id
    assert store.create(new("a", fingerprint="f"), reuse_since=1005.0).id != first.id
    store.cancel(first.id)
    assert store.create(new("a", fingerprint="f"), reuse_since=1000.0).id != first.id


def test_a_repeat_that_is_detached_detaches_the_job(store: Store) -> None:
    first = store.create(new(fingerprint="f"))
    assert store.create(new(fingerprint="f", detached=True), reuse_since=0.0).detached
    assert not store.cancel(first.id, unless_detached=True)
