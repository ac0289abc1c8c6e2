"""Drill: what goes wrong on a machine, for seconds, while clients send recordings. What was answered with 202 is done
in the end, or failed for what is wrong with the recording: nothing else. Short here; `./tests/run attack` makes it
long.
"""

import os
import threading
import time
from pathlib import Path

import pytest
from support.attacked import FAULTS, Attacked, attacked, small_disk
from support.waiting import until

pytestmark = [pytest.mark.drill, pytest.mark.attack]
LONG = os.environ.get("DRILLS") == "long"
JOBS = 145 if LONG else 12  # accepted, for each fault: a thousand in all
SECONDS = 12.0 if LONG else 3.0  # that a fault lasts
SAMPLE = ("disk full", "store locked", "ffmpeg gone")
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")


@pytest.mark.parametrize("fault", FAULTS if LONG else SAMPLE)
@ROOT
def test_nothing_accepted_is_lost(tmp_path: Path, fault: str) -> None:
    with small_disk(tmp_path / "disk") as disk, attacked(tmp_path, disk) as service:
        over = threading.Event()
        clients = [threading.Thread(target=keep_sending, args=(service, over)) for _ in range(3)]
        for client in clients:
            client.start()
        began = time.monotonic()
        FAULTS[fault](service, SECONDS)
        during = len(service.accepted)
        until(lambda: len(service.accepted) >= JOBS, 300)
        over.set()
        for client in clients:
            client.join()
        until_all_over(service)
        endings, restarts = service.endings(), {name: count - 1 for name, count in service.starts.items()}
        answers = {status or "no answer": count for status, count in sorted(service.answers.items())}
    print(
        f"{fault}: {len(service.accepted)} accepted ({during} meanwhile), {dict(endings)}, answers {answers}, "
        f"restarts {restarts}, {time.monotonic() - began:.0f} s"
    )
    assert set(endings) <= {"done", "refused"}
    assert endings["done"]


def keep_sending(service: Attacked, over: threading.Event) -> None:
    """A client that does not stop; fewer than the disk has room for."""
    while not over.wait(0.05):
        service.send()


def until_all_over(service: Attacked) -> None:
    """Waits as long as something moves."""
    seen, since = None, time.monotonic()
    while set(endings := service.endings()) - {"done", "refused"}:
        if endings != seen:
            seen, since = endings, time.monotonic()
        if time.monotonic() > since + 150:
            return
        time.sleep(0.5)
