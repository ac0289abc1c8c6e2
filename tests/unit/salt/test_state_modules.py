"""The custom states and modules: nothing is changed in vain, a dry run changes nothing, errors are one line."""

import hashlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.salt_states import PILLAR, load
from support.upload_server import UploadServer
from transcribe.api.auth import Keys

SAME = {"pinned": 3, "missing": [], "wrong": [], "damaged": [], "extra": []}
OTHER = {**SAME, "missing": ["torch"], "extra": ["left-over"]}
COMMIT = "0123456789" * 4
CACHED = {"changed": False, "reason": "", "files": {"a": {}}}


class Run:
    """Stands in for transcribe_run.locked: plays answers back, remembers commands."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.commands: list[list[str]] = []

    def __call__(self, kind: str, command: list[str], environment: dict[str, str] | None = None) -> dict[str, Any]:
        self.commands.append(command)
        answer = self.answers.pop(0)
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return {"code": int(isinstance(answer, str)), "stdout": "" if isinstance(answer, str) else text, "stderr": text}

    def salt(self) -> dict[str, Any]:
        return {"transcribe_run.locked": self, "file.group_to_gid": lambda name: os.getgid()}


def test_venv_that_is_right_is_left_alone() -> None:
    run = Run(SAME)
    answer = load("_states/transcribe_venv.py", salt=run.salt()).synced("/v", "cpu.lock")
    assert (answer["result"], answer["changes"], len(run.commands)) == (True, {}, 1)
    assert run.commands[0][2:] == ["check", "/v", run.commands[0][-1]]


def test_venv_names_what_it_changed() -> None:
    run = Run(OTHER, OTHER)
    answer = load("_states/transcribe_venv.py", salt=run.salt()).synced("/v", "cpu.lock", "python3.12")
    assert answer["result"] is True
    assert answer["changes"] == {"torch": "installed", "left-over": "removed"}
    assert run.commands[1][-2:] == ["--python", "python3.12"]


def test_venv_dry_run_only_looks() -> None:
    run = Run(OTHER)
    answer = load("_states/transcribe_venv.py", salt=run.salt(), test=True).synced("/v", "cpu.lock")
    assert answer["result"] is None
    assert answer["changes"]
    assert len(run.commands) == 1


@pytest.mark.parametrize("answers", [("error: no lock",), (OTHER, "error: pip could not")])
def test_venv_error_is_the_comment(answers: tuple[Any, ...]) -> None:
    answer = load("_states/transcribe_venv.py", salt=Run(*answers).salt()).synced("/v", "cpu.lock")
    assert answer["result"] is False
    assert answer["changes"] == {}
    assert answer["comment"].startswith("error: ")


def cached(tmp_path: Path, run: Run, *, test: bool = False, revision: str = COMMIT) -> dict[str, Any]:
    (tmp_path / "cache").mkdir(exist_ok=True)
    module = load("_states/transcribe_model.py", salt=run.salt(), test=test)
    answer: dict[str, Any] = module.cached("org/name", revision, str(tmp_path))
    return answer


def test_model_must_be_pinned_to_a_commit(tmp_path: Path) -> None:
    answer = cached(tmp_path, Run(), revision="main")
    assert answer["result"] is False
    assert "'main', not a commit" in answer["comment"]


def test_model_that_is_right_is_left_alone(tmp_path: Path) -> None:
    answer = cached(tmp_path, Run(CACHED))
    assert (answer["result"], answer["changes"]) == (True, {})


def test_model_says_why_it_was_written_and_how_the_warm_up_went(tmp_path: Path) -> None:
    result = {**CACHED, "changed": True, "reason": "a is missing", "warmup_error": "no kernel"}
    answer = cached(tmp_path, Run(result))
    assert answer["changes"] == {"cache_info.json": "a is missing"}
    assert "no kernel" in answer["comment"]


def test_model_download_that_fails_is_a_failure(tmp_path: Path) -> None:
    answer = cached(tmp_path, Run("advanced_cache: cannot download"))
    assert answer["result"] is False
    assert answer["comment"] == "advanced_cache: cannot download"


def test_model_dry_run(tmp_path: Path) -> None:
    assert cached(tmp_path, Run(), test=True)["result"] is None
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/python").touch()
    (tmp_path / "advanced_cache.py").touch()
    run = Run({"ok": True, "reason": ""}, {"ok": False, "reason": "a is missing"})
    assert cached(tmp_path, run, test=True)["result"] is True
    assert cached(tmp_path, run, test=True)["changes"] == {"cache_info.json": "a is missing"}
    assert all("--check" in command for command in run.commands)


def check(verdict: str) -> dict[str, Any]:
    return {"checks": [{"name": "ready", "verdict": verdict, "detail": "503"}], "clip": None, "facts": {}}


def test_verification_never_changes_and_names_what_failed() -> None:
    asked: list[bool] = []

    def verify(*, clip: bool) -> dict[str, Any]:
        asked.append(clip)
        return check("fail")

    module = load("_states/transcribe_verify.py", salt={"transcribe.verify": verify})
    assert module.passed("x") == {"name": "x", "result": False, "changes": {}, "comment": "ready: 503"}
    assert module.mod_watch("x", sfun="passed")["result"] is False
    assert asked == [False, True]
    module = load("_states/transcribe_verify.py", salt={"transcribe.verify": verify}, test=True)
    assert module.passed("x")["result"] is None


@pytest.mark.parametrize(
    ("chosen", "noted", "gpu", "lock"),
    [
        ("auto", None, False, "cpu.lock"),
        ("auto", None, True, "cuda.lock"),
        ("auto", "cuda.lock", False, "cuda.lock"),
        ("auto", "cpu.lock", True, "cpu.lock"),
        ("cuda", "cpu.lock", False, "cuda.lock"),
    ],
)
def test_lock_is_decided_once(tmp_path: Path, chosen: str, noted: str | None, gpu: bool, lock: str) -> None:
    pillar = {"transcribe": {**PILLAR["transcribe"], "root": str(tmp_path), "install": {"lock": chosen}}}
    if noted:
        (tmp_path / "venv").mkdir()
        (tmp_path / "venv/locks.json").write_text(json.dumps([noted]))
    module = load("_modules/transcribe.py", pillar=pillar, salt={"transcribe_gpu.wanted": lambda: gpu})
    assert module.lock() == lock


def test_long_command_logs_its_progress(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = load("_modules/transcribe_run.py")
    module.__dict__["LOCKS"] = tmp_path
    with caplog.at_level("INFO"):
        done = module.locked("venv", ["sh", "-c", "echo 1/2 torch >&2; echo $X; exit 3"], {"X": "{}"})
    assert done == {"code": 3, "stdout": "{}\n", "stderr": "1/2 torch"}
    assert "progress of venv: 1/2 torch" in caplog.text


def test_two_of_a_kind_never_run_at_once(tmp_path: Path) -> None:
    """What a killed apply left running keeps the lock until it ends."""
    module = load("_modules/transcribe_run.py")
    module.__dict__["LOCKS"] = tmp_path
    log = tmp_path / "log"
    script = f"echo begin >> {log}; sleep 0.2; echo end >> {log}"
    threads = [threading.Thread(target=module.locked, args=("venv", ["sh", "-c", script])) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.read_text().split() == ["begin", "end"] * 3


def keyed(folder: Path) -> dict[str, Any]:
    auth = {"keys_file": str(folder / "keys"), "temporary_keys": str(folder / "temporary")}
    return {"transcribe": {**PILLAR["transcribe"], "auth": auth}}


def letting_itself_in(folder: Path) -> Any:
    module = load("_modules/transcribe_http.py", pillar=keyed(folder), salt=Run().salt())
    module.__dict__["REREAD"] = 0
    return module._authorized()


@pytest.mark.attack
def test_machine_lets_itself_in_and_leaves_the_keys_file_alone(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"alice {'0' * 64}\n")
    keys = Keys(tmp_path / "keys", tmp_path / "temporary")
    with letting_itself_in(tmp_path) as headers:
        assert str(keys.identify(headers["Authorization"])).startswith("this-machine:")
        (tmp_path / "keys").write_text(f"bob {'1' * 64}\n")  # the operator, meanwhile
    assert (tmp_path / "keys").read_text() == f"bob {'1' * 64}\n"
    assert list((tmp_path / "temporary").iterdir()) == []
    assert Keys(tmp_path / "keys", tmp_path / "temporary").identify(headers["Authorization"]) is None


@pytest.mark.attack
def test_two_checks_at_once_have_a_key_each(tmp_path: Path) -> None:
    with letting_itself_in(tmp_path) as first, letting_itself_in(tmp_path) as second:
        keys = Keys(tmp_path / "keys", tmp_path / "temporary")
        assert all(keys.identify(one["Authorization"]) for one in (first, second))


@pytest.mark.attack
@pytest.mark.parametrize(("seconds", "mode"), [(-1, 0o640), (100_000, 0o640), (60, 0o660), (60, 0o606)])
def test_a_temporary_key_that_ended_never_ends_or_is_anyones_opens_nothing(
    tmp_path: Path, seconds: float, mode: int
) -> None:
    """A killed check leaves its file behind, and the clock may be set back."""
    (tmp_path / "temporary").mkdir()
    file = tmp_path / "temporary/left"
    file.write_text(f"this-machine {hashlib.sha256(b'key').hexdigest()} {time.time() + seconds:.0f}\n")
    file.chmod(mode)
    keys = Keys(tmp_path / "keys", tmp_path / "temporary")
    assert keys.identify("Bearer key") is None
    os.utime(file, (0, 0))
    with letting_itself_in(tmp_path):
        assert not file.exists()


@pytest.mark.attack
def test_a_link_in_place_of_the_folder_of_keys_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "temporary").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="temporary"), letting_itself_in(tmp_path):
        pass


def test_no_key_where_none_is_asked_for() -> None:
    with load("_modules/transcribe_http.py")._authorized() as headers:
        assert headers == {}


@pytest.mark.parametrize(
    ("host", "address"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("10.1.2.3", "10.1.2.3"), ("::1", "[::1]")]
)
def test_address_as_seen_from_the_machine(host: str, address: str) -> None:
    pillar = {"transcribe": {**PILLAR["transcribe"], "host": host}}
    assert load("_modules/transcribe_http.py", pillar=pillar)._address() == f"http://{address}:8000"


def test_a_clip_is_sent_as_a_client_sends_it(server: UploadServer, tmp_path: Path) -> None:
    port = int(server.url.rsplit(":", 1)[1])
    module = load("_modules/transcribe_http.py", pillar={"transcribe": {**PILLAR["transcribe"], "port": port}})
    clip = tmp_path / "clip.flac"
    clip.write_bytes(b"sound")
    server.files["/v1/audio/transcriptions"] = b'{"text": " hello ", "duration": 1.5}'
    transcript = module.transcribe(str(clip), "en")
    assert (transcript["text"], transcript["audio_seconds"]) == ("hello", 1.5)
    [upload] = server.uploads
    assert upload.headers["Content-Type"].startswith("multipart/form-data; boundary=")
    for part in (b'name="language"\r\n\r\nen\r\n', b'name="file"; filename="audio.flac"\r\n\r\nsound\r\n'):
        assert part in upload.body
    server.failures = 1
    assert module.transcribe(str(clip), "en")["error"].startswith("HTTP 503: ")


def test_a_service_that_is_down_is_one_line() -> None:
    module = load("_modules/transcribe_http.py", pillar={"transcribe": {**PILLAR["transcribe"], "port": 1}})
    assert module.get("/health") == {"status": 0, "body": "no connection to http://127.0.0.1:1"}
