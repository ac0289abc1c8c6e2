"""What the benchmarks share: paths, the machine's description, figures written as JSON."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "salt"))

from lockedvenv import VenvError, sync  # noqa: E402 - found by the line above

CACHE = ROOT / ".cache" / "bench"
PEERS_VENV = ROOT / ".cache" / "venvs" / "peers"
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")
PEERS = Path(__file__).with_name("peers") / "cpu.lock"


def machine() -> dict[str, Any]:
    """What the figures were measured on, and how busy it was with other things."""
    facts = dict(line.split(":", 1) for line in _lines("/proc/cpuinfo") + _lines("/proc/meminfo") if ":" in line)
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    flags = facts.get("flags", "").split()
    return {
        "processor": facts.get("model name", platform.processor()),
        "cores": len(os.sched_getaffinity(0)),
        "instructions": [flag for flag in INSTRUCTIONS if flag in flags],
        "memory_gb": round(int(facts.get("MemTotal", "0").split()[0]) / 2**20, 1),
        "system": platform.platform(),
        "load_before": os.getloadavg()[0],
        "pressure_before": _lines("/proc/pressure/cpu")[:1],
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def run_json(command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Any:
    """The JSON on the last line of a program's output; exits with the program's last words when it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{command[1]} failed: {(done.stderr.strip() or 'no output').splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def peers_python() -> Path:
    """The interpreter of the peers' environment, which is made on first use, from hashes as every other."""
    try:
        sync(PEERS_VENV, [PEERS], sys.executable, lambda message: print(message, file=sys.stderr))
    except VenvError as error:
        sys.exit(str(error))
    return PEERS_VENV / "bin" / "python"


def write(path: Path | None, figures: Mapping[str, Any]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
        print(f"written: {path}", file=sys.stderr)
