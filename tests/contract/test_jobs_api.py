"""/v1/jobs: durable, private to their key, and gone when they should be."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import openai
import pytest
from support.api_server_fixture import Api, Reply, run_retention, running
from support.fake_worker import COVERAGE, canned
from support.waiting import until
from transcribe.api.app import ASKING_REQUESTS
from transcribe.api.spool import COMPRESSED_RATE
from transcribe.jobs import uploads
from transcribe.jobs.models import NewJob
from transcribe.keys import new_key
from transcribe.types import DecodeOptions, Segment

HOUR = 3600.0


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(tmp_path_factory.mktemp("api")) as found:
        yield found


def finished(api: Api, job_id: str, key: str = "") -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    body: dict[str, Any] = {}

    def over() -> bool:
        body.update(api.get(f"/v1/jobs/{job_id}", **headers).json)
        return bool(body["finished_at"])

    until(over)
    return body


def created(api: Api, content: bytes, **fields: Any) -> dict[str, Any]:
    reply = api.upload("/v1/jobs", content, **fields)
    assert reply.status == 202, reply.body
    body: dict[str, Any] = reply.json
    assert reply.headers["Location"] == f"/v1/jobs/{body['id']}"
    return body


def test_a_job_from_beginning_to_end(held: Api) -> None:
    body = created(held, b"whole", language="en", response_format="srt")
    assert (body["status"], body["object"], body["language"]) == ("queued", "transcription.job", "en")
    assert body["queue"] == {"position": 1, "estimated_seconds": 0.0}
    assert held.get(f"/v1/jobs/{body['id']}/result").code == "job_not_finished"
    held.worker.hold.clear()
    done = finished(held, body["id"])
    assert (done["status"], done["queue"], done["coverage"]) == ("done", None, COVERAGE)
    assert done["progress"] == {"audio_seconds_done": 7.5, "audio_seconds_total": 7.5}
    assert done["expires_at"] == pytest.approx(time.time() + 24 * HOUR, abs=60)
    assert held.get(f"/v1/jobs/{body['id']}/result").body.startswith(b"1\n00:00:00,000 -->")


@pytest.mark.parametrize(
    ("name", "content_type", "start"),
    [
        ("txt", "text/plain; charset=utf-8", b"Hej och"),
        ("text", "text/plain; charset=utf-8", b"Hej och"),
        ("json", "application/json", b'{"text": "Hej'),
        ("verbose_json", "application/json", b'{"task": "transcribe"'),
        ("srt", "application/x-subrip; charset=utf-8", b"1\n00:00:00,000"),
        ("vtt", "text/vtt; charset=utf-8", b"WEBVTT"),
        ("tsv", "text/tab-separated-values; charset=utf-8", b"start\tend\ttext\n0\t2500\tHej"),
        ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document", b"PK"),
    ],
)
def test_results_in_every_format(api: Api, name: str, content_type: str, start: bytes) -> None:
    job = created(api, b"formats")
    finished(api, job["id"])
    reply = api.get(f"/v1/jobs/{job['id']}/result?format={name}")
    assert (reply.status, reply.headers["Content-Type"]) == (200, content_type)
    assert reply.body.startswith(start)
    assert api.get(f"/v1/jobs/{job['id']}/result?format=pdf").code == "invalid_value"


def test_subtitles_are_shaped_as_the_job_and_then_the_url_say(api: Api) -> None:
    job = created(api, b"shaped", max_line_width=12, subtitles="readable")
    finished(api, job["id"])
    url = f"/v1/jobs/{job['id']}/result"
    shaped = api.get(f"{url}?format=srt").body.decode()
    assert "\nHej och\nvälkomna.\n" in shaped
    assert "\nHej och välkomna.\n" in api.get(f"{url}?format=srt&max_line_width=42").body.decode()
    assert "\nNu ska vi tala om Ärendet.\n" in api.get(f"{url}?format=srt&subtitles=raw").body.decode()
    assert "<00:00:00.833>" in api.get(f"{url}?format=vtt&highlight_words=true").body.decode()
    for bad in ("format=srt&highlight_words=true", "max_line_count=1.5", "max_cps=nan", "subtitles=nice"):
        reply = api.get(f"{url}?{bad}")
        assert (reply.status, reply.code) == (400, "invalid_value")
        assert reply.json["error"]["param"] == bad.split("&")[-1].split("=")[0]


def test_words_when_they_were_asked_for(api: Api) -> None:
    fields = {"response_format": "verbose_json", "timestamp_granularities[]": ["word"]}
    job = created(api, b"words", **fields)
    finished(api, job["id"])
    result = api.get(f"/v1/jobs/{job['id']}/result").json
    assert result["words"][0]["word"] == "Hej"
    pieces = api.get(f"/v1/jobs/{job['id']}/segments?after=0").json
    assert [piece["id"] for piece in pieces["data"]] == [1, 2]
    assert pieces["data"][0]["words"][0]["word"] == "Nu"
    assert pieces["job"]["status"] == "done"
    few = api.get(f"/v1/jobs/{job['id']}/segments?after=0&limit=1").json["data"]
    assert [piece["id"] for piece in few] == [1]
    assert api.get(f"/v1/jobs/{job['id']}/segments?limit=0").code == "invalid_value"


def test_a_failed_job_says_why(api: Api) -> None:
    job = created(api, b"bad one")
    body = finished(api, job["id"])
    assert (body["status"], body["error"]["code"]) == ("failed", "no_audio")
    reply = api.get(f"/v1/jobs/{job['id']}/result")
    assert (reply.status, reply.code) == (400, "no_audio")


def test_cancel_and_delete(held: Api) -> None:
    job = created(held, b"to be cancelled")
    spool = held.config.temp / job["id"]
    assert spool.exists()
    reply = held.send("POST", f"/v1/jobs/{job['id']}/cancel")
    assert (reply.status, reply.json["status"]) == (200, "cancelled")
    assert not spool.exists()
    assert held.send("POST", f"/v1/jobs/{job['id']}/cancel").code == "job_over"
    assert held.get(f"/v1/jobs/{job['id']}/result").code == "job_cancelled"
    assert held.send("DELETE", f"/v1/jobs/{job['id']}").json["deleted"] is True
    assert held.get(f"/v1/jobs/{job['id']}").status == 404
    assert held.send("DELETE", f"/v1/jobs/{job['id']}").status == 404


def test_delete_removes_audio_and_text_at_once(api: Api) -> None:
    job = created(api, b"to be deleted")
    finished(api, job["id"])
    assert api.send("DELETE", f"/v1/jobs/{job['id']}").status == 200
    assert not (api.config.temp / job["id"]).exists()
    assert api.store.segments(job["id"]) == []


def test_jobs_are_gone_after_their_time(api: Api) -> None:
    job = created(api, b"to expire")
    finished(api, job["id"])
    run_retention(api, time.time())
    assert list(api.config.temp.iterdir()) == [], "the audio of a finished job is not kept"
    run_retention(api, time.time() + 23 * HOUR)
    assert api.get(f"/v1/jobs/{job['id']}").status == 200
    run_retention(api, time.time() + 25 * HOUR)
    assert api.get(f"/v1/jobs/{job['id']}").status == 404
    assert list(api.config.temp.iterdir()) == []


def test_orphans_in_the_spool_are_removed_but_not_what_waits(held: Api) -> None:
    waiting = created(held, b"waits")
    orphan, foreign = held.config.temp / ("f" * 32), held.config.temp / "operator-notes.txt"
    orphan.write_bytes(b"no job has this")
    foreign.write_bytes(b"not ours")
    run_retention(held, time.time())
    assert orphan.exists(), "it may be about to get its job"
    run_retention(held, time.time() + HOUR)
    assert {path.name for path in held.config.temp.iterdir()} == {waiting["id"], foreign.name}
    foreign.unlink()


def test_listing_has_pages(held: Api) -> None:
    mine = [created(held, b"page %d" % number)["id"] for number in range(3)]
    first = held.get("/v1/jobs?limit=2").json
    assert [job["id"] for job in first["data"]] == [mine[2], mine[1]]
    assert first["has_more"] is True
    assert held.get(f"/v1/jobs?limit=1&after={mine[1]}").json["data"][0]["id"] == mine[0]


def test_the_same_upload_is_the_same_job(held: Api) -> None:
    job = created(held, b"again")
    assert created(held, b"again", response_format="vtt")["id"] == job["id"]
    assert created(held, b"again", language="en")["id"] != job["id"]
    assert created(held, b"again!")["id"] != job["id"]
    held.worker.hold.clear()
    finished(held, job["id"])
    assert created(held, b"again")["id"] == job["id"]
    assert held.upload("/v1/audio/transcriptions", b"again").json["text"].startswith("Hej")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"stream": "true"}, "unsupported_value"),
        ({"task": "sing"}, "invalid_value"),
        ({"callback_url": "https://example.org/"}, "callbacks_disabled"),
    ],
)
def test_bad_jobs(api: Api, fields: dict[str, Any], code: str) -> None:
    assert api.upload("/v1/jobs", b"bad job", **fields).code == code


@contextmanager
def running_with_keys(folder: Path, **changes: Any) -> Iterator[tuple[Api, dict[str, str]]]:
    keys, lines = {}, ["# who may come in"]
    for name in ("anna", "bo"):
        keys[name], line = new_key(name)
        lines.append(line)
    file = folder / "keys"
    file.write_text("\n".join(lines))
    with running(folder / "root", auth__keys_file=str(file), **changes) as api:
        yield api, keys


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[tuple[Api, dict[str, str]]]:
    with running_with_keys(tmp_path, limits__key_jobs=2) as found:
        yield found


def test_keys_open_the_door_and_keep_jobs_apart(keyed: tuple[Api, dict[str, str]]) -> None:
    api, keys = keyed
    assert api.get("/health").status == 200
    assert api.get("/health", Host="public.example").status == 200
    assert api.get("/v1/jobs").code == "invalid_api_key"
    assert api.upload("/v1/jobs", key="sk-wrong").status == 401
    with api.client("sk-wrong") as client, pytest.raises(openai.AuthenticationError):
        client.models.list()
    with api.client(keys["anna"]) as client:
        assert client.models.list().data[0].id == "KBLab/kb-whisper-small"
    job = api.upload("/v1/jobs", b"shared", key=keys["anna"]).json["id"]
    finished(api, job, keys["anna"])
    theirs = {"Authorization": f"Bearer {keys['bo']}"}
    assert api.upload("/v1/jobs", b"shared", key=keys["bo"]).json["id"] != job
    for path in ("", "/result", "/segments"):
        assert api.get(f"/v1/jobs/{job}{path}", **theirs).code == "job_not_found"
    assert api.send("DELETE", f"/v1/jobs/{job}", headers=theirs).status == 404
    assert api.send("POST", f"/v1/jobs/{job}/cancel", headers=theirs).status == 404
    assert job not in {found["id"] for found in api.get("/v1/jobs", **theirs).json["data"]}
    assert api.get(f"/v1/jobs?after={job}", **theirs).status == 404


def test_a_key_has_so_many_jobs_at_once(keyed: tuple[Api, dict[str, str]]) -> None:
    api, keys = keyed
    api.worker.hold.set()
    assert [api.upload("/v1/jobs", b"%d" % n, key=keys["anna"]).status for n in range(3)] == [202, 202, 429]
    assert api.upload("/v1/jobs", b"x", key=keys["bo"]).status == 202
    api.worker.hold.clear()


@pytest.mark.parametrize(
    ("limits", "accepted"),
    [({"limits__queue_jobs": 6}, 3), ({"limits__queue_audio_seconds": 50, "limits__audio_seconds": 10}, 3)],
    ids=["jobs", "audio"],
)
def test_a_key_that_came_first_leaves_room_to_one_that_comes_later(
    tmp_path: Path, limits: dict[str, int], accepted: int
) -> None:
    with running_with_keys(tmp_path, **limits) as (api, keys):
        api.worker.hold.set()
        long = bytes(int(10 * COMPRESSED_RATE))
        replies = [api.upload("/v1/jobs", b"%d" % number + long, key=keys["anna"]) for number in range(6)]
        assert [reply.status for reply in replies] == [202] * accepted + [429] * (6 - accepted)
        assert replies[-1].code == "rate_limit_exceeded"
        assert api.upload("/v1/jobs", b"a clip", key=keys["bo"]).status == 202
        api.worker.hold.clear()


def test_health_is_answered_while_every_slot_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transcribe.api.context.READING_SECONDS", 60.0)
    with running(tmp_path, limits__waiting_requests=1) as api:
        job, gate, read = finished(api, created(api, b"read")["id"]), Event(), api.store.segments

        def slow(*arguments: Any) -> list[Segment]:
            gate.wait(60)
            return read(*arguments)

        monkeypatch.setattr(api.store, "segments", slow)
        api.worker.hold.set()
        with ThreadPoolExecutor(20) as pool:
            calls = [pool.submit(api.get, f"/v1/jobs/{job['id']}/result") for _ in range(ASKING_REQUESTS)]
            calls.append(pool.submit(api.upload, "/v1/audio/transcriptions", b"waits"))
            try:
                until(lambda: sum(bool(one.requests) for one in api.server.active_channels.values()) == len(calls))
                assert api.get("/health").status == 200
            finally:
                gate.set()
                api.worker.hold.clear()
            assert {call.result().status for call in calls} == {200}


def test_a_key_that_reads_much_leaves_threads_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transcribe.api.context.READING_SECONDS", 0.1)
    with running_with_keys(tmp_path, limits__waiting_requests=1) as (api, keys):
        read, gate = api.store.segments, Event()
        jobs = {name: api.upload("/v1/jobs", b"long", key=key).json["id"] for name, key in keys.items()}
        for name, job in jobs.items():
            finished(api, job, keys[name])

        def slow(job_id: str, *arguments: int) -> list[Segment]:
            if job_id == jobs["anna"]:
                gate.wait(20)
            return read(job_id, *arguments)

        def get(name: str, what: str) -> Reply:
            return api.get(f"/v1/jobs/{jobs[name]}/{what}", Authorization=f"Bearer {keys[name]}")

        monkeypatch.setattr(api.store, "segments", slow)
        with ThreadPoolExecutor(40) as pool:
            flood = [pool.submit(get, "anna", ("result", "segments", "record")[n % 3]) for n in range(40)]
            try:
                until(lambda: sum(one.done() for one in flood) >= 30)
                assert get("bo", "result").status == 200
            finally:
                gate.set()
            replies = [one.result() for one in flood]
    assert {reply.status for reply in replies} == {200, 429}
    assert all("Retry-After" in reply.headers for reply in replies if reply.status == 429)


def test_keys_are_read_again_when_their_file_changes(keyed: tuple[Api, dict[str, str]]) -> None:
    api, keys = keyed
    file = api.shared.keys.path
    assert file
    status: Callable[[str], int] = lambda key: api.get("/v1/models", Authorization=f"Bearer {key}").status  # noqa: E731
    assert status(keys["bo"]) == 200
    added, line = new_key("cia")
    file.write_text("\n".join([*file.read_text().splitlines()[:2], "this line is broken", line]))
    until(lambda: status(keys["bo"]) == 401)
    assert (status(added), status(keys["anna"])) == (200, 200)
    file.unlink()
    until(lambda: status(added) == 401)


def test_a_name_stands_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="letters"):
        new_key("a b")


def test_a_status_of_done_never_comes_before_the_end_of_the_text(held: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    job, read = created(held, b"ends meanwhile")["id"], held.store.segments

    def ends_after(job_id: str, after: int = -1, limit: int = -1) -> list[Segment]:
        found = read(job_id, after, limit)
        if claimed := held.store.claim():
            text = canned(words=True)
            held.store.finish(claimed.id, claimed.attempts, language="sv", coverage=COVERAGE, segments=text)
        return found

    monkeypatch.setattr(held.store, "segments", ends_after)
    looks = [held.get(f"/v1/jobs/{job}/segments").json for _ in range(2)]
    assert [(look["job"]["status"], len(look["data"])) for look in looks] == [("queued", 0), ("done", 3)]


@pytest.mark.parametrize(
    ("kept", "width"), [({"of_later_versions": 1, "max_line_width": 12}, 12), ({"max_cps": 0}, 42)]
)
def test_a_job_of_another_version_has_subtitles(api: Api, kept: dict[str, Any], width: int) -> None:
    key = api.store.get(created(api, b"one")["id"])
    assert key
    options = DecodeOptions(language="sv", words=True)
    new = NewJob(key_id=key.key_id, options=options, request={"subtitles": kept}, detached=True)
    uploads.recording(api.config.temp, new.id).write_bytes(b"sound")
    api.store.create(new)
    finished(api, new.id)
    reply = api.get(f"/v1/jobs/{new.id}/result?format=srt")
    lines = [line for line in reply.body.decode().splitlines() if not re.match(r"\d|$", line)]
    assert width / 2 < max(map(len, lines)) <= width
