"""This machine's NVIDIA GPU: what the PCI bus, the kernel and the worker say of it.

The bus decides what is right. The nodes in /dev do not: they may come long after the boot, or never.
"""

import importlib.util
import json
import platform
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

SERVICE = Path(__file__).parents[3] / "service"
UNIT = "transcribe-gpu.service"
SAYS = "transcribe-gpu: "  # how the lines of the unit's program begin
DRIVERS = (
    *("linux-image-", "linux-headers-", "linux-modules-", "linux-aws"),
    *("nvidia-", "libnvidia-", "libcuda1", "cuda-drivers", "firmware-nvidia-"),
)
RECORDED = 0.9  # share of the greedy steps; those around a recording that failed once and then worked are plain
Answer = dict[str, str]

__salt__: dict[str, Any]
__pillar__: dict[str, Any]


def drivers() -> list[str]:
    """The installed kernel and NVIDIA driver packages, held because they only work together in these versions."""
    return sorted(name for name in __salt__["pkg.list_pkgs"]() if name.startswith(DRIVERS))


def wanted() -> bool:
    """Whether there is an NVIDIA GPU on the PCI bus, and the pillar does not say `device: cpu`."""
    return __pillar__["transcribe"]["device"] != "cpu" and bool(_rules().devices())


def active() -> bool:
    """Whether the unit that prepares the GPU has done so since the boot."""
    return subprocess.run(["systemctl", "is-active", "--quiet", UNIT], check=False).returncode == 0


def prepare() -> str:
    """Load the driver and make its device nodes, now and as at every boot. Returns why that failed, or ''."""
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    if subprocess.run(["systemctl", "restart", UNIT], check=False, capture_output=True).returncode == 0:
        return ""
    return _last_words()


def driver() -> Answer:
    """Whether the running kernel has the driver, nothing can replace it, and the GPU was prepared for the worker."""
    if not wanted():
        return _good("no NVIDIA device is to be used")
    kernel = platform.release()
    found = subprocess.run(["modinfo", "-k", kernel, "nvidia"], check=False, capture_output=True)
    if found.returncode != 0:
        return _bad(f"the kernel {kernel} has no nvidia module: the driver was built for another, or is not installed")
    held = __salt__["pkg.get_selections"](state="hold").get("hold", [])
    if loose := [name for name in drivers() if name not in held]:
        return _bad(f"apt could replace the driver or the kernel: {', '.join(loose)} not held; apply the states")
    return _good(f"kernel {kernel}, driver and kernel held") if active() else _bad(_last_words())


def worker() -> Answer:
    """Whether the worker runs on the GPU that is there, in its own words."""
    present = _rules().devices()
    if not present:
        return _good("no NVIDIA device on the PCI bus")
    health = _health()
    device = __pillar__["transcribe"]["device"]
    if problem := _rules().unused(present, wanted=device, used=health.get("device")):
        return _bad(problem)
    card = health.get("gpu") or {}
    return _good(f"{card.get('name')}, driver {card.get('driver')}" if card else f"not wanted: device is {device}")


def steps() -> Answer:
    """Whether the decoder's steps are recorded, where the trial at warm-up found that to be faster."""
    found = (_health().get("engine") or {}).get("steps") or {}
    if error := found.get("trial_error"):
        return _bad(f"the warm-up could not try recorded steps: {error}")
    if not found.get("wanted"):
        return _good("not chosen by the warm-up")
    recorded, plain, failed = found["recorded"], found["plain"], found["failed_captures"]
    counted = f"{recorded} recorded, {plain} plain, {failed} recordings failed"
    if recorded < max(1.0, RECORDED * (recorded + plain)):
        return _bad(f"the warm-up chose recorded steps, but they are not in use: {counted} ({found['failure']})")
    return _good(counted)


def facts() -> dict[str, Any]:
    """What the worker says of itself, for the report; what it does not say is None."""
    health = _health()
    card, engine = health.get("gpu") or {}, health.get("engine") or {}
    steps = engine.get("steps") or {}
    return {
        "device": health.get("device"),
        "gpu": card.get("name"),
        "gpu_driver": card.get("driver"),
        "compute_capability": card.get("compute_capability"),
        "dtype": health.get("dtype"),
        "precision": "/".join(dict.fromkeys(engine.get("precision", {}).values())) or None,
        "rows": engine.get("rows"),
        **{f"{name}_steps": steps.get(name) for name in ("recorded", "plain", "sampled")},
        "failed_captures": steps.get("failed_captures"),
    }


def _health() -> dict[str, Any]:
    answer = __salt__["transcribe_http.get"]("/health")
    try:
        found: dict[str, Any] = json.loads(answer["body"]) if answer["status"] == 200 else {}
    except ValueError:
        return {}
    return found


def _last_words() -> str:
    command = ["journalctl", "--unit", UNIT, "--output=cat", "--no-pager", "--lines=20"]
    said = subprocess.run(command, check=False, capture_output=True, text=True).stdout.splitlines()
    own = [line.removeprefix(SAYS) for line in said if line.startswith(SAYS)]
    return own[-1] if own else f"{UNIT} failed; see journalctl --unit {UNIT}"


def _rules() -> ModuleType:
    """The service's own view of the hardware, so that there is one of it."""
    spec = importlib.util.spec_from_file_location("transcribe_hardware", SERVICE / "transcribe/gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _good(detail: str) -> Answer:
    return {"problem": "", "detail": detail}


def _bad(problem: str) -> Answer:
    return {"problem": problem, "detail": ""}
