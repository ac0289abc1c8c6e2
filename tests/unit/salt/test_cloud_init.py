"""The user-data template and the bootstrap script: what cloud-init will see, and what runs before the driver."""

import base64
import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml
from support.upload_server import UploadServer

ROOT = Path(__file__).resolve().parents[3]
LIMIT = 16_384  # bytes that EC2 takes
VALUES = {"parameters_base64": "e30=", "bootstrap_base64": "eA==", "deadline_seconds": "2400"}


def rendered(**values: str) -> dict[str, Any]:
    text = Template((ROOT / "cloud-init/user-data.yaml").read_text()).substitute({**VALUES, **values})
    assert text.startswith("#cloud-config\n")
    document: dict[str, Any] = yaml.safe_load(text)
    return document


def test_only_modules_that_are_meant() -> None:
    assert set(rendered()) == {"bootcmd", "write_files", "runcmd"}


def test_deadline_is_armed_before_anything_else() -> None:
    command = rendered()["bootcmd"][1]
    assert command[0] == "systemd-run"
    assert "--on-active=2400s" in command
    assert "--no-block" in command  # cloud-init itself runs before what a timer by default waits for
    assert "--timer-property=DefaultDependencies=no" in command
    assert command[-1].index("systemctl --force poweroff") < command[-1].index("systemctl -ff poweroff")


def test_everything_written_is_transient_and_private() -> None:
    files = rendered()["write_files"]
    assert [file["path"] for file in files] == [
        f"/run/transcribe-bake/{name}" for name in ("parameters.json", "bootstrap.sh")
    ]
    assert [file["permissions"] for file in files] == ["0600", "0700"]
    assert {file["encoding"] for file in files} == {"b64"}


def test_work_begins_after_cloud_init_and_does_not_hold_it_up() -> None:
    (command,) = rendered()["runcmd"]
    assert command[:2] == ["systemd-run", "--no-block"]
    assert "--property=After=cloud-final.service" in command
    assert command[-1] == rendered()["write_files"][1]["path"]


def test_fits_with_the_longest_addresses_of_aws() -> None:
    """Signed with a session's token an address has some 1,800 characters."""
    names = ("report_url", "progress_url", "log_url")
    parameters = {
        **dict.fromkeys(names, "x" * 1800),
        "payload": {"url": "x" * 1800, "sha256": "0" * 64, "bytes": 1},
    }
    encoded = base64.b64encode(json.dumps(parameters).encode()).decode()
    bootstrap = base64.b64encode((ROOT / "cloud-init/bootstrap.sh").read_bytes()).decode()
    template = (ROOT / "cloud-init/user-data.yaml").read_text()
    text = Template(template).substitute(VALUES, parameters_base64=encoded, bootstrap_base64=bootstrap)
    assert len(text.encode()) <= LIMIT


@pytest.fixture
def bucket(server: UploadServer) -> UploadServer:
    """S3 with a payload in it, whose driver only prints its arguments."""
    driver = b"import sys; print('driver', *sys.argv[1:])\n"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("salt/driver/main.py")
        member.size = len(driver)
        tar.addfile(member, io.BytesIO(driver))
    server.files["/payload"] = buffer.getvalue()
    return server


def bootstrap(tmp_path: Path, given: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run the script on a made-up machine: its folders moved, what acts on the host replaced."""
    run, programs = tmp_path / "run", tmp_path / "bin"
    run.mkdir()
    programs.mkdir()
    (run / "parameters.json").write_text(json.dumps(given))
    for name in ("systemctl", "journalctl", "sync"):
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/called\n')
        (programs / name).chmod(0o755)
    text = (ROOT / "cloud-init/bootstrap.sh").read_text()
    moved = {"/run/transcribe-bake": run, "/srv/transcribe": tmp_path / "srv", "/dev/console": tmp_path / "console"}
    for old, new in moved.items():
        assert old in text
        text = text.replace(old, str(new))
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    return subprocess.run(["bash", "-c", text], check=False, capture_output=True, text=True, env=environment)


def parameters(bucket: UploadServer, **payload: Any) -> dict[str, Any]:
    data, url = bucket.files["/payload"], bucket.url
    place = payload.pop("path", "/payload")
    announced = {"url": url + place, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), **payload}
    addresses = {name: f"{url}/{name}" for name in ("report_url", "progress_url", "log_url")}
    return {"build_id": "b", "nonce": "n", "mode": "bake", "payload": announced, **addresses}


def test_bootstrap_hands_over_to_the_driver_of_the_payload(tmp_path: Path, bucket: UploadServer) -> None:
    given = parameters(bucket)
    done = bootstrap(tmp_path, given)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"driver --parameters {tmp_path}/run/parameters.json"
    assert (tmp_path / "srv/payload.sha256").read_text().strip() == given["payload"]["sha256"]
    assert bucket.uploads == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"sha256": "0" * 64}, "digest of the payload"),
        ({"bytes": 1}, "size of the payload"),
        ({"path": "/none"}, "downloading the payload"),
    ],
)
def test_bootstrap_reports_what_failed_and_ends_the_machine(
    tmp_path: Path, bucket: UploadServer, payload: dict[str, Any], reason: str
) -> None:
    done = bootstrap(tmp_path, parameters(bucket, **payload))
    assert done.returncode != 0
    report = json.loads(bucket.body("/report_url"))
    assert (report["verdict"], report["build_id"], report["nonce"]) == ("failure", "b", "n")
    assert reason in report["reason"]
    assert [upload.path for upload in bucket.uploads] == ["/log_url", "/report_url"]
    line = (tmp_path / "console").read_text().split()
    assert line[:4] == ["TRANSCRIBE-BAKE", "b", "n", "failure"]
    assert line[4] == hashlib.sha256(bucket.body("/report_url")).hexdigest()
    assert "systemctl --no-block poweroff" in (tmp_path / "called").read_text()
    assert not (tmp_path / "srv/salt").exists()


@pytest.mark.slow
def test_a_machine_that_is_to_be_kept_stays_up_when_the_bootstrap_fails(tmp_path: Path, bucket: UploadServer) -> None:
    done = bootstrap(tmp_path, {**parameters(bucket, path="/none"), "keep": True})
    assert done.returncode != 0
    assert json.loads(bucket.body("/report_url"))["verdict"] == "failure"
    assert "poweroff" not in (tmp_path / "called").read_text()
