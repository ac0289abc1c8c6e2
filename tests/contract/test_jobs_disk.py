"""What the disk has of a job: all of it before the 202, and nothing after its end."""

import os
import sqlite3
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from support.api_server_fixture import Api, run_retention, running
from support.fake_worker import TEXTS
from support.waiting import until


def finished(api: Api, job_id: str) -> None:
    until(lambda: api.get(f"/v1/jobs/{job_id}").json["finished_at"])


def files_with(root: Path, traces: dict[str, bytes]) -> set[str]:
    """Which of these are in any file below the root, be it in a database's free page."""
    contents = [path.read_bytes() for path in root.rglob("*") if path.is_file()]
    return {name for name, trace in traces.items() if any(trace in content for content in contents)}


def test_nothing_of_a_deleted_job_is_left_in_any_file(tmp_path: Path) -> None:
    traces = {"text": TEXTS[1].strip().encode(), "prompt": b"planted-prompt", "audio": b"planted-sound" * 99}
    with running(tmp_path) as api:
        api.worker.hold.set()
        job = api.upload("/v1/jobs", traces["audio"], prompt="planted-prompt").json["id"]
        assert files_with(tmp_path, traces) == {"prompt", "audio"}
        api.worker.hold.clear()
        finished(api, job)
        run_retention(api, time.time())
        assert files_with(tmp_path, traces) == {"prompt", "text"}, "the audio of a finished job is gone"
        api.send("DELETE", f"/v1/jobs/{job}")
        assert files_with(tmp_path, traces) == set()
        finished(api, api.upload("/v1/jobs", traces["audio"], prompt="planted-prompt").json["id"])
        run_retention(api, time.time() + 25 * 3600)
        assert files_with(tmp_path, traces) == set()


def test_a_recording_that_takes_minutes_to_reach_the_disk_is_no_orphan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path) as api:
        api.worker.hold.set()
        sync = os.fsync

        def slow(descriptor: int) -> None:
            run_retention(api, time.time() + 300)
            sync(descriptor)

        monkeypatch.setattr(os, "fsync", slow)
        job = api.upload("/v1/jobs", b"slowly").json["id"]
        assert (api.config.temp / job).read_bytes() == b"slowly"
        (api.config.temp / ("0" * 32)).write_bytes(b"of a process that was killed")
        run_retention(api, time.time() + 3600)
        assert [path.name for path in api.config.temp.iterdir()] == [job]


def test_an_upload_whose_commit_says_that_it_failed_leaves_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path) as api:
        api.worker.hold.set()  # it could claim the job in that moment
        create = api.store.create

        def commit(*args: Any, **more: Any) -> Any:
            create(*args, **more)
            raise sqlite3.OperationalError("disk I/O error")

        monkeypatch.setattr(api.store, "create", commit)
        assert api.upload("/v1/jobs", b"denied").status >= 500
        assert (api.store.counts(), [*api.config.temp.iterdir()]) == ({}, [])


def test_a_202_comes_after_audio_and_job_were_synced_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync, pragmas = os.fsync, ("synchronous", "journal_mode")

    def noted(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "recording")
        sync(descriptor)

    with running(tmp_path) as api:
        create = api.store.create

        def commit(*args: Any, **more: Any) -> Any:
            steps.append("commit")
            return create(*args, **more)

        monkeypatch.setattr(os, "fsync", noted)
        monkeypatch.setattr(api.store, "create", commit)
        assert api.upload("/v1/jobs", b"durable").status == 202
        found = [api.store._database.reader().execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas]
    assert steps == ["recording", "folder", "commit"]
    assert found == [2, "truncate"], "a commit that returned must be on the disk: see database.py"
