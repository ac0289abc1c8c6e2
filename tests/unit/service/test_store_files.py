"""The job store's files: who may use them, also where another user of the group may write to their folder."""

import contextlib
import os
import threading
from pathlib import Path

import pytest
from transcribe.jobs import commits, database
from transcribe.jobs.database import set_sharing
from transcribe.jobs.models import NewJob
from transcribe.jobs.sqlite import sqlite3
from transcribe.jobs.store import Store, StoreError
from transcribe.types import DecodeOptions


@pytest.mark.parametrize(("umask", "mode"), [(0o007, 0o660), (0o027, 0o640), (0o077, 0o600)])
def test_a_store_is_for_whom_the_umask_says(tmp_path: Path, umask: int, mode: int) -> None:
    path, before = tmp_path / "jobs.sqlite3", os.umask(umask)
    try:
        Store(path).create(NewJob(key_id="", options=DecodeOptions(language=None)))
    finally:
        os.umask(before)
    files = sorted(tmp_path.iterdir())
    assert [(file.name, file.stat().st_mode & 0o777) for file in files] == [
        ("jobs.sqlite3", mode), ("jobs.sqlite3-shm", mode), ("jobs.sqlite3-wal", mode),
    ]  # fmt: skip
    set_sharing(path, shared=True)  # as where a machine joins a fleet
    assert {file.stat().st_mode & 0o777 for file in files} == {0o660}
    assert Store(path).unfinished()
    set_sharing(path, shared=False)  # and leaves it
    assert {file.stat().st_mode & 0o777 for file in files} == {0o640}


@pytest.mark.parametrize("order", [(False, True), (True, False)])
def test_a_store_that_another_sqlite_made_is_used_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: tuple[bool, bool]
) -> None:
    """One with a rollback journal, as versions before this one had it; and one with a log, where a library is lost."""
    jobs = []
    for log in order:
        for module in (commits, database):
            monkeypatch.setattr(module, "WAL", log)
        store = Store(tmp_path / "jobs.sqlite3")
        jobs.append(store.create(NewJob(key_id="", options=DecodeOptions(language=None), detached=True)))
        assert store._database.rows("PRAGMA journal_mode")[0][0] == ("wal" if log else "truncate")
        assert store.unfinished() == jobs
        store.close()


def test_a_store_changes_its_journal_once_nobody_else_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (commits, database):
        monkeypatch.setattr(module, "WAL", False)
    path = tmp_path / "jobs.sqlite3"
    Store(path).close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
        for module in (commits, database):
            monkeypatch.setattr(module, "WAL", True)
        with pytest.raises(StoreError, match="database is locked") as raised:
            Store(path, busy_seconds=0.2)
        assert raised.value.transient
        end = threading.Timer(0.5, reader.execute, ["COMMIT"])
        end.start()
        store = Store(path, busy_seconds=30.0)
        end.join()
    assert store._database.rows("PRAGMA journal_mode")[0][0] == "wal"


def test_a_store_that_cannot_be_written_yet_gets_no_log_of_its_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The feeder may come before the service, which lets the group write the store."""
    path = tmp_path / "jobs.sqlite3"
    Store(path).close()
    before = {file.name for file in tmp_path.iterdir()}
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StoreError, match=r"jobs.sqlite3 cannot be used .*not writable for uid") as raised:
        Store(path)
    assert raised.value.transient
    assert {file.name for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
@pytest.mark.parametrize("name", ["jobs.sqlite3", "jobs.sqlite3-journal", "jobs.sqlite3-shm", "jobs.sqlite3-wal"])
def test_what_another_user_may_have_put_in_the_place_of_a_store_is_not_opened_to_the_group(
    tmp_path: Path, name: str, kind: str
) -> None:
    secret, place = tmp_path / "machine-key", tmp_path / name
    secret.touch(0o600)
    if kind == "pipe":
        os.mkfifo(place, 0o600)
    else:
        (place.symlink_to if kind == "link" else place.hardlink_to)(secret)
    with pytest.raises(StoreError, match=rf"{name} cannot be used .*; move it away"):
        set_sharing(tmp_path / "jobs.sqlite3", shared=True)
    set_sharing(tmp_path / "jobs.sqlite3", shared=False)
    assert (secret.stat().st_mode | place.stat().st_mode) & 0o777 == 0o600
