"""Signed records of results, over HTTP and on the command line."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from support.api_server_fixture import Api, running
from support.waiting import until
from transcribe import verifying
from transcribe.records import MachineKey, RecordError

ROOT = Path(__file__).resolve().parents[2]
AUDIO = b"RIFF a recording that is to be proved"
TRANSCRIBE = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    (folder / "manifest.json").write_text('{"origin": {"commit": "abc"}}')
    return folder


@pytest.fixture(scope="module")
def api(root: Path) -> Iterator[Api]:
    with running(root) as found:
        yield found


@pytest.fixture(scope="module")
def signed(api: Api) -> dict[str, str]:
    job = api.upload("/v1/jobs", AUDIO, language="fi").json["id"]
    assert api.get(f"/v1/jobs/{job}/record").status in (200, 409)
    until(lambda: api.get(f"/v1/jobs/{job}").json["status"] == "done")
    found: dict[str, str] = api.get(f"/v1/jobs/{job}/record").json
    return found


def test_a_record_says_what_was_heard_by_what_and_is_signed(api: Api, signed: dict[str, str]) -> None:
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(api.get("/v1/machine-key").json["public_key"]))
    key.verify(base64.b64decode(signed["signature"]), signed["payload"].encode())
    said: dict[str, Any] = json.loads(signed["payload"])
    assert said["audio"] == {"sha256": hashlib.sha256(AUDIO).hexdigest(), "bytes": len(AUDIO), "seconds": 7.5}
    assert said["model"] == "KBLab/kb-whisper-small@0123456789abcdef0123456789abcdef01234567"
    assert (said["options"]["language"], said["coverage"]["speech_seconds"]) == ("fi", 6.0)
    assert said["times"]["started"] <= said["times"]["finished"] < datetime.now(UTC).isoformat()
    assert said["image"]["origin"] == {"commit": "abc"}
    assert len(said["programs_sha256"]) == 64
    text = api.upload(TRANSCRIBE, AUDIO, language="fi").json["text"]
    assert said["text_sha256"] == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("response_format", ["json", "verbose_json", "vtt"])
def test_a_request_that_waits_gets_its_record(api: Api, response_format: str) -> None:
    reply = api.upload(TRANSCRIBE, AUDIO, response_format=response_format, record="true")
    found = api.get(reply.headers["X-Transcribe-Record"]).json
    assert set(found) == {"payload", "public_key", "signature"}
    if response_format != "vtt":
        assert reply.json["record"] == found
    plain = api.upload(TRANSCRIBE, AUDIO, response_format=response_format)
    assert "X-Transcribe-Record" not in plain.headers
    assert b'"record"' not in plain.body


def test_a_stream_ends_with_its_record(api: Api) -> None:
    reply = api.upload(TRANSCRIBE, AUDIO, stream="true", record="true")
    assert api.get(reply.headers["X-Transcribe-Record"]).json["signature"]
    assert json.loads(reply.body.decode().strip().split("data: ")[-1])["record"]["signature"]


def test_the_result_of_a_job_has_the_record_that_was_asked_for(api: Api) -> None:
    sent: dict[bytes, dict[str, str]] = {b"asked": {"record": "true"}, b"not": {}}
    for recording, more in sent.items():
        job = api.upload("/v1/jobs", AUDIO + recording, speakers="true", **more).json["id"]
        until(lambda name=job: api.get(f"/v1/jobs/{name}").json["status"] == "done")  # type: ignore[misc]
        reply, text = (api.get(f"/v1/jobs/{job}/result?format={name}") for name in ("json", "text"))
        assert ("record" in reply.json, "X-Transcribe-Record" in text.headers) == (bool(more), bool(more))
        said = json.loads(api.get(f"/v1/jobs/{job}/record").json["payload"])
        assert said["text_format_sha256"] == hashlib.sha256(text.body.strip()).hexdigest() != said["text_sha256"]
        rows = [
            f'{{"end":{one["end"] * 1000:.0f},"speaker":"{one["speaker"]}","start":{one["start"] * 1000:.0f},'
            f'"text":"{one["text"].strip()}"}}'
            for one in reply.json["segments"]
        ]
        assert said["segments_sha256"] == hashlib.sha256(f"[{','.join(rows)}]".encode()).hexdigest()


def test_a_job_that_is_sent_again_with_a_record_has_one(api: Api) -> None:
    jobs = [api.upload("/v1/jobs", AUDIO + b"again", **more).json["id"] for more in ({}, {"record": "true"})]
    until(lambda: all(api.get(f"/v1/jobs/{job}").json["status"] == "done" for job in jobs))
    assert ["record" in api.get(f"/v1/jobs/{job}/result").json for job in jobs] == [False, True]


@pytest.mark.parametrize("fault", ["link", "open to the group", "another user's"])
def test_a_key_that_others_may_have_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    path = tmp_path / "machine-key"
    assert MachineKey.at(path).public == MachineKey.at(path).public
    if fault == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    elif fault == "open to the group":
        path.chmod(0o640)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(RecordError, match=r"machine-key is .*remove it"):
        MachineKey.at(path)


def test_the_key_is_the_machines_own_and_for_its_user_only(root: Path, signed: dict[str, str], tmp_path: Path) -> None:
    file = root / "results" / "machine-key"  # seal.yaml removes what is in results, so an image has none
    assert file.stat().st_mode & 0o777 == 0o600
    assert "{root}/results/*" in (ROOT / "salt/states/transcribe/files/seal.yaml").read_text()
    (tmp_path / "results").mkdir()
    shutil.copy(file, tmp_path / "results")
    with running(tmp_path) as again, running(tmp_path / "other") as other:
        assert again.get("/v1/machine-key").json["public_key"] == signed["public_key"], "it outlives a restart"
        assert other.get("/v1/machine-key").json["public_key"] != signed["public_key"]


def changed(signed: dict[str, str]) -> dict[str, str]:
    return {**signed, "payload": signed["payload"].replace('"language": "fi"', '"language": "sv"')}


@pytest.mark.parametrize(
    ("case", "code", "lines"),
    [
        ("good", 0, ["good  signature", "good  audio", "KBLab/kb-whisper-small@", "Which machine signed"]),
        ("with key and text", 0, ["good  signature", "good  machine", "good  audio", "good  text", "KBLab"]),
        ("another recording", 1, ["good  signature", "BAD   audio"]),
        ("changed record", 1, ["BAD   signature", "good  audio"]),
        ("another key", 1, ["good  signature", "BAD   machine", "good  audio"]),
        (
            "corrected",
            1,
            ["good  signature", "good  audio", "BAD   text: it is not what the machine wrote, but what peo"],
        ),
        ("another text", 1, ["good  signature", "good  audio", "BAD   text"]),
        ("text of turns", 0, ["good  signature", "good  audio", "good  text", "KBLab", "Which machine signed"]),
        ("text in Latin-1", 2, []),
        ("no record", 2, []),
        ("no file", 2, []),
    ],
)
def test_verify(api: Api, signed: dict[str, str], tmp_path: Path, case: str, code: int, lines: list[str]) -> None:
    record, audio, text = tmp_path / "record.json", tmp_path / "a.wav", tmp_path / "a.txt"
    kept = {"changed record": changed(signed), "no record": {"text": "Hej"}}.get(case, signed)
    record.write_text(json.dumps({"text": "", "record": kept} if case == "good" else kept))
    audio.write_bytes(AUDIO + (b"!" if case == "another recording" else b""))
    spoken = api.upload(TRANSCRIBE, AUDIO, language="fi", response_format="text").body.decode()
    text.write_text("Hej" if case == "another text" else spoken)
    if case == "corrected":
        url = f"/v1/jobs/{json.loads(signed['payload'])['job']}"
        content = b'{"segments": {"0": "Hej"}}'
        api.send("PATCH", f"{url}/corrections", content, {"Content-Type": "application/json"})
        record.write_bytes(api.get(f"{url}/record").body)
        text.write_bytes(api.get(f"{url}/result?format=text").body)
    if case == "text in Latin-1":
        text.write_text("Ärende", encoding="latin-1")
    if case == "text of turns":
        reply = api.upload(TRANSCRIBE, AUDIO, speakers="true", response_format="text", record="true")
        record.write_bytes(api.get(reply.headers["X-Transcribe-Record"]).body)
        text.write_bytes(reply.body)
    more = {
        "corrected": ["--text", str(text)],
        "with key and text": ["--key", signed["public_key"], "--text", str(text)],
        "another key": ["--key", base64.b64encode(bytes(32)).decode()],
        "another text": ["--text", str(text)],
        "text in Latin-1": ["--text", str(text)],
        "text of turns": ["--text", str(text)],
    }.get(case, [])
    program = [sys.executable, str(ROOT / "service/transcribe_optimized.py"), "verify", str(record)]
    file = tmp_path / "none.wav" if case == "no file" else audio
    done = subprocess.run(
        [*program, str(file), *more], capture_output=True, text=True, check=False, env={**os.environ}, timeout=60
    )
    assert done.returncode == code, done.stdout + done.stderr
    shown = done.stdout.splitlines()
    assert [line.startswith(start) for line, start in zip(shown, lines, strict=True)] == [True] * len(lines), shown
    assert len(done.stderr.splitlines()) == (1 if code == 2 else 0)
    assert ("not in UTF-8" in done.stderr) == (case == "text in Latin-1")


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"times": None}, 0),
        ({"model": "x\ngood  machine: \ud800"}, 0),
        ({"corrections": "x"}, 2),
        ({"corrections": ["x"]}, 2),
        ({"times": "x"}, 2),
        ({"audio": "x"}, 2),
        ({"text_sha256": 1}, 2),
        (b"[" * 100_000, 2),
        ("payload", 2),
    ],
)
def test_a_hostile_record_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: Any, code: int
) -> None:
    record, audio, text = tmp_path / "record.json", tmp_path / "a.wav", tmp_path / "a.txt"
    audio.write_bytes(AUDIO)
    text.write_text("Hej")
    said = {"audio": {"sha256": hashlib.sha256(AUDIO).hexdigest()}, "text_sha256": hashlib.sha256(b"Hej").hexdigest()}
    if more == "payload":
        record.write_text(json.dumps({"payload": "[" * 100_000, "public_key": "", "signature": ""}))
    elif isinstance(more, bytes):
        record.write_bytes(more)
    else:
        signed = MachineKey(bytes(32)).sign({**said, **json.loads(json.dumps(more).replace("\\ud800", ""))})
        record.write_text(json.dumps(signed))
    assert verifying.run([str(record), str(audio), "--text", str(text)]) == code
    told = capsys.readouterr()
    assert (len(told.out.splitlines()), len(told.err.splitlines())) == ((5, 0) if code == 0 else (0, 1))


def test_what_a_record_says_makes_no_lines_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record, audio = tmp_path / "record.json", tmp_path / "a.wav"
    audio.write_bytes(AUDIO)
    said: dict[str, Any] = {"audio": {"sha256": "\ud800"}, "text_sha256": ""}
    forged = {"payload": json.dumps(said), "public_key": "x\ngood  machine: it has the key\ud800", "signature": ""}
    record.write_text(json.dumps(forged))
    assert verifying.run([str(record), str(audio), "--key", "x"]) == 2  # half a character is no JSON in UTF-8
    said["audio"]["sha256"] = "x\ngood  audio"
    record.write_text(json.dumps({**forged, "payload": json.dumps(said)}))
    assert verifying.run([str(record), str(audio), "--key", "x"]) == 1
    assert [line[:4] for line in capsys.readouterr().out.splitlines()] == ["BAD "] * 3
