"""Work that is shared with idle cores gives the same, in the same order, whoever did it."""

import threading
import time
from pathlib import Path

import pytest
from transcribe.audio import cores


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A computer with four cores, and the file in which it says how many threads run."""
    load = tmp_path / "loadavg"
    load.write_text("0.00 0.01 0.05 1/140 4711\n")
    monkeypatch.setattr(cores, "LOAD", load)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1, 2, 3})
    return load


def test_results_come_in_order_whoever_is_faster(four_cores: Path) -> None:
    def work(number: int) -> tuple[int, str]:
        time.sleep(0.02 if number % 3 == 0 else 0.0)
        return number, threading.current_thread().name

    done = list(cores.in_order(work, range(30)))
    assert [number for number, _ in done] == list(range(30))
    assert len({name for _, name in done}) > 1


@pytest.mark.parametrize("said", ["2.00 1.00 0.50 4/140 4711\n", "2.00 1.00 0.50 9/140 4711\n", "nothing\n", ""])
def test_where_no_core_is_idle_the_caller_does_it_all(four_cores: Path, said: str) -> None:
    four_cores.write_text(said)

    def work(_: int) -> str:
        time.sleep(0.001)
        return threading.current_thread().name

    assert set(cores.in_order(work, range(30))) == {threading.current_thread().name}


def test_an_error_comes_in_its_place(four_cores: Path) -> None:
    def work(number: int) -> int:
        if number == 5:
            raise ZeroDivisionError
        return number

    seen: list[int] = []
    with pytest.raises(ZeroDivisionError):
        seen.extend(cores.in_order(work, range(9)))
    results = cores.in_order(work, range(9))
    assert [next(results) for _ in range(5)] == list(range(5))


def test_nothing_more_is_begun_once_nobody_waits(four_cores: Path) -> None:
    four_cores.write_text("0.00 0.01 0.05 4/140 4711\n")
    begun: list[int] = []
    results = cores.in_order(begun.append, range(9))
    next(results)
    results.close()
    assert begun == [0]
