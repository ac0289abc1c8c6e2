"""Wake-ups between the processes: they come at once, and one that is lost costs no job."""

import threading
from pathlib import Path

import pytest
from support.api_server_fixture import running
from support.worker_fixture import FakeEngine, running_worker, service_fixture, wav
from transcribe.api import job_watcher
from transcribe.jobs.wakeups import Bell, Listener
from transcribe.worker import preprocess

FOREVER = 3600.0


def waits(listener: Listener) -> threading.Thread:
    """A thread that waits for a wake-up, and for nothing else."""
    thread = threading.Thread(target=listener.wait, args=(FOREVER,), daemon=True)
    thread.start()
    return thread


def woken(thread: threading.Thread) -> bool:
    thread.join(30)
    return not thread.is_alive()


def test_a_bell_wakes_who_listens_and_what_was_rung_before_counts(tmp_path: Path) -> None:
    listener, bell = Listener(tmp_path / "pipe"), Bell(tmp_path / "pipe")
    thread = waits(listener)
    bell.ring()
    assert woken(thread)
    bell.ring()
    assert woken(waits(listener))
    listener.wake()
    assert woken(waits(listener))


def test_ringing_never_waits_and_never_fails(tmp_path: Path) -> None:
    bell = Bell(tmp_path / "pipe")
    bell.ring()  # there is no pipe
    listener = Listener(tmp_path / "pipe")
    for _ in range(100_000):  # more than a pipe holds
        bell.ring()
    listener.close()
    bell.ring()  # nobody listens
    assert woken(waits_after_ringing(Listener(tmp_path / "pipe"), bell))


def waits_after_ringing(listener: Listener, bell: Bell) -> threading.Thread:
    """A process that starts anew is heard by a bell that knew the one before."""
    bell.ring()
    return waits(listener)


def test_what_lies_in_the_pipes_place_is_left_alone(tmp_path: Path) -> None:
    precious, link = tmp_path / "precious", tmp_path / "pipe"
    precious.write_text("text")
    link.symlink_to(precious)
    Bell(link).ring()
    Bell(precious).ring()
    assert precious.read_text() == "text"
    (tmp_path / "folder").mkdir()
    listener = Listener(tmp_path / "folder")  # no pipe can be made there
    listener.wake()
    assert woken(waits(listener))


def test_without_wake_ups_jobs_are_done_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bell, "ring", lambda _: None)
    service = service_fixture(tmp_path)
    with running_worker(service, FakeEngine()):
        assert service.wait(service.submit(wav(3.0))).status == "done"
    service.store.close()
    with running(tmp_path / "api") as api:
        assert api.upload("/v1/audio/transcriptions").status == 200


def test_wake_ups_alone_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocess, "POLL_SECONDS", FOREVER)
    monkeypatch.setattr(job_watcher, "POLL_SECONDS", FOREVER)
    service = service_fixture(tmp_path)
    with running_worker(service, FakeEngine()):
        for _ in range(3):
            assert service.wait(service.submit(wav(3.0))).status == "done"
    service.store.close()
    with running(tmp_path / "api") as api:
        assert api.upload("/v1/audio/transcriptions").status == 200
