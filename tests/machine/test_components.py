"""What users of this machine rely on: programs, folders, packages, units, cache_info.json and a transcript."""

import json
from datetime import datetime

import pytest
from support.baked_machine import ROOT, BakedMachine

HOME = "/opt/transcribe"
IMPORTS = {
    "transcribe_optimized.py": "sys, os, time, torch, warnings, json, datetime, transformers",
    "api_server.py": "flask, werkzeug, waitress, subprocess, glob, torch",
    "advanced_cache.py": "torch, transformers, numpy, soundfile",
}
COMPONENTS = {
    f"{HOME}/scripts/transcribe_optimized.py": "755 root:root",
    f"{HOME}/scripts/api_server.py": "755 root:root",
    f"{HOME}/advanced_cache.py": "755 root:root",
    f"{HOME}/config/transcribe.json": "640 root:transcribe",
    f"{HOME}/cache/cache_info.json": "644 root:root",
    "/etc/systemd/system/transcribe-api.service": "644 root:root",
    "/etc/systemd/system/transcribe-worker.service": "644 root:root",
}


@pytest.mark.parametrize("path", COMPONENTS)
def test_component_is_in_its_place(machine: BakedMachine, path: str) -> None:
    assert machine.run("stat", "--format=%a %U:%G", path).stdout.strip() == COMPONENTS[path]


def test_directories(machine: BakedMachine) -> None:
    for name in ("venv", "models", "cache", "scripts", "config", "temp", "logs", "results"):
        assert machine.run("stat", "--format=%F", f"{HOME}/{name}").stdout.strip() == "directory"


@pytest.mark.parametrize("program", IMPORTS)
def test_imports_are_satisfied(machine: BakedMachine, program: str) -> None:
    machine.run(f"{HOME}/venv/bin/python", "-c", f"import {IMPORTS[program]}")


def test_transformers_models_are_importable(machine: BakedMachine) -> None:
    code = "from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor, pipeline"
    machine.run(f"{HOME}/venv/bin/python", "-c", code)


def test_units_start_the_programs(machine: BakedMachine) -> None:
    line = machine.sh("grep ^ExecStart= /etc/systemd/system/transcribe-api.service").strip()
    assert line == f"ExecStart={HOME}/venv/bin/python {HOME}/scripts/api_server.py"
    for unit in ("transcribe-api", "transcribe-worker"):
        assert machine.property(unit, "UnitFileState") == "enabled"
        assert machine.property(unit, "ActiveState") == "active"


def test_cache_info_is_what_its_readers_expect(machine: BakedMachine) -> None:
    info = json.loads(machine.run("cat", f"{HOME}/cache/cache_info.json").stdout)
    config = json.loads(machine.run("cat", f"{HOME}/config/transcribe.json").stdout)
    assert info["model_id"] == config["model"]["id"]
    assert info["cache_dir"] == f"{HOME}/models"
    assert info["device"] in ("cpu", "cuda")
    assert info["torch_dtype"].startswith("torch.")
    assert isinstance(info["kernels_compiled"], bool)
    written = datetime.fromisoformat(info["timestamp"])
    assert written.tzinfo is not None


def test_cache_info_is_valid_when_the_warm_up_fails(machine: BakedMachine) -> None:
    engine = f"{HOME}/scripts/transcribe/model_cache/warmup.py"
    machine.sh(f"cp {engine} /run/warmup.py; echo 'raise SystemExit(\"no kernel\")' >{engine}")
    machine.sh(f"rm {HOME}/cache/cache_info.json")
    try:
        machine.run(f"{HOME}/venv/bin/python", f"{HOME}/advanced_cache.py")
        info = json.loads(machine.run("cat", f"{HOME}/cache/cache_info.json").stdout)
        assert info["kernels_compiled"] is False
        assert "no kernel" in info["warmup_error"]
        assert datetime.fromisoformat(info["timestamp"]).tzinfo is not None
        machine.run(f"{HOME}/venv/bin/python", f"{HOME}/advanced_cache.py", "--check")
    finally:
        machine.run("cp", "/run/warmup.py", engine)
        machine.apply()


def test_health_names_the_device_and_torch(machine: BakedMachine) -> None:
    info = json.loads(machine.run("curl", "--silent", "--fail", "localhost:8000/health").stdout)
    assert "torch" in json.dumps(info)
    assert "cpu" in json.dumps(info) or "cuda" in json.dumps(info)


def test_program_transcribes_a_file_into_results(machine: BakedMachine) -> None:
    script = (
        f"cd /tmp && setpriv --reuid=transcribe --regid=transcribe --clear-groups {HOME}/venv/bin/python"
        f" {HOME}/scripts/transcribe_optimized.py /srv/transcribe/service/clips/verify.flac --language en"
    )
    assert "Dashwood" in machine.sh(script)
    assert machine.sh(f"ls {HOME}/results/*.txt").strip()


def test_clip_through_http(machine: BakedMachine) -> None:
    assert "Dashwood" in machine.transcribe(ROOT / "service/clips/verify.flac")
