"""An apply that is killed, a worker that is killed, a machine that reboots: what comes after puts all right."""

import subprocess
import time

import pytest
from localcloud import LocalCloudError
from support.baked_machine import ROOT, BakedMachine
from support.waiting import until

BOOT = "cat /proc/sys/kernel/random/boot_id; systemctl show --property=UserspaceTimestamp --value"
CLIP = ROOT / "service/clips/verify.flac"
VENV = "/opt/transcribe/venv"
# What makes an apply take a while, by the state in the middle of which it is killed.
LONG = [
    ("venv", f"{VENV}/bin/python -m pip --quiet uninstall --yes transformers sympy networkx flask"),
    ("venv", f"rm -rf {VENV}/lib/python3*/site-packages/[a-s]*"),
    ("model", "rm -rf /opt/transcribe/models/* /opt/transcribe/cache/cache_info.json"),
]


@pytest.mark.parametrize(("what", "damage"), LONG, ids=["packages", "whole venv", "model"])
def test_killed_apply_converges(machine: BakedMachine, what: str, damage: str) -> None:
    """The next apply waits for what the killed one left running, and does the rest, if any: the machine is right."""
    machine.sh(damage)
    log = machine.sh("mktemp /run/killed.XXXXXX").strip()
    command = machine.command("salt-call", "state.apply", f"--log-file={log}", "--log-file-level=info")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as apply:
        machine.wait(f"grep -q 'Executing state transcribe_{what}' {log}")
        time.sleep(2)
        assert apply.poll() is None, "the apply was over before it could be killed"
        machine.sh(f"kill -KILL $(sed -n 's/.*\\[\\([0-9]*\\)\\] Executing state.*/\\1/p' {log} | tail --lines=1)")
    applied = machine.apply()
    assert applied.failed == {}
    machine.wait_serving()
    assert machine.verify() == {}


def test_killed_worker_is_back(machine: BakedMachine) -> None:
    """Asked in one look: a worker that is not yet seen dead is active, and one that is not yet started has no PID."""
    active = "systemctl show transcribe-worker --property=ActiveState,InvocationID"
    before = machine.property("transcribe-worker", "InvocationID")
    machine.run("systemctl", "kill", "--signal=KILL", "transcribe-worker")
    machine.wait(f"state=$({active}); [[ $state == *=active* && $state != *{before}* ]]", seconds=120)
    machine.wait_serving()
    assert "Dashwood" in machine.transcribe(CLIP)


def test_reboot_serves_again(machine: BakedMachine) -> None:
    before = machine.sh(BOOT)
    machine.run("systemctl", "--no-block", "reboot")

    def rebooted() -> bool:
        try:
            done = machine.run("bash", "-c", BOOT, check=False, seconds=15)
        except (LocalCloudError, subprocess.TimeoutExpired):
            return False  # there is nothing to enter, or who had entered was stopped with all the rest
        return done.returncode == 0 and done.stdout != before

    until(rebooted, 120)
    machine.wait_serving()
    assert "Dashwood" in machine.transcribe(CLIP)
    applied = machine.apply()
    assert (applied.changed, applied.failed) == (set(), {})
