"""The GPU: the PCI bus decides what is right, and what is wrong is one line."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.salt_states import PILLAR, STATES, Salt, load

PROGRAM = STATES / "transcribe/files/prepare-gpu.sh"
T4 = ("0x10de", "0x030200")
STEPS = {"wanted": True, "recorded": 120, "plain": 0, "sampled": 4, "failed_captures": 0, "failure": ""}
CARD = {"name": "Tesla T4", "driver": "595.1", "compute_capability": "7.5", "memory_bytes": 1}
HEALTH: dict[str, Any] = {
    "device": "cuda",
    "dtype": "torch.float16",
    "gpu": CARD,
    "engine": {"precision": {"encoder": "float16", "decoder": "float16"}, "rows": 16, "steps": STEPS},
}
NO_MODULE = "has no nvidia module"


@pytest.fixture
def bus(tmp_path: Path) -> Path:
    """A PCI bus with an Ethernet card, and the sound device of an NVIDIA card."""
    pci = tmp_path / "pci"
    plug(pci, "0000:00:05.0", "0x1d0f", "0x020000")
    plug(pci, "0000:00:1f.1", "0x10de", "0x040300")
    return pci


def plug(pci: Path, address: str, vendor: str, kind: str) -> None:
    (pci / address).mkdir(parents=True)
    (pci / address / "vendor").write_text(f"{vendor}\n")
    (pci / address / "class").write_text(f"{kind}\n")


def tools(folder: Path, **scripts: str) -> str:
    """A PATH with these programs before the system's, all of them noted in `folder`/log."""
    folder.mkdir(exist_ok=True)
    absent = dict.fromkeys(("modinfo", "modprobe", "nvidia-modprobe", "nvidia-smi"), "exit 1")
    for name, script in {**absent, **{name.replace("_", "-"): text for name, text in scripts.items()}}.items():
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{folder}/log\n{script}\n')
        (folder / name).chmod(0o755)
    (folder / "sleep").write_text("#!/bin/sh\n")
    (folder / "sleep").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.fixture
