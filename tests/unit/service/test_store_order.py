"""In which order the job store gives out what waits."""

from pathlib import Path

import pytest
from support.stores import Clock, claimed, new
from transcribe.jobs.models import QueueStats
from transcribe.jobs.store import LONGEST_HANDICAP, Store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Store:
    return Store(tmp_path / "jobs.sqlite3", clock=clock)


def test_short_goes_before_long_but_long_does_not_starve(store: Store, clock: Clock) -> None:
    long = store.create(new(estimate=10_000.0))
    clock.now += LONGEST_HANDICAP / 2
    short = store.create(new(estimate=3.0))
    assert store.ahead(long) == QueueStats(1, 0, 3.0)
    assert store.ahead(short) == QueueStats(0, 0, 0.0)
    clock.now += LONGEST_HANDICAP
    late = store.create(new(estimate=3.0))
    assert store.ahead(late) == QueueStats(2, 0, 10_003.0)
    assert [claimed(store)[0] for _ in range(3)] == [short.id, long.id, late.id]


def test_the_key_with_the_fewest_running_jobs_comes_first(store: Store, clock: Clock) -> None:
    flood = [store.create(new("a", estimate=3.0)).id for _ in range(3)]
    clock.now += 100
    quiet = store.create(new("b", estimate=30.0)).id
    order = [claimed(store)[0] for _ in range(2)]
    assert order[0] in flood
    assert order[1] == quiet
    assert {claimed(store)[0] for _ in range(2)} | {order[0]} == set(flood)


def test_the_keys_take_turns_however_much_of_one_waits(store: Store) -> None:
    floods = {store.create(new(key, estimate=3.0)).id: key for key in "abc" for _ in range(3)}
    for job_id, attempt in [claimed(store) for _ in range(3)]:
        store.finish(job_id, attempt, language="sv", coverage={})
    quiet = store.create(new("d", estimate=3.0)).id
    order = [claimed(store)[0] for _ in range(4)]
    assert order[0] == quiet
    assert {floods[job_id] for job_id in order[1:]} == {*"abc"}


def test_who_waits_on_the_line_goes_before_other_keys_jobs_but_not_every_time(store: Store) -> None:
    for key in "abc":
        for _ in range(4):
            store.create(new(key, estimate=3.0, detached=True))
    order: list[str] = []
    for _ in range(10):
        if order[-1:] != ["d"]:
            store.create(new("d", estimate=3.0))
        found = store.claim()
        assert found is not None
        order.append(found.key_id)
        store.finish(found.id, found.attempts, language="sv", coverage={})
    assert order.count("d") == 5
    assert {*order[:7]} == {*"abcd"}


def test_keys_and_lengths_can_be_left_out(store: Store) -> None:
    store.create(new("a", estimate=3.0))
    medium = store.create(new("b", estimate=100.0)).id
    long = store.create(new("b", estimate=1000.0)).id
    assert store.claim(keys=["a", "b"]) is None
    assert store.claim(keys=["a"], lengths=[(60.0, 600.0), (600.0, float("inf"))]) is None
    found = store.claim(keys=["a"], lengths=[(60.0, 600.0)])
    assert found is not None
    assert found.id == long
    assert store.claim(keys=["a"], lengths=[(600.0, float("inf"))]).id == medium  # type: ignore[union-attr]
