"""serve.py: the folder it lays out is one that the service accepts, and every wrong start is one line."""

import argparse
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from baker.inputs import pillar
from serving import run
from serving.run import ServedModel, ServeError
from transcribe import config

pytestmark = pytest.mark.attack

COMMIT = "c" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(run, "CACHE", tmp_path)
    return tmp_path


def options(**changes: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"host": "127.0.0.1", "port": 8123, "language": "sv", **changes})


def test_the_configuration_is_the_pillar_and_the_service_takes_it(cache: Path) -> None:
    path = run.machine_folder(options(), pillar.load(run.ROOT), ServedModel("a/b", COMMIT))
    made = config.load(path)
    assert (made.port, made.model.id, made.model.revision, made.model.language) == (8123, "a/b", COMMIT, "sv")
    assert made.root == cache / "serve/a--b-8123"
    assert all((made.root / name).is_dir() for name in ("cache", "config", "temp", "logs", "results", "models"))


def test_recordings_and_texts_are_for_the_user_alone(cache: Path) -> None:
    (cache / "serve/a--b-8123/results").mkdir(parents=True, mode=0o755)  # of an older version
    root = run.machine_folder(options(), pillar.load(run.ROOT), ServedModel("a/b", COMMIT)).parent.parent
    folders = [root, *(root / name for name in ("cache", "config", "temp", "logs", "results"))]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}


def test_what_it_writes_is_for_the_user_alone(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "serve", lambda _: (cache / "text").write_text("x"))
    before = os.umask(0o022)
    try:
        run.main([])
    finally:
        os.umask(before)
    assert (cache / "text").stat().st_mode & 0o777 == 0o600


def test_a_folder_becomes_a_snapshot_of_the_hub_without_touching_the_original(cache: Path, tmp_path: Path) -> None:
    original = tmp_path / "mine"
    original.mkdir()
    (original / "config.json").write_text("{}")
    model = ServedModel("local/mine", COMMIT, original)
    path = run.machine_folder(options(), pillar.load(run.ROOT), model)
    run.machine_folder(options(), pillar.load(run.ROOT), model)
    snapshot = path.parent.parent / "models/models--local--mine/snapshots" / COMMIT
    (snapshot / "config.json").unlink()
    assert (original / "config.json").read_text() == "{}"


def test_two_ports_share_a_model_and_nothing_else(cache: Path) -> None:
    one, two = (run.machine_folder(options(port=port), pillar.load(run.ROOT), ServedModel("a/b", COMMIT)).parent.parent
                for port in (1, 2))  # fmt: skip
    assert (one / "models").resolve() == (two / "models").resolve()
    assert one / "results" != two / "results"


@pytest.mark.parametrize(
    ("model", "words"),
    [("/nowhere", "there is no such folder"), ("./nowhere", "there is no such folder")],
)
def test_a_folder_that_is_not_there_is_said(model: str, words: str) -> None:
    with pytest.raises(ServeError, match=words):
        run.find_model(model, "http://127.0.0.1:9")


def test_a_folder_without_a_model_and_a_hub_out_of_reach_are_said(tmp_path: Path) -> None:
    with pytest.raises(ServeError, match=r"there is no config\.json"):
        run.find_model(str(tmp_path), "http://127.0.0.1:9")
    with pytest.raises(ServeError, match=r"http://127\.0\.0\.1:9"):
        run.find_model("a/b", "http://127.0.0.1:9")


def test_a_taken_port_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ServeError, match="cannot listen on 127"):
            run.check_host("127.0.0.1", taken.getsockname()[1])


def test_missing_ffmpeg_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ServeError, match="ffmpeg is not installed"):
        run.check_host("127.0.0.1", 8123)


def programs(service: Path, *, api: str, worker: str) -> None:
    (service / "api_server.py").write_text(api)
    (service / "transcribe_optimized.py").write_text(worker)


STAY = "import time; time.sleep(60)"


def test_a_child_that_dies_is_named_with_its_last_line_and_the_other_is_stopped(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "SERVICE", tmp_path)
    programs(tmp_path, api=STAY, worker="import sys; print('no model'); sys.exit(78)")
    path = run.machine_folder(options(), pillar.load(run.ROOT), ServedModel("a/b", COMMIT))
    children = run.Children(path)
    try:
        with pytest.raises(ServeError, match="the worker process ended with 78: no model"):
            run.wait_ready(children, "127.0.0.1", 9)
    finally:
        children.stop()
    with pytest.raises(ServeError, match="the api process ended with -15"):
        children.check()


def test_the_configuration_file_is_json_with_every_key_of_the_pillar(cache: Path) -> None:
    path = run.machine_folder(options(), pillar.load(run.ROOT), ServedModel("a/b", COMMIT))
    assert json.loads(path.read_text()).keys() == pillar.load(run.ROOT).keys()