def prepare(tmp_path: Path, bus: Path) -> Callable[..., tuple[int, str]]:
    """Runs the unit's program with these tools; returns its exit code and its last line."""
    (tmp_path / "dev").mkdir()

    def run(wanted: str = "auto", **scripts: str) -> tuple[int, str]:
        path = tools(
            tmp_path / "bin", **{name: text.replace("DEV", f"{tmp_path}/dev") for name, text in scripts.items()}
        )
        done = subprocess.run(
            [str(PROGRAM), wanted, str(bus), f"{tmp_path}/dev"],
            env={"PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, (done.stdout + done.stderr).splitlines()[-1]

    return run


def test_without_a_gpu_nothing_is_needed(prepare: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    assert prepare() == (0, "transcribe-gpu: no NVIDIA device on the PCI bus")
    assert not (tmp_path / "bin/log").exists()


def test_the_driver_is_loaded_and_its_nodes_are_made(
    prepare: Callable[..., tuple[int, str]], bus: Path, tmp_path: Path
) -> None:
    """None of the nodes is there at boot: one tool makes the card's, another that of the unified memory."""
    plug(bus, "0000:00:1e.0", *T4)
    done = prepare(modinfo="", modprobe="", nvidia_modprobe="touch DEV/nvidia-uvm", nvidia_smi="touch DEV/nvidia0")
    assert done == (0, "transcribe-gpu: ready")
    log = (tmp_path / "bin/log").read_text()
    for call in (
        "modprobe nvidia-uvm\n",
        "nvidia-modprobe -u -c 0\n",
        "--persistence-mode=1",
        "--applications-clocks=",
    ):
        assert call in log


@pytest.mark.parametrize(
    ("scripts", "reason"),
    [
        ({}, NO_MODULE),
        ({"modinfo": "", "nvidia_modprobe": "touch DEV/nvidia-uvm"}, "there is no "),
        ({"modinfo": "", "nvidia_smi": "echo No devices were found; exit 6"}, "there is no "),
        ({"modinfo": "", "nvidia_smi": "touch DEV/nvidia0"}, "/nvidia-uvm"),
        (
            {"modinfo": "", "nvidia_smi": "touch DEV/nvidia0 DEV/nvidia-uvm; exit 9"},
            "nvidia-smi cannot reach the driver; see nvidia-smi",
        ),
    ],
)
def test_a_gpu_that_cannot_be_used_is_a_failure_that_says_why(
    prepare: Callable[..., tuple[int, str]], bus: Path, scripts: dict[str, str], reason: str
) -> None:
    plug(bus, "0000:00:1e.0", *T4)
    code, said = prepare(**scripts)
    assert code == 1
    assert said.startswith("transcribe-gpu: ")
    assert reason in said


def test_who_wants_the_processor_needs_no_driver(prepare: Callable[..., tuple[int, str]], bus: Path) -> None:
    plug(bus, "0000:00:1e.0", *T4)
    assert prepare("cpu") == (0, "transcribe-gpu: the configuration wants the processor")


def gpu(
    bus: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    device: str = "auto",
    health: Any = HEALTH,
    holds: tuple[str, ...] = (),
) -> ModuleType:
    """The module, on a machine with this bus whose worker says this."""
    answer = {"status": 200, "body": json.dumps(health)} if health else {"status": 0, "body": "no connection"}
    salt: Salt = {
        "transcribe_http.get": lambda path: answer,
        "pkg.list_pkgs": lambda: dict.fromkeys(("linux-image-6.1", "nvidia-driver-535", "linux-base", "ffmpeg"), "1"),
        "pkg.get_selections": lambda state: {"hold": list(holds)} if holds else {},
    }
    pillar = {"transcribe": {**PILLAR["transcribe"], "device": device}}
    module = load("_modules/transcribe_gpu.py", salt=salt, pillar=pillar)
    rules = module._rules()
    rules.PCI = bus
    monkeypatch.setattr(module, "_rules", lambda: rules)
    return module


def test_the_bus_decides_what_is_wanted_and_only_the_pillar_wants_otherwise(
    bus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not gpu(bus, monkeypatch).wanted()
    plug(bus, "0000:00:1e.0", *T4)
    assert gpu(bus, monkeypatch).wanted()
    assert not gpu(bus, monkeypatch, device="cpu").wanted()


@pytest.mark.parametrize(
    ("there", "device", "health", "problem"),
    [
        (False, "auto", {"device": "cpu"}, ""),
        (True, "cpu", {"device": "cpu"}, ""),
        (True, "auto", HEALTH, ""),
        (True, "auto", {"device": "cpu"}, "(0000:00:1e.0) but the worker runs on cpu"),
        (True, "cuda", {"device": "cpu"}, "(0000:00:1e.0) but the worker runs on cpu"),
        (True, "auto", {"device": None}, "(0000:00:1e.0) but the worker runs on nothing yet"),
        (True, "auto", None, "(0000:00:1e.0) but the worker runs on nothing yet"),
    ],
)
def test_a_gpu_that_the_worker_does_not_use_is_a_failed_check(
    bus: Path, monkeypatch: pytest.MonkeyPatch, there: bool, device: str, health: Any, problem: str
) -> None:
    if there:
        plug(bus, "0000:00:1e.0", *T4)
    answer = gpu(bus, monkeypatch, device=device, health=health).worker()
    assert problem in answer["problem"]
    assert bool(answer["problem"]) is bool(problem)
    if health is HEALTH:
        assert answer["detail"] == "Tesla T4, driver 595.1"


@pytest.mark.parametrize(
    ("scripts", "holds", "problem"),
    [
        ({}, (), NO_MODULE),
        (
            {"modinfo": ""},
            ("linux-image-6.1",),
            "apt could replace the driver or the kernel: nvidia-driver-535 not held",
        ),
        (
            {"modinfo": "", "systemctl": "exit 3", "journalctl": "echo transcribe-gpu: there is no /dev/nvidia-uvm"},
            ("linux-image-6.1", "nvidia-driver-535"),
            "there is no /dev/nvidia-uvm",
        ),
        ({"modinfo": "", "systemctl": ""}, ("linux-image-6.1", "nvidia-driver-535"), ""),
    ],
)
def test_the_driver_is_of_this_kernel_and_stays(
    bus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scripts: dict[str, str],
    holds: tuple[str, ...],
    problem: str,
) -> None:
    plug(bus, "0000:00:1e.0", *T4)
    monkeypatch.setenv("PATH", tools(tmp_path / "bin", **scripts))
    answer = gpu(bus, monkeypatch, holds=holds).driver()
    assert problem in answer["problem"]
    assert bool(answer["problem"]) is bool(problem)
    assert gpu(bus, monkeypatch, device="cpu").driver()["problem"] == ""


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, ""),
        ({"wanted": False, "recorded": 0, "plain": 200}, ""),
        (
            {"wanted": False, "recorded": 0, "trial_error": "out of memory"},
            "the warm-up could not try recorded steps: out of memory",
        ),
        ({"plain": 3, "failed_captures": 1, "failure": "once"}, ""),
        (
            {"recorded": 8, "plain": 112, "failed_captures": 3, "failure": "assert"},
            "8 recorded, 112 plain, 3 recordings",
        ),
        ({"recorded": 0}, "they are not in use"),
    ],
)
def test_recorded_steps_that_are_not_in_use_are_a_failed_check(
    bus: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], problem: str
) -> None:
    health = {**HEALTH, "engine": {**HEALTH["engine"], "steps": {**STEPS, **changes}}}
    answer = gpu(bus, monkeypatch, health=health).steps()
    assert problem in answer["problem"]
    assert bool(answer["problem"]) is bool(problem)


