"""A first boot as Ubuntu does it: apt at work, little room, downloads that break off; and a first look."""

import fcntl
import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lockedvenv
import pytest
from driver import apt, disk, look
from driver.parameters import DriverError
from support.upload_server import UploadServer

HOLDS = """
import fcntl, sys, time
file = open(sys.argv[1], "r+")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose locks and processes are this folder's; nobody is at work."""
    locks = [tmp_path / lock.name for lock in apt.LOCKS]
    for lock in locks:
        lock.touch()
    (tmp_path / "proc").mkdir()
    monkeypatch.setattr(apt, "LOCKS", locks)
    monkeypatch.setattr(apt, "PROC", tmp_path / "proc")
    monkeypatch.setattr(apt, "POLL_SECONDS", 0.02)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "systemctl").write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/called\n')
    (tmp_path / "systemctl").chmod(0o755)
    return tmp_path


def process(machine: Path, pid: int, name: str, arguments: str) -> None:
    folder = machine / f"proc/{pid}"
    folder.mkdir()
    (folder / "comm").write_text(f"{name}\n")
    (folder / "cmdline").write_bytes(arguments.replace(" ", "\0").encode())


@pytest.fixture
def holder(machine: Path, request: pytest.FixtureRequest) -> Iterator["subprocess.Popen[str]"]:
    """Another process, which holds one of the locks."""
    command = [sys.executable, "-c", HOLDS, str(machine / request.param)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as held:
        assert held.stdout is not None
        held.stdout.readline()
        yield held
        held.kill()


def test_a_quiet_machine_is_not_waited_for(machine: Path) -> None:
    said: list[str] = []
    apt.wait_until_quiet(said.append)
    assert said == []
    assert "stop --no-block apt-daily.timer" in (machine / "called").read_text()


@pytest.mark.parametrize("holder", [lock.name for lock in apt.LOCKS], indirect=True)
def test_every_lock_of_apt_is_waited_for_and_its_holder_told(machine: Path, holder: "subprocess.Popen[str]") -> None:
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        holder.kill()

    apt.wait_until_quiet(say)
    assert f"(pid {holder.pid}), which holds {machine}/" in said[0]


@pytest.mark.parametrize("holder", ["lock"], indirect=True)
def test_who_never_ends_is_told_after_a_bounded_time(machine: Path, holder: "subprocess.Popen[str]") -> None:
    with pytest.raises(DriverError, match=rf"package management is still busy after 0 s: .*{holder.pid}"):
        apt.wait_until_quiet(lambda line: None, seconds=0.1)


def test_an_unattended_upgrade_between_two_packages_is_waited_for(machine: Path) -> None:
    process(machine, 7, "unattended-upgr", "/usr/bin/python3 /usr/bin/unattended-upgrade")
    assert apt.busy_with() == "unattended-upgr (pid 7)"


def test_what_only_waits_for_the_shutdown_is_not(machine: Path) -> None:
    process(machine, 8, "unattended-upgr", "python3 /usr/share/unattended-upgrades/unattended-upgrade-shutdown --wait")
    process(machine, 9, "bash", "bash")
    assert apt.busy_with() == ""


@pytest.mark.parametrize(
    ("gpu", "lock", "free", "enough"),
    [
        (True, "auto", 13e9, False),
        (True, "cpu", 13e9, True),
        (False, "auto", 13e9, True),
        (False, "cuda", 13e9, False),
        (False, "auto", 5e9, False),
    ],
)
def test_room_is_looked_for_before_anything_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: bool, lock: str, free: float, enough: bool
) -> None:
    device = tmp_path / "0000:00:1e.0"
    device.mkdir()
    (device / "vendor").write_text("0x10de\n" if gpu else "0x1d0f\n")
    monkeypatch.setattr(disk, "PCI", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    if enough:
        disk.require_room(lock)
        return
    with pytest.raises(DriverError, match=r"GB free, a bake needs .*: set \[instance\] volume_gb"):
        disk.require_room(lock)


@pytest.mark.parametrize(
    ("output", "tries"),
    [("urllib3.exceptions.IncompleteRead(1 bytes read)", 3), ("ERROR: No matching distribution found for one==1.0", 1)],
)
def test_a_download_that_breaks_off_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, output: str, tries: int
) -> None:
    tried: list[object] = []

    def fails(*arguments: object) -> str:
        tried.append(arguments)
        raise lockedvenv.VenvError("pip could not install", output)

    monkeypatch.setattr(lockedvenv, "run_pip", fails)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(lockedvenv.VenvError):
        lockedvenv.install(tmp_path, ["one==1.0"], lambda line: None)
    assert len(tried) == tries


def test_a_look_tells_what_decides(server: UploadServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server.files["/simple"] = b""
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    (tmp_path / "sources.list").write_text("deb [signed-by=/k] http://127.0.0.1:1/debian bookworm main\n")
    monkeypatch.setattr(look, "SOURCES", (tmp_path / "sources.list",))
    told: dict[str, Any] = look.facts({"hub": f"{server.url}/hub", "lock": "cpu"})
    assert told["python"].startswith("3.")
    assert told["free_gb"] > 0
    assert told["needed_gb"] == disk.NEEDED_GB["cpu"]
    assert told["venv"] is True
    assert told["reachable"]["pip"] == ""
    assert "refused" in told["reachable"]["apt"]
    assert told["reachable"]["hub"] == ""


def test_a_certificate_that_only_pip_knows_is_no_obstacle() -> None:
    def refuses(url: str, **_: Any) -> None:
        raise urllib.error.URLError(ssl.SSLCertVerificationError("self-signed certificate in certificate chain"))

    assert look.reach("https://mirror.example/", refuses) == ""


def test_a_lock_that_is_free_has_no_holder(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    with lock.open("r+") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)  # our own is no obstacle to us
        assert apt.held_by(lock) == 0
    assert apt.held_by(tmp_path / "none") == 0
