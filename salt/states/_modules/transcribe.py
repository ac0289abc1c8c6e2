"""Facts about this machine that the states need: its hardware, its lock, and whether the service works."""

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
UNITS = ("transcribe-api.service", "transcribe-worker.service")
FEEDER_UNIT = "transcribe-feeder.service"  # on machines of a fleet
GPU_UNIT = "transcribe-gpu.service"  # which has done its work once the GPU is prepared
GPU_CHECKS = {"gpu driver": "driver", "gpu": "worker", "recorded steps": "steps"}  # name: function of transcribe_gpu
CACHE_INFO_KEYS = ("model_id", "cache_dir", "device", "torch_dtype", "kernels_compiled", "timestamp")
Check = dict[str, str]

__salt__: dict[str, Any]
__pillar__: dict[str, Any]


class CheckError(Exception):
    """A check did not pass; the message is its detail."""


def lock() -> str:
    """The lock that the virtual environment follows.

    `auto` is decided once, by the PCI bus, and then kept: an image baked for CUDA stays so on a machine without a GPU.
    """
    pillar = __pillar__["transcribe"]
    chosen: str = pillar["install"]["lock"]
    if chosen != "auto":
        return f"{chosen}.lock"
    try:
        noted: list[str] = json.loads(Path(pillar["root"], "venv/locks.json").read_text())
    except (OSError, ValueError):
        noted = []
    decided = next((name for name in noted if name in ("cpu.lock", "cuda.lock")), "")
    return decided or ("cuda.lock" if __salt__["transcribe_gpu.wanted"]() else "cpu.lock")


def verify(*, clip: bool = True) -> dict[str, Any]:
    """Check the machine: with `clip` also every byte of the model, and a recording sent through HTTP.

    Returns `checks` (name, verdict and detail of each), the transcript of the `clip` or None, and `facts`.
    """
    pillar = __pillar__["transcribe"]
    transcript: dict[str, Any] = {}
    checks: list[tuple[str, Callable[[], str]]] = [
        *((f"component {path}", lambda owned=owned: _owned(*owned)) for path, owned in _components(pillar).items()),
        *((f"folder {path}", lambda owned=owned: _owned(*owned)) for path, owned in _folders(pillar).items()),
        *((f"unit {unit}", lambda unit=unit: _unit(unit)) for unit in _units(pillar)),
        *((name, lambda what=what: _gpu(what)) for name, what in GPU_CHECKS.items()),
        ("cache", lambda: _cache(pillar["root"], full=clip)),
        ("cache_info.json", lambda: _cache_info(pillar)),
        ("health", lambda: _responds("/health")),
        ("ready", lambda: _responds("/ready")),
    ]
    if clip:
        checks.append(("clip", lambda: _clip(pillar, transcript)))
    results = [_run(name, check) for name, check in checks]
    return {"checks": results, "clip": transcript or None, "facts": _facts(pillar)}


def _run(name: str, check: Callable[[], str]) -> Check:
    try:
        return {"name": name, "verdict": "pass", "detail": check()}
    except CheckError as problem:
        return {"name": name, "verdict": "fail", "detail": str(problem)}
    except (OSError, ValueError, KeyError) as problem:
        return {"name": name, "verdict": "fail", "detail": f"{type(problem).__name__}: {problem}"}


def _components(pillar: dict[str, Any]) -> dict[str, tuple[Path, str, str, int]]:
    """Every file that must be there: its path, owner, group and mode, by its name."""
    root, group = Path(pillar["root"]), pillar["group"]
    programs = (
        "scripts/transcribe_optimized.py",
        "scripts/api_server.py",
        "scripts/fleet_feeder.py",
        "scripts/prepare-gpu.sh",
        "advanced_cache.py",
    )
    return {
        **{name: (root / name, "root", "root", 0o755) for name in programs},
        "scripts/transcribe/__init__.py": (root / "scripts/transcribe/__init__.py", "root", "root", 0o644),
        "config/transcribe.json": (root / "config/transcribe.json", "root", group, 0o640),
        "cache/cache_info.json": (root / "cache/cache_info.json", "root", "root", 0o644),
        **{unit: (Path("/etc/systemd/system", unit), "root", "root", 0o644) for unit in (*_units(pillar), GPU_UNIT)},
        "salt minion": (Path("/etc/salt/minion"), "root", "root", 0o644),
    }


def _folders(pillar: dict[str, Any]) -> dict[str, tuple[Path, str, str, int]]:
    """The folders below the root: what the service may write to is its own, the rest is root's."""
    root, user, group = Path(pillar["root"]), pillar["user"], pillar["group"]
    shared = 0o770 if pillar["fleet"]["queue"] else 0o750  # with the feeder, by the group
    return {
        **{name: (root / name, "root", group, 0o750) for name in ("config", "cache")},
        **{name: (root / name, "root", "root", 0o755) for name in ("venv", "models", "scripts")},
        **{name: (root / name, user, group, shared) for name in ("temp", "results")},
        "logs": (root / "logs", user, group, 0o750),
    }