def test_the_facts_are_the_workers(bus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = gpu(bus, monkeypatch).facts()
    assert (found["device"], found["gpu"], found["gpu_driver"]) == ("cuda", "Tesla T4", "595.1")
    assert (found["compute_capability"], found["precision"], found["rows"]) == ("7.5", "float16", 16)
    assert (found["recorded_steps"], found["plain_steps"], found["failed_captures"]) == (120, 0, 0)
    assert set(gpu(bus, monkeypatch, health=None).facts().values()) == {None}


def test_drivers_are_kernel_and_gpu_packages(bus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu(bus, monkeypatch).drivers() == ["linux-image-6.1", "nvidia-driver-535"]


@pytest.mark.parametrize(("active", "problem", "result"), [(True, "", True), (False, "", True), (False, "no", False)])
def test_the_state_prepares_what_is_not_prepared(active: bool, problem: str, result: bool) -> None:
    calls: list[str] = []

    def prepare() -> str:
        calls.append("prepare")
        return problem

    salt = {"transcribe_gpu.active": lambda: active, "transcribe_gpu.prepare": prepare}
    state = load("_states/transcribe_gpu.py", salt=salt)
    answer = state.prepared("x")
    assert answer["result"] is result
    assert bool(answer["changes"]) is (result and not active)
    assert calls == ([] if active else ["prepare"])
    assert problem in answer["comment"]
    assert state.mod_watch("x", sfun="prepared")["result"] is not bool(problem)
    dry = load("_states/transcribe_gpu.py", salt=salt, test=True).prepared("x")
    assert dry["result"] is (True if active else None)


def test_what_the_unit_said_last_is_why_it_failed(bus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails = 'case "$*" in *restart*) exit 1 ;; esac'
    said = "echo systemd: starting; echo transcribe-gpu: one; echo transcribe-gpu: there is no /dev/nvidia0; echo end"
    monkeypatch.setenv("PATH", tools(tmp_path / "bin", systemctl=fails, journalctl=said))
    assert gpu(bus, monkeypatch).prepare() == "there is no /dev/nvidia0"
    monkeypatch.setenv("PATH", tools(tmp_path / "bin", systemctl=fails, journalctl=""))
    assert (
        gpu(bus, monkeypatch).prepare() == "transcribe-gpu.service failed; see journalctl --unit transcribe-gpu.service"
    )
    monkeypatch.setenv("PATH", tools(tmp_path / "bin", systemctl=""))
    assert gpu(bus, monkeypatch).prepare() == ""
    assert (tmp_path / "bin/log").read_text().count("systemctl daemon-reload\n") == 3
