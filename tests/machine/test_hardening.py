"""What the service may do on its machine, asked of systemd and tried out."""

import pytest
from localcloud.machines.supervisor import DOOR
from support.baked_machine import BakedMachine

ROOT = "/opt/transcribe"
EXPOSURE = {"transcribe-api": 2.0, "transcribe-worker": 2.5}


@pytest.mark.parametrize("unit", EXPOSURE)
def test_exposure(machine: BakedMachine, unit: str) -> None:
    line = machine.sh(f"systemd-analyze security --no-pager {unit} | tail --lines=1")
    assert float(line.split(":")[1].split()[0]) <= EXPOSURE[unit]


@pytest.mark.parametrize("unit", EXPOSURE)
def test_account_and_watchdog(machine: BakedMachine, unit: str) -> None:
    pid = machine.property(unit, "MainPID")
    assert machine.sh(f"ps --no-headers --format user:32 --pid {pid}").strip() == "transcribe"
    assert machine.property(unit, "Type") == "notify"
    assert machine.property(unit, "WatchdogUSec") not in ("", "0", "infinity")


@pytest.mark.parametrize("unit", EXPOSURE)
def test_only_three_folders_are_writable(machine: BakedMachine, unit: str) -> None:
    """As the service, in its own mount namespace: what can be written to of what it can reach."""
    pid = machine.property(unit, "MainPID")
    folders = " ".join(("", "/cache", "/temp", "/logs", "/results", "/venv", "/models", "/scripts", "/config"))
    script = (
        f"for f in {' '.join(ROOT + name for name in folders.split(' '))} /etc /usr /var/lib /srv/transcribe; do"
        f" nsenter --target {pid} --mount setpriv --reuid=transcribe --regid=transcribe --clear-groups"
        ' test -w "$f" && echo "$f"; done; true'
    )
    writable = set(machine.sh(script).split())
    assert writable == {f"{ROOT}/{name}" for name in ("temp", "logs", "results")}


def test_worker_has_no_network(machine: BakedMachine) -> None:
    pid = machine.property("transcribe-worker", "MainPID")
    links = machine.sh(f"nsenter --target {pid} --net ip -brief link | cut --delimiter=' ' --fields=1").split()
    assert links == ["lo"]


def test_api_listens_on_loopback_alone(machine: BakedMachine) -> None:
    listening = {line.split()[3] for line in machine.sh("ss --no-header --listening --tcp --numeric").splitlines()}
    others = {address for address in listening if not address.endswith(":22") and not address.startswith(f"{DOOR}:")}
    assert others == {"127.0.0.1:8000"}


def test_apt_does_nothing_by_itself(machine: BakedMachine) -> None:
    timers = machine.sh("systemctl list-timers --plain --no-legend")
    assert "apt-daily" not in timers


def test_model_is_read_ahead_at_boot(machine: BakedMachine) -> None:
    assert machine.property("transcribe-warm", "UnitFileState") == "enabled"
    assert machine.property("transcribe-warm", "Result") == "success"
    assert "transcribe-worker.service" in machine.property("transcribe-warm", "Before")
