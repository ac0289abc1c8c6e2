"""What the states ask about this machine: its hardware, and whether it does what it was built for."""

import grp
import json
import os
import platform
import pwd
import subprocess
from collections.abc import Callable
from difflib import SequenceMatcher
from pathlib import Path
from stat import S_IMODE
from typing import Any

SERVICE = Path(__file__).parents[3] / "service"
GPU = Path("/dev/nvidia0")
DRIVERS = ("linux-image-", "linux-headers-", "linux-modules-", "linux-aws", "nvidia-", "libnvidia-", "cuda-drivers")
UNITS = ("transcribe-api.service", "transcribe-worker.service")
SEED_KEYS = ("model_id", "cache_dir", "device", "torch_dtype", "kernels_compiled", "timestamp")
Check = dict[str, str]

__salt__: dict[str, Any]
__pillar__: dict[str, Any]


class WrongError(Exception):
    """A check that did not pass; the message is its detail."""


def gpu() -> bool:
    """Whether an NVIDIA GPU is here and its driver is loaded."""
    return GPU.exists()


def lock() -> str:
    """The lock that the virtual environment follows.

    `auto` is decided once, by the GPU, and then kept: an image baked for CUDA stays so on a machine without a GPU.
    """
    pillar = __pillar__["transcribe"]
    chosen: str = pillar["install"]["lock"]
    if chosen != "auto":
        return f"{chosen}.lock"
    try:
        noted: list[str] = json.loads(Path(pillar["root"], "venv/locks.json").read_text())
    except (OSError, ValueError):
        noted = []
    return next((name for name in noted if name in ("cpu.lock", "cuda.lock")), "cuda.lock" if gpu() else "cpu.lock")


def drivers() -> list[str]:
    """The installed kernel and driver packages: they fit each other now, and no upgrade may change that."""
    return sorted(name for name in __salt__["pkg.list_pkgs"]() if name.startswith(DRIVERS))


def verify(*, clip: bool = True) -> dict[str, Any]:
    """Check the machine: with `clip` also every byte of the model, and a recording sent through HTTP.

    Returns `checks` (name, verdict and detail of each), what was heard of the `clip` or None, and `facts`.
    """
    pillar = __pillar__["transcribe"]
    heard: dict[str, Any] = {}
    looks: list[tuple[str, Callable[[], str]]] = [
        *((f"component {path}", lambda owned=owned: _owned(*owned)) for path, owned in _components(pillar).items()),
        *((f"folder {path}", lambda owned=owned: _owned(*owned)) for path, owned in _folders(pillar).items()),
        *((f"unit {unit}", lambda unit=unit: _unit(unit)) for unit in UNITS),
        ("cache", lambda: _cache(pillar["root"], full=clip)),
        ("cache_info.json", lambda: _cache_info(pillar)),
        ("health", lambda: _answers("/health")),
        ("ready", lambda: _answers("/ready")),
    ]
    if clip:
        looks.append(("clip", lambda: _clip(pillar, heard)))
    return {"checks": [_check(name, look) for name, look in looks], "clip": heard or None, "facts": _facts(pillar)}


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return {"name": name, "verdict": "pass", "detail": look()}
    except WrongError as problem:
        return {"name": name, "verdict": "fail", "detail": str(problem)}
    except (OSError, ValueError, KeyError) as problem:
        return {"name": name, "verdict": "fail", "detail": f"{type(problem).__name__}: {problem}"}


def _components(pillar: dict[str, Any]) -> dict[str, tuple[Path, str, str, int]]:
    """Every file that must be there: its path, owner, group and mode, by its name."""
    root, group = Path(pillar["root"]), pillar["group"]
    programs = ("scripts/transcribe_optimized.py", "scripts/api_server.py", "advanced_cache.py")
    return {
        **{name: (root / name, "root", "root", 0o755) for name in programs},
        "scripts/transcribe/__init__.py": (root / "scripts/transcribe/__init__.py", "root", "root", 0o644),
        "config/transcribe.json": (root / "config/transcribe.json", "root", group, 0o640),
        "cache/cache_info.json": (root / "cache/cache_info.json", pillar["user"], group, 0o644),
        **{unit: (Path("/etc/systemd/system", unit), "root", "root", 0o644) for unit in UNITS},
        "salt minion": (Path("/etc/salt/minion"), "root", "root", 0o644),
    }


