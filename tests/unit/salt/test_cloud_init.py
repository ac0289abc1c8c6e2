"""The user-data template and the bootstrap script: what cloud-init will see, and what runs before the driver."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml
from support.upload_server import UploadServer
from support.waiting import until

ROOT = Path(__file__).resolve().parents[3]
VALUES = {"parameters_gzip_base64": "e30=", "bootstrap_gzip_base64": "eA==", "deadline_seconds": "2400"}


def rendered(**values: str) -> dict[str, Any]:
    text = Template((ROOT / "cloud-init/user-data.yaml").read_text()).substitute({**VALUES, **values})
    assert text.startswith("#cloud-config\n")
    document: dict[str, Any] = yaml.safe_load(text)
    return document


def test_only_modules_that_are_meant() -> None:
    assert set(rendered()) == {"bootcmd", "write_files", "runcmd"}


def test_deadline_is_armed_before_anything_else() -> None:
    _, script, command = rendered()["bootcmd"]
    assert command[0] == "systemd-run"
    assert "--on-active=2400s" in command
    assert "--no-block" in command  # cloud-init itself runs before what a timer by default waits for
    assert "--timer-property=DefaultDependencies=no" in command
    assert script.index("systemctl --force poweroff") < script.index("systemctl -ff poweroff")
    assert f"cat >{command[-1]} <<END" in script


def test_deadline_outlives_a_reload_of_systemd() -> None:
    """Which any package with a unit causes: then systemd reads back what it wrote of a transient unit, with `\\;`."""
    for command in (*rendered()["bootcmd"], *rendered()["runcmd"]):
        if command[0] == "systemd-run":
            assert [word for word in command if ";" in word or "\n" in word] == []


def test_everything_written_is_transient_and_private() -> None:
    files = rendered()["write_files"]
    assert [file["path"] for file in files] == [
        f"/run/transcribe-bake/{name}" for name in ("parameters.json", "bootstrap.sh")
    ]
    assert [file["permissions"] for file in files] == ["0600", "0700"]
    assert {file["encoding"] for file in files} == {"gz+b64"}


def test_work_begins_after_cloud_init_and_does_not_hold_it_up() -> None:
    (command,) = rendered()["runcmd"]
    assert command[:2] == ["systemd-run", "--no-block"]
    assert "--property=After=cloud-final.service" in command
    assert command[-1] == rendered()["write_files"][1]["path"]


def test_nothing_that_is_upgraded_may_restart_the_work() -> None:
    """needrestart does, to whatever uses an upgraded library."""
    (command,) = rendered()["runcmd"]
    assert "--property=RefuseManualStop=yes" in command
    assert "--setenv=NEEDRESTART_SUSPEND=1" in command


def test_a_process_that_is_killed_for_want_of_memory_is_reported_and_stops_nothing_else() -> None:
    (command,) = rendered()["runcmd"]
    assert "--property=OOMPolicy=continue" in command


DRIVER = """
import pathlib, sys
print("driver", *sys.argv[1:])
pathlib.Path(sys.argv[2]).with_name("told").touch()
"""


@pytest.fixture
def bucket(server: UploadServer) -> UploadServer:
    """S3 with a payload in it, whose driver only prints its arguments."""
    put_driver(server, DRIVER)
    return server


def put_driver(server: UploadServer, driver: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("salt/driver/main.py")
        member.size = len(driver.encode())
        tar.addfile(member, io.BytesIO(driver.encode()))
    server.files["/payload"] = buffer.getvalue()
    names = ("report", "progress", "log", "payload")
    server.files["/addresses"] = json.dumps({f"{name}_url": f"{server.url}/{name}" for name in names}).encode()


class Guest:
    """The script on a made-up machine: its folders moved, what acts on the host replaced."""

    def __init__(self, folder: Path, given: dict[str, Any]) -> None:
        self.folder = folder
        self.run, self.programs = folder / "run", folder / "bin"
        self.run.mkdir()
        self.programs.mkdir()
        (self.run / "parameters.json").write_text(json.dumps(given))
        for name in ("systemctl", "journalctl", "sync"):
            self.program(name, f'echo "{name} $*" >>{folder}/called')

    def program(self, name: str, script: str) -> None:
        (self.programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.programs / name).chmod(0o755)

    def start(self) -> "subprocess.Popen[str]":
        text = (ROOT / "cloud-init/bootstrap.sh").read_text()
        moved = {"/run/transcribe-bake": self.run, "/srv/transcribe": self.folder / "srv"}
        for old, new in {**moved, "/dev/console": self.folder / "console"}.items():
            assert old in text
            text = text.replace(old, str(new))
        text = text.replace("--retry 8", "--retry 1").replace("--retry 5", "--retry 1")
        environment = {**os.environ, "PATH": f"{self.programs}:{os.environ['PATH']}"}
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(["bash", "-c", text], text=True, env=environment, **output)  # type: ignore[call-overload, no-any-return]

    def done(self) -> "subprocess.CompletedProcess[str]":
        process = self.start()
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess([], process.returncode, out, err)

    @property
    def console(self) -> str:
        return (self.folder / "console").read_text()

    @property
    def called(self) -> str:
        return (self.folder / "called").read_text()


def parameters(bucket: UploadServer, **payload: Any) -> dict[str, Any]:
    data = bucket.files["/payload"]
    announced = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), **payload}
    addresses = f"{bucket.url}/addresses"
    return {"build_id": "b", "nonce": "n", "mode": "bake", "payload": announced, "addresses_url": addresses}


def reason(bucket: UploadServer) -> str:
    """Why the machine's own report says that it failed."""
    report = json.loads(bucket.body("/report"))
    assert (report["verdict"], report["build_id"], report["nonce"]) == ("failure", "b", "n")
    return str(report["reason"])