def _units(pillar: dict[str, Any]) -> tuple[str, ...]:
    """The units that must run."""
    return (*UNITS, FEEDER_UNIT) if pillar["fleet"]["queue"] else UNITS


def _owned(path: Path, user: str, group: str, mode: int) -> str:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise CheckError(f"{path} is missing") from None
    is_ = f"{pwd.getpwuid(found.st_uid).pw_name}:{grp.getgrgid(found.st_gid).gr_name} {S_IMODE(found.st_mode):04o}"
    if is_ != (wanted := f"{user}:{group} {mode:04o}"):
        raise CheckError(f"{path} is {is_} instead of {wanted}")
    return is_


def _unit(unit: str) -> str:
    command = ["systemctl", "show", unit, "--property=UnitFileState,ActiveState,SubState", "--value"]
    states = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    if sorted(states) != ["active", "enabled", "running"]:
        raise CheckError(f"{unit} is {', '.join(states)}; see journalctl --unit {unit}")
    return "enabled, active, running"


def _cache(root: str, *, full: bool) -> str:
    """What advanced_cache.py --check says: of every byte if `full`, otherwise of the sizes. It imports no torch."""
    command = [f"{root}/venv/bin/python", f"{root}/advanced_cache.py", "--check", *([] if full else ["--quick"])]
    environment = {**os.environ, "TRANSCRIBE_CONFIG": f"{root}/config/transcribe.json", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise CheckError((done.stderr.splitlines() or [f"exit code {done.returncode}"])[-1])
    return done.stdout.strip()


def _cache_info(pillar: dict[str, Any]) -> str:
    info = _info(pillar)
    lacking = [key for key in CACHE_INFO_KEYS if key not in info]
    if lacking:
        raise CheckError(f"cache_info.json lacks {', '.join(lacking)}")
    for key, wanted in (("model_id", pillar["model"]["id"]), ("model_revision", pillar["model"]["revision"])):
        if info.get(key) != wanted:
            raise CheckError(f"cache_info.json says {key} {info.get(key)}, the pillar says {wanted}")
    return f"written {info['timestamp']}"


def _info(pillar: dict[str, Any]) -> dict[str, Any]:
    info: dict[str, Any] = json.loads(Path(pillar["root"], "cache/cache_info.json").read_text())
    return info


def _responds(path: str) -> str:
    answer = __salt__["transcribe_http.get"](path)
    if answer["status"] != 200:
        raise CheckError(f"{path} answers {answer['status']}: {' '.join(answer['body'].split())[:200]}")
    return " ".join(answer["body"].split())[:300]


def _gpu(what: str) -> str:
    answer: dict[str, str] = __salt__[f"transcribe_gpu.{what}"]()
    if answer["problem"]:
        raise CheckError(answer["problem"])
    return answer["detail"]


def _clip(pillar: dict[str, Any], transcript: dict[str, Any]) -> str:
    """Transcribe the clip into `transcript` and count the reference's words that are missing from it.

    The launcher measures the word error rate itself.
    """
    wanted = pillar["verify"]
    answer = __salt__["transcribe_http.transcribe"](str(SERVICE / "clips" / wanted["clip"]), wanted["language"])
    if "error" in answer:
        raise CheckError(answer["error"])
    transcript.update(answer)
    reference = _words((SERVICE / "clips" / wanted["reference"]).read_text())
    matching = SequenceMatcher(None, reference, _words(answer["text"]), autojunk=False).get_matching_blocks()
    missed = 1 - sum(block.size for block in matching) / max(len(reference), 1)
    if missed > wanted["max_word_error_rate"]:
        raise CheckError(f"{missed:.0%} of the words are missing: {answer['text'][:200]!r}")
    return f"{answer['audio_seconds']} s in {answer['seconds']} s, {missed:.0%} of the words missing"


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() or c == "'" else " " for c in text.lower()).split()


def _facts(pillar: dict[str, Any]) -> dict[str, Any]:
    """Versions and sizes for the report; a fact that is unknown is None."""
    try:
        info = _info(pillar)
    except (OSError, ValueError):
        info = {}
    versions = info.get("versions", {})
    disk = os.statvfs("/")
    return {
        "model_id": info.get("model_id"),
        "model_revision": info.get("model_revision"),
        **__salt__["transcribe_gpu.facts"](),
        "torch": versions.get("torch"),
        "transformers": versions.get("transformers"),
        "salt": __salt__["test.version"](),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "root_bytes": (disk.f_blocks - disk.f_bfree) * disk.f_frsize,
    }
