"""What the shell build of this machine promised, row by row, and its faults, which must be impossible here."""

import json
from datetime import datetime

import pytest
from support.baked_machine import ROOT as TREE
from support.baked_machine import BakedMachine

ROOT = "/opt/transcribe"
IMPORTS = {
    "transcribe_optimized.py": "sys, os, time, torch, warnings, json, datetime, transformers",
    "api_server.py": "flask, werkzeug, waitress, subprocess, glob, torch",
    "advanced_cache.py": "torch, transformers, numpy, soundfile",
}
COMPONENTS = {
    f"{ROOT}/scripts/transcribe_optimized.py": "755 root:root",
    f"{ROOT}/scripts/api_server.py": "755 root:root",
    f"{ROOT}/advanced_cache.py": "755 root:root",
    f"{ROOT}/config/transcribe.json": "640 root:transcribe",
    f"{ROOT}/cache/cache_info.json": "644 transcribe:transcribe",
    "/etc/systemd/system/transcribe-api.service": "644 root:root",
    "/etc/systemd/system/transcribe-worker.service": "644 root:root",
}


@pytest.mark.parametrize("path", COMPONENTS)
def test_component_is_in_its_place(machine: BakedMachine, path: str) -> None:
    assert machine.run("stat", "--format=%a %U:%G", path).stdout.strip() == COMPONENTS[path]


def test_directories(machine: BakedMachine) -> None:
    for name in ("venv", "models", "cache", "scripts", "config", "temp", "logs", "results"):
        assert machine.run("stat", "--format=%F", f"{ROOT}/{name}").stdout.strip() == "directory"


@pytest.mark.parametrize("program", IMPORTS)
def test_imports_are_satisfied(machine: BakedMachine, program: str) -> None:
    machine.run(f"{ROOT}/venv/bin/python", "-c", f"import {IMPORTS[program]}")


def test_seed_models_are_importable(machine: BakedMachine) -> None:
    code = "from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor, pipeline"
    machine.run(f"{ROOT}/venv/bin/python", "-c", code)


def test_service_starts_the_program_of_the_seed(machine: BakedMachine) -> None:
    line = machine.sh("grep ^ExecStart= /etc/systemd/system/transcribe-api.service").strip()
    assert line == f"ExecStart={ROOT}/venv/bin/python {ROOT}/scripts/api_server.py"
    for unit in ("transcribe-api", "transcribe-worker"):
        assert machine.property(unit, "UnitFileState") == "enabled"
        assert machine.property(unit, "ActiveState") == "active"


def test_cache_info_is_what_its_readers_expect(machine: BakedMachine) -> None:
    told = json.loads(machine.run("cat", f"{ROOT}/cache/cache_info.json").stdout)
    config = json.loads(machine.run("cat", f"{ROOT}/config/transcribe.json").stdout)
    assert told["model_id"] == config["model"]["id"]
    assert told["cache_dir"] == f"{ROOT}/models"
    assert told["device"] in ("cpu", "cuda")
    assert told["torch_dtype"].startswith("torch.")
    assert isinstance(told["kernels_compiled"], bool)
    written = datetime.fromisoformat(told["timestamp"])  # the seed's fallback wrote "$(date -Iseconds)" here
    assert written.tzinfo is not None


def test_cache_info_is_valid_when_the_warm_up_fails(machine: BakedMachine) -> None:
    """The seed's critical fault: its fallback file was no JSON."""
    engine = f"{ROOT}/scripts/transcribe/model_cache/warmup.py"
    machine.sh(f"cp {engine} /run/warmup.py; echo 'raise SystemExit(\"no kernel\")' >{engine}")
    machine.sh(f"rm {ROOT}/cache/cache_info.json")
    try:
        machine.run(f"{ROOT}/venv/bin/python", f"{ROOT}/advanced_cache.py")
        told = json.loads(machine.run("cat", f"{ROOT}/cache/cache_info.json").stdout)
        assert told["kernels_compiled"] is False
        assert "no kernel" in told["warmup_error"]
        assert datetime.fromisoformat(told["timestamp"]).tzinfo is not None
        machine.run(f"{ROOT}/venv/bin/python", f"{ROOT}/advanced_cache.py", "--check")
    finally:
        machine.run("cp", "/run/warmup.py", engine)
        machine.apply()


def test_health_names_the_device_and_torch(machine: BakedMachine) -> None:
    told = json.loads(machine.run("curl", "--silent", "--fail", "localhost:8000/health").stdout)
    assert "torch" in json.dumps(told)
    assert "cpu" in json.dumps(told) or "cuda" in json.dumps(told)


def test_program_transcribes_a_file_into_results(machine: BakedMachine) -> None:
    script = (
        f"cd /tmp && setpriv --reuid=transcribe --regid=transcribe --clear-groups {ROOT}/venv/bin/python"
        f" {ROOT}/scripts/transcribe_optimized.py /srv/transcribe/service/clips/verify.flac --language en"
    )
    assert "Dashwood" in machine.sh(script)
    assert machine.sh(f"ls {ROOT}/results/*.txt").strip()


def test_clip_through_http(machine: BakedMachine) -> None:
    assert "Dashwood" in machine.transcribe(TREE / "service/clips/verify.flac")