def test_bootstrap_hands_over_to_the_driver_of_the_payload(tmp_path: Path, bucket: UploadServer) -> None:
    given = parameters(bucket)
    guest = Guest(tmp_path, given)
    done = guest.done()
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"driver --parameters {tmp_path}/run/parameters.json"
    assert (tmp_path / "srv/payload.sha256").read_text().strip() == given["payload"]["sha256"]
    assert bucket.uploads == []
    assert "Python 3" in guest.console


@pytest.mark.slow
@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({"sha256": "0" * 64}, "digest of the payload"),
        ({"bytes": 1}, "size of the payload"),
        (None, "downloading the payload failed (exit code 1): curl: (22) The requested URL returned error: 404"),
    ],
)
def test_bootstrap_reports_what_failed_and_ends_the_machine(
    tmp_path: Path, bucket: UploadServer, payload: dict[str, Any] | None, says: str
) -> None:
    given = parameters(bucket, **payload or {})
    if payload is None:
        del bucket.files["/payload"]
    guest = Guest(tmp_path, given)
    assert guest.done().returncode != 0
    assert says in reason(bucket)
    assert [upload.path for upload in bucket.uploads] == ["/log", "/report"]
    assert says in guest.console
    line = guest.console.splitlines()[-1].split()
    assert line[:4] == ["TRANSCRIBE-BAKE", "b", "n", "failure"]
    assert line[4] == hashlib.sha256(bucket.body("/report")).hexdigest()
    assert "systemctl --no-block poweroff" in guest.called
    assert not (tmp_path / "srv/salt").exists()


def test_a_machine_without_a_way_out_says_so_on_its_console(tmp_path: Path, bucket: UploadServer) -> None:
    guest = Guest(tmp_path, {**parameters(bucket), "addresses_url": "http://127.0.0.1:1/x?X-Amz-Signature=s"})
    assert guest.done().returncode != 0
    assert "is there a way out of this subnet?" in guest.console
    assert "Signature" not in guest.console
    assert "TRANSCRIBE-BAKE b n failure" in guest.console
    assert "poweroff" in guest.called


def test_a_python_that_is_too_old_is_told_before_anything_else(tmp_path: Path, bucket: UploadServer) -> None:
    guest = Guest(tmp_path, parameters(bucket))
    guest.program("python3", f'case "$*" in *version_info*) echo 3.9; exit;; esac; exec {sys.executable} "$@"')
    assert guest.done().returncode != 0
    assert "with 3.9; name another in [source]" in guest.console
    assert "TRANSCRIBE-BAKE b n failure" in guest.console
    assert not (tmp_path / "srv").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("driver", "says"),
    [
        ("def f(x: int | None, y: 'no such thing' | None): ...", "TypeError: unsupported operand"),
        ("import os; os.kill(os.getpid(), 9)", "exit code 137: killed, most often for want of memory"),
        ("", "exit code 0"),
    ],
)
def test_a_driver_that_dies_is_told(tmp_path: Path, server: UploadServer, driver: str, says: str) -> None:
    put_driver(server, driver)
    guest = Guest(tmp_path, parameters(server))
    guest.done()
    assert "the work of the driver; it died" in reason(server)
    assert says in reason(server)
    assert "poweroff" in guest.called


@pytest.mark.slow
@pytest.mark.parametrize(
    ("deadline", "says"), [(False, "somebody on the machine stopped the bake"), (True, "deadline has passed")]
)
def test_a_sigterm_says_what_it_was(tmp_path: Path, server: UploadServer, deadline: bool, says: str) -> None:
    put_driver(server, "import pathlib, sys, time; pathlib.Path(sys.argv[2]).with_name('up').touch(); time.sleep(60)")
    guest = Guest(tmp_path, parameters(server))
    process = guest.start()
    until((guest.run / "up").exists)
    if deadline:
        (guest.run / "deadline").touch()
    process.terminate()
    process.communicate(timeout=30)
    assert says in reason(server)


@pytest.mark.slow
def test_a_machine_that_is_to_be_kept_stays_up_when_the_bootstrap_fails(tmp_path: Path, bucket: UploadServer) -> None:
    guest = Guest(tmp_path, {**parameters(bucket, bytes=1), "keep": True})
    assert guest.done().returncode != 0
    assert "size of the payload" in reason(bucket)
    assert "poweroff" not in guest.called