def _folders(pillar: dict[str, Any]) -> dict[str, tuple[Path, str, str, int]]:
    """The folders below the root: what the service may write to is its own, the rest is root's."""
    root, user, group = Path(pillar["root"]), pillar["user"], pillar["group"]
    return {
        "config": (root / "config", "root", group, 0o750),
        **{name: (root / name, "root", "root", 0o755) for name in ("venv", "models", "scripts")},
        **{name: (root / name, user, group, 0o750) for name in ("cache", "temp", "logs", "results")},
    }


def _owned(path: Path, user: str, group: str, mode: int) -> str:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise WrongError(f"{path} is missing") from None
    is_ = f"{pwd.getpwuid(found.st_uid).pw_name}:{grp.getgrgid(found.st_gid).gr_name} {S_IMODE(found.st_mode):04o}"
    if is_ != (wanted := f"{user}:{group} {mode:04o}"):
        raise WrongError(f"{path} is {is_} instead of {wanted}")
    return is_


def _unit(unit: str) -> str:
    command = ["systemctl", "show", unit, "--property=UnitFileState,ActiveState,SubState", "--value"]
    states = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    if sorted(states) != ["active", "enabled", "running"]:
        raise WrongError(f"{unit} is {', '.join(states)}; see journalctl --unit {unit}")
    return "enabled, active, running"


def _cache(root: str, *, full: bool) -> str:
    """The program's own opinion, which costs no import of torch: of every byte if `full`, otherwise of the sizes."""
    command = [f"{root}/venv/bin/python", f"{root}/advanced_cache.py", "--check", *([] if full else ["--quick"])]
    environment = {**os.environ, "TRANSCRIBE_CONFIG": f"{root}/config/transcribe.json", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise WrongError((done.stderr.splitlines() or [f"exit code {done.returncode}"])[-1])
    return done.stdout.strip()


def _cache_info(pillar: dict[str, Any]) -> str:
    told = _info(pillar)
    lacking = [key for key in SEED_KEYS if key not in told]
    if lacking:
        raise WrongError(f"cache_info.json lacks {', '.join(lacking)}")
    for key, wanted in (("model_id", pillar["model"]["id"]), ("model_revision", pillar["model"]["revision"])):
        if told.get(key) != wanted:
            raise WrongError(f"cache_info.json says {key} {told.get(key)}, the pillar says {wanted}")
    return f"written {told['timestamp']}"


def _info(pillar: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(Path(pillar["root"], "cache/cache_info.json").read_text())
    return told


def _answers(path: str) -> str:
    answer = __salt__["transcribe_http.get"](path)
    if answer["status"] != 200:
        raise WrongError(f"{path} answers {answer['status']}: {' '.join(answer['body'].split())[:200]}")
    return " ".join(answer["body"].split())[:300]


def _clip(pillar: dict[str, Any], heard: dict[str, Any]) -> str:
    """What share of the reference's words was heard, in order; the launcher measures the word error rate itself."""
    wanted = pillar["verify"]
    answer = __salt__["transcribe_http.transcribe"](str(SERVICE / "clips" / wanted["clip"]), wanted["language"])
    if "error" in answer:
        raise WrongError(answer["error"])
    heard.update(answer)
    reference = _words((SERVICE / "clips" / wanted["reference"]).read_text())
    matching = SequenceMatcher(None, reference, _words(answer["text"]), autojunk=False).get_matching_blocks()
    missed = 1 - sum(block.size for block in matching) / max(len(reference), 1)
    if missed > wanted["max_word_error_rate"]:
        raise WrongError(f"{missed:.0%} of the words were not heard: {answer['text'][:200]!r}")
    return f"{answer['audio_seconds']} s in {answer['seconds']} s, {missed:.0%} of the words missed"


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() or c == "'" else " " for c in text.lower()).split()


def _facts(pillar: dict[str, Any]) -> dict[str, Any]:
    """What this machine is made of; a fact that cannot be had is None."""
    try:
        told = _info(pillar)
    except (OSError, ValueError):
        told = {}
    versions = told.get("versions", {})
    disk = os.statvfs("/")
    return {
        "model_id": told.get("model_id"),
        "model_revision": told.get("model_revision"),
        "device": told.get("device"),
        "torch": versions.get("torch"),
        "transformers": versions.get("transformers"),
        "salt": __salt__["test.version"](),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "root_bytes": (disk.f_blocks - disk.f_bfree) * disk.f_frsize,
    }
