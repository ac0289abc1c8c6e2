"""Whatever is changed by hand, the next apply restores exactly that and only that."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from support.baked_machine import BakedMachine

ROOT = "/opt/transcribe"
UNITS = {"service-api-running", "service-worker-running"}
WORKER, API = {"service-worker-running"}, {"service-api-running"}


@dataclass(frozen=True)
class Drift:
    """What is done to the machine, the states that must repair it, and the only paths that may differ afterwards."""

    damage: str
    states: set[str]
    only: tuple[str, ...] = ()


CODE = {"code-compiled", *UNITS}
DRIFTS = {
    "programs deleted": Drift(
        f"rm {ROOT}/scripts/api_server.py {ROOT}/advanced_cache.py",
        {"code-api-server", "code-advanced-cache", *CODE},
        (f"{ROOT}/scripts", f"{ROOT}/advanced_cache.py"),
    ),
    "program changed": Drift(
        f"echo '# x' >>{ROOT}/scripts/transcribe_optimized.py",
        {"code-transcribe-optimized", *CODE},
        (f"{ROOT}/scripts",),
    ),
    "program's mode": Drift(
        f"chmod 666 {ROOT}/scripts/api_server.py", {"code-api-server", *CODE}, (f"{ROOT}/scripts/api_server.py",)
    ),
    "package changed": Drift(
        f"echo '# x' >>{ROOT}/scripts/transcribe/config.py; touch {ROOT}/scripts/transcribe/foreign.py",
        {"code-package", *CODE},
        (f"{ROOT}/scripts/transcribe",),
    ),
    "config corrupted": Drift(
        f"echo '{{' >{ROOT}/config/transcribe.json", {"config-written", *UNITS}, (f"{ROOT}/config",)
    ),
    "config readable": Drift(
        f"chmod 644 {ROOT}/config/transcribe.json", {"config-written", *UNITS}, (f"{ROOT}/config/transcribe.json",)
    ),
    "layout": Drift(
        f"chown root {ROOT}/results; chmod 777 {ROOT}/models; rmdir {ROOT}/logs; usermod --shell /bin/bash transcribe",
        {"layout-results", "layout-models", "layout-logs", "layout-user"},
        (f"{ROOT}/models", "/etc/passwd", "/etc/shadow", "/etc/.pwd.lock"),
    ),
    "worker stopped": Drift("systemctl stop transcribe-worker", WORKER),
    "API stopped and disabled": Drift("systemctl disable --now transcribe-api", API, ("/etc/systemd",)),
    "unit changed": Drift(
        "sed -i s/^NoNewPrivileges=.*// /etc/systemd/system/transcribe-worker.service",
        {"service-worker-unit", *WORKER},
        ("/etc/systemd/system",),
    ),
    "cache_info.json truncated": Drift(
        f"truncate --size=20 {ROOT}/cache/cache_info.json", {"model-cached", *WORKER}, (f"{ROOT}/cache",)
    ),
    "prepared weights swapped": Drift(
        f"f=$(echo {ROOT}/cache/kernels/prepared/*.safetensors); touch --reference=$f /run/time;"
        " printf x | dd of=$f bs=1 seek=10000 conv=notrunc status=none; touch --reference=/run/time $f",
        {"model-cached", *WORKER},
        (f"{ROOT}/cache",),
    ),
    "a file in the cache is the service's": Drift(
        f"ln --symbolic /etc/shadow {ROOT}/cache/link; chown --no-dereference transcribe {ROOT}/cache/link",
        {"model-cached", *WORKER},
        (f"{ROOT}/cache",),
    ),
    "cache_info.json deleted": Drift(f"rm {ROOT}/cache/cache_info.json", {"model-cached", *WORKER}, (f"{ROOT}/cache",)),
    "tuning": Drift(
        "systemctl disable transcribe-warm; rm /etc/systemd/journald.conf.d/transcribe.conf;"
        "rm /etc/systemd/system/apt-daily.timer; systemctl daemon-reload; systemctl start apt-daily.timer",
        {
            *("tuning-transcribe-warm-enabled", "tuning-journal", "tuning-journal-restarted"),
            *("tuning-apt-daily-masked", "tuning-apt-stopped"),
        },
        ("/etc/systemd",),
    ),
}


def foreign(path: str, drift: Drift) -> bool:
    """Whether the drift has nothing to do with this path; the folder of a file that is replaced changes its time."""
    return not path.startswith(drift.only) and path not in {str(Path(mine).parent) for mine in drift.only}


def differing(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


@pytest.mark.parametrize("name", DRIFTS)
def test_drift_is_repaired_and_nothing_else(machine: BakedMachine, name: str) -> None:
    drift = DRIFTS[name]
    before = machine.snapshot()
    machine.sh(drift.damage)
    applied = machine.apply()
    assert applied.failed == {}
    assert applied.changed == drift.states
    after = machine.snapshot()
    assert {path for path in differing(before, after) if foreign(path, drift)} == set()
    assert after.keys() == before.keys()


def test_missing_venv_package_alone_is_installed(machine: BakedMachine) -> None:
    python = f"{ROOT}/venv/bin/python"
    before = machine.snapshot()
    machine.run(python, "-m", "pip", "--quiet", "uninstall", "--yes", "flask")
    applied = machine.apply()
    assert applied.states["venv-synced"]["changes"] == {"flask": "installed"}
    assert applied.changed >= {"venv-synced", *UNITS}
    assert applied.failed == {}
    others = {path for path in differing(before, machine.snapshot()) if "flask" not in path.lower()}
    assert {path for path in others if before.get(path, "f").startswith("f")} <= {f"{ROOT}/venv/locks.json"}


def test_foreign_venv_package_is_removed(machine: BakedMachine) -> None:
    site = machine.sh(f"echo {ROOT}/venv/lib/python3*/site-packages").strip()
    info = f"{site}/foreign-1.0.dist-info"
    machine.sh(f"mkdir {info}; printf 'Name: foreign\\nVersion: 1.0\\n' >{info}/METADATA")
    machine.sh(f"printf 'foreign-1.0.dist-info/%s,,\\n' METADATA RECORD >{info}/RECORD")
    assert machine.apply().states["venv-synced"]["changes"] == {"foreign": "removed"}


def test_corrupt_weights_alone_are_fetched_again(machine: BakedMachine) -> None:
    weights = machine.sh(f"realpath {ROOT}/models/*/snapshots/*/model.safetensors").strip()
    digest = machine.sh(f"sha256sum <{weights}")
    before = machine.snapshot()
    machine.sh(f"printf x | dd of={weights} bs=1 seek=1000 conv=notrunc status=none")
    assert "cache" in machine.verify()
    applied = machine.apply()
    assert applied.changed == {"model-cached", *WORKER}
    assert applied.failed == {}
    assert machine.sh(f"sha256sum <{weights}") == digest
    changed = {path for path in differing(before, machine.snapshot()) if path.startswith(f"{ROOT}/models")}
    files = {path for path in changed if not before.get(path, "").startswith("d") and "/.locks" not in path}
    assert {path for path in files if path != weights and not path.endswith("model.safetensors")} == set()
    machine.wait_serving()
    assert machine.verify() == {}
