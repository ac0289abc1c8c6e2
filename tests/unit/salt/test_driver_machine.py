"""The driver's hands: salt-call, systemctl and HTTP, with small programs and a small server in their places."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from driver import install_salt, salt_call, salt_output, systemd, upload
from driver.parameters import DriverError, Parameters
from support.upload_server import UploadServer

Program = Callable[[str, str], None]
STATE = {"result": True, "changes": {"x": 1}, "comment": "", "__run_num__": 0, "__id__": "a", "duration": 5.0}


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Put a shell script of a name first on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(salt_call, "LOG", tmp_path / "run/salt.log")
    monkeypatch.setattr(salt_call, "POLL_SECONDS", 0.02)

    def write(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return write


def test_apply_follows_the_log_and_reads_the_answer(program: Program, tmp_path: Path) -> None:
    log = tmp_path / "run/salt.log"
    answer = json.dumps({"local": {"file_|-a_|-/a_|-managed": STATE}})
    program(
        "salt-call",
        f'echo "$*" >{tmp_path}/arguments; echo "Executing state file.managed for [/a]" >>{log}; sleep 0.2\n'
        f"echo \"progress of venv: 1/2 torch\" >>{log}; sleep 0.2; echo noise >&2; echo '{answer}'; exit 2",
    )
    shown: list[tuple[str, int, int]] = []
    plan = salt_output.HighstatePlan({("file", "/a"): "a", ("file", "/b"): "b"})
    result = salt_call.apply(plan, lambda state, done, total: shown.append((state, done, total)))
    assert shown == [("a", 0, 2), ("a 1/2 torch", 0, 2)]
    assert (result["states"], result["changed"], result["failed"]) == (1, 1, [])
    arguments = (tmp_path / "arguments").read_text()
    assert arguments.endswith("state.apply\n")
    assert "--out=json" in arguments


def test_salt_that_dies_is_an_error_with_its_last_words(program: Program) -> None:
    program("salt-call", "echo 'ImportError: no module' >&2; exit 0")
    with pytest.raises(DriverError, match="ImportError: no module"):
        salt_call.plan()


def test_half_a_line_is_left_for_the_next_look(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("one\ntw")
    with path.open() as log:
        assert list(salt_call._lines(log)) == ["one"]
        with path.open("a") as more:
            more.write("o\n")
        assert list(salt_call._lines(log)) == ["two"]


def test_boot_to_ready_is_the_last_unit_s_time(program: Program, tmp_path: Path) -> None:
    """A unit that is still starting is waited for."""
    program("systemd-detect-virt", "exit 0")
    program(
        "systemctl",
        f'case "$*" in *UserspaceTimestamp*) echo UserspaceTimestampMonotonic=1000000; exit;; esac\n'
        f"echo x >>{tmp_path}/count; state=active; test $(wc -l <{tmp_path}/count) -ge 4 || state=activating\n"
        'echo ActiveState=$state; case "$*" in *worker*) t=5500000;; *) t=2000000;; esac\n'
        "echo ActiveEnterTimestampMonotonic=$t",
    )
    assert systemd.wait_ready() == 4.5


def test_unit_that_never_starts_is_named(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    program("systemctl", "echo ActiveState=failed; echo ActiveEnterTimestampMonotonic=0")
    monkeypatch.setattr(systemd, "READY_SECONDS", 0)
    with pytest.raises(DriverError, match=r"transcribe-worker\.service is failed"):
        systemd.wait_ready()


def test_a_larger_disk_is_given_more_time(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    program("systemctl", "echo ActiveState=activating; echo ActiveEnterTimestampMonotonic=0")
    monkeypatch.setattr(systemd, "READY_SECONDS", 0.25)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(total=160 * 1024**3))
    with pytest.raises(DriverError, match="not ready 1 s after boot"):
        systemd.wait_ready()


def test_prepare_says_what_failed(program: Program) -> None:
    program("tool", "echo 1/2 torch >&2; echo 'error: no room' >&2; exit 3")
    said: list[str] = []
    with pytest.raises(DriverError, match="tool sync ended with 3: error: no room"):
        install_salt.run(["tool", "sync"], said.append)
    assert said == ["1/2 torch", "error: no room"]
    assert install_salt.run(["tool", "sync"], check=False) == 3


def test_salt_is_installed_from_its_lock(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("systemctl", "apt-get"):
        program(name, f"echo {name} $* >>{tmp_path}/called")
    program("python3", f'echo python3 $* >>{tmp_path}/called; case "$*" in *ensurepip*) exit 1;; esac')
    (tmp_path / "salt").mkdir()
    (tmp_path / "salt/minion").write_text("id: x\n")
    monkeypatch.setattr(install_salt, "MINION", tmp_path / "etc/minion")
    monkeypatch.setattr(install_salt, "LINK", tmp_path / "salt-call")
    install_salt.install_salt(tmp_path, lambda line: None)
    called = (tmp_path / "called").read_text().splitlines()
    assert any("install --no-install-recommends python3-venv" in line for line in called)
    assert called[-1].endswith(f"lockedvenv.py sync /opt/salt/venv {tmp_path}/salt/requirements.lock")
    assert (tmp_path / "etc/minion").read_text() == "id: x\n"
    assert str((tmp_path / "salt-call").readlink()) == "/opt/salt/venv/bin/salt-call"


@pytest.fixture
def bucket(server: UploadServer, monkeypatch: pytest.MonkeyPatch) -> UploadServer:
    """A server, with no pauses between the driver's tries."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    return server


def addressed(bucket: UploadServer, folder: Path, headers: Mapping[str, str]) -> Parameters:
    addresses = folder / "addresses.json"
    addresses.write_text(json.dumps({"report_url": f"{bucket.url}/report?Signature=s", "upload_headers": headers}))
    return Parameters("b1", "n", "bake", addresses, "0" * 64, None, {})


def test_report_is_delivered_in_the_end(bucket: UploadServer, tmp_path: Path) -> None:
    bucket.failures = 3
    upload.put(addressed(bucket, tmp_path, {"x-amz-server-side-encryption": "AES256"}), "report", b"{}")
    [(path, body, headers)] = bucket.uploads
    assert (path, body, headers["Content-Type"]) == ("/report?Signature=s", b"{}", "")
    assert {name.lower(): value for name, value in headers.items()}["x-amz-server-side-encryption"] == "AES256"


def test_what_cannot_be_delivered_does_not_name_the_address(bucket: UploadServer, tmp_path: Path) -> None:
    bucket.failures = 99
    with pytest.raises(DriverError, match="HTTP 503") as error:
        upload.put(addressed(bucket, tmp_path, {}), "report", b"{}", tries=2)
    assert "Signature" not in str(error.value)
    assert bucket.failures == 97
    with pytest.raises(DriverError, match="404") as error:
        upload.get(f"{bucket.url}/audio?Signature=s", tmp_path / "audio")
    assert "Signature" not in str(error.value)


def test_console_line_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "CONSOLE", tmp_path / "console")
    upload.console("TRANSCRIBE-BAKE x")
    assert (tmp_path / "console").read_bytes() == b"\r\nTRANSCRIBE-BAKE x\r\n"
