"""What the disk has of a job: all of it before the 202, and nothing after its end."""

import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.api_server_fixture import Api, run_retention, running
from support.fake_worker import TEXTS
from support.waiting import until
from transcribe.jobs import uploads
from transcribe.jobs.sqlite import sqlite3


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
    sync = os.fsync

    def noted(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "recording")
        sync(descriptor)

    mode = [""]

    def told(statement: str) -> None:
        if "synchronous" in statement:
            mode[0] = statement.rsplit(maxsplit=1)[-1]
        elif statement.startswith("INSERT INTO jobs"):
            steps.append(f"job, {mode[0]}")

    with running(tmp_path) as api:
        writer = api.store._database._commits._connection
        assert writer is not None
        monkeypatch.setattr(os, "fsync", noted)
        writer.set_trace_callback(told)
        assert api.upload("/v1/jobs", b"durable").status == 202
        assert api.upload("/v1/audio/transcriptions", b"awaited").status == 200
        assert api.store._database.rows("PRAGMA journal_mode")[0][0] == "wal"
    assert steps == ["recording", "folder", "job, FULL", "job, NORMAL"]


def test_a_recording_is_removed_once_the_end_of_its_job_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    sync = os.fdatasync

    with running(tmp_path) as api:

        def noted(descriptor: int) -> None:
            left.append(len(list(api.config.temp.iterdir())))
            sync(descriptor)

        finished(api, api.upload("/v1/jobs", b"sound").json["id"])
        monkeypatch.setattr(os, "fdatasync", noted)
        run_retention(api, time.time())
        assert (left, list(api.config.temp.iterdir())) == ([1], [])
        run_retention(api, time.time())
        assert left == [1], "nothing was removed"


def test_a_job_that_repeats_a_waiting_request_is_synced_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    sync = uploads.sync

    def noted(path: Path) -> None:
        synced.append(path)
        sync(path)

    with running(tmp_path) as api, ThreadPoolExecutor(1) as client:
        api.worker.hold.set()
        monkeypatch.setattr(uploads, "sync", noted)
        words = {"response_format": "verbose_json", "timestamp_granularities[]": "word"}  # which every job has
        waits = client.submit(api.upload, "/v1/audio/transcriptions", b"the same", **words)
        until(api.store.unfinished)
        [first] = api.store.unfinished()
        assert synced == []
        job = api.upload("/v1/jobs", b"the same").json["id"]
        assert (job, synced[-1]) == (first.id, uploads.recording(api.config.temp, first.id))
        api.worker.hold.clear()
        assert waits.result().status == 200
