"""A machine booted from the image that this tree bakes, as the machine tests use it."""

import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import requests
from localcloud import LocalCloud

from support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
RUN_SECONDS = 900
# What of a machine's life must not be on an image's disk; each line that this prints is something found, but two.
# In wtmp the shutdown itself ends the console's getty, after the seal.
DISK = r"""
ls -d /etc/ssh/ssh_host_* /root/.ssh /root/.cache /home/*/.ssh /var/lib/cloud/* /var/lib/apt/lists/* 2>/dev/null
find /var/log /tmp /var/tmp /opt/transcribe/{results,temp,logs} -type f -size +0 -not -name wtmp
find /etc/systemd -name 'transcribe-bake*' -o -name 'transcribe-deadline*'
grep --recursive --files-with-matches --extended-regexp --exclude-dir={venv,models,__pycache__} \
  'X-Amz-Signatur[e]=|[?&]Signatur[e]=' /etc /var /root /home /srv /opt/transcribe
stat --format='machine-id %s' /etc/machine-id
echo "payload $(cat /srv/transcribe/payload.sha256)"
"""
# What the machine is made of, without what it writes itself while it runs.
WATCHED = (
    *("/opt/transcribe/scripts", "/opt/transcribe/config", "/opt/transcribe/models", "/opt/transcribe/cache"),
    *("/opt/transcribe/advanced_cache.py", "/opt/transcribe/venv", "/etc"),
)


@dataclass(frozen=True)
class Applied:
    """What an apply did: every state's result by its id, in the order of running, and how long salt-call took."""

    states: Mapping[str, Mapping[str, Any]]
    seconds: float

    @property
    def changed(self) -> set[str]:
        return {name for name, state in self.states.items() if state["changes"]}

    @property
    def failed(self) -> dict[str, str]:
        return {name: state["comment"] for name, state in self.states.items() if state["result"] is False}

    @property
    def undecided(self) -> set[str]:
        """What a dry run says would change."""
        return {name for name, state in self.states.items() if state["result"] is None}


@dataclass(frozen=True)
class BakedMachine:
    """A running machine of the local cloud."""

    id: str

    def command(self, *argv: str) -> list[str]:
        return LocalCloud.command(ROOT, self.id, argv)

    def run(
        self, *argv: str, check: bool = True, text: str | None = None, seconds: float = RUN_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on it as root. Raises TimeoutExpired after so many seconds."""
        done = subprocess.run(
            self.command(*argv), check=False, capture_output=True, text=True, input=text, timeout=seconds
        )
        assert not check or done.returncode == 0, f"{' '.join(argv)}: {done.stderr or done.stdout}"
        return done

    def sh(self, script: str, *, check: bool = True) -> str:
        """Run a shell script on it; what it prints."""
        return self.run("bash", "-c", script, check=check).stdout

    def network(self, script: str) -> None:
        """Run a shell script as this host's root in its network, which its own root may not change."""
        leader = LocalCloud.leader(ROOT, self.id)
        subprocess.run(["nsenter", f"--target={leader}", "--net", "bash", "-c", script], check=True)

    def apply(self, *arguments: str) -> Applied:
        """Run salt-call state.apply, as an operator does."""
        began = time.monotonic()
        done = self.run("salt-call", "state.apply", "--out=json", *arguments, check=False)
        seconds = time.monotonic() - began
        try:
            answer = json.loads(done.stdout[done.stdout.index("{") :])["local"]
            ordered = sorted(answer.values(), key=lambda state: state["__run_num__"])
        except (ValueError, KeyError, AttributeError):
            raise AssertionError(f"no result of an apply: {done.stdout}{done.stderr}") from None
        return Applied({state["__id__"]: state for state in ordered}, seconds)

    def verify(self, *, clip: bool = True) -> dict[str, str]:
        """The checks of transcribe.verify that fail, with their details."""
        answer = json.loads(self.run("salt-call", "transcribe.verify", f"clip={clip}", "--out=json").stdout)["local"]
        assert answer["checks"]
        return {check["name"]: check["detail"] for check in answer["checks"] if check["verdict"] != "pass"}

    def snapshot(self) -> dict[str, str]:
        """Every watched file: type, owner, mode, size, inode, time of change. A file that is rewritten differs."""
        script = (
            f"find {' '.join(WATCHED)} -not -name '*.pyc' -not -name __pycache__ -not -name 'kernels*'"
            r" -printf '%p\t%y %U:%G %m %s %i %T@ %l\n'"
        )
        return dict(line.split("\t", 1) for line in self.sh(script).splitlines())

    def property(self, unit: str, name: str) -> str:
        """A property of one of its units."""
        return self.run("systemctl", "show", unit, f"--property={name}", "--value").stdout.strip()

    def wait(self, script: str, *, seconds: float = 60) -> None:
        """Wait until a script succeeds on it."""
        until(lambda: self.run("bash", "-c", script, check=False).returncode == 0, seconds, lambda: script)

    def wait_serving(self) -> None:
        """Wait until the service is ready."""
        self.wait("curl --silent --fail --max-time 5 localhost:8000/ready", seconds=120)

    def transcribe(self, clip: Path, language: str = "en") -> str:
        """Send a file from this host through the machine's HTTP interface, for a text that is made now."""
        url = LocalCloud.url_of(ROOT, self.id, 8000) + "/v1/audio/transcriptions"
        fields = {"model": "whisper-1", "language": language, "response_format": "text"}
        with clip.open("rb") as file:
            headers = {"Cache-Control": "no-cache"}
            response = requests.post(url, data=fields, files={"file": file}, headers=headers, timeout=300)
        response.raise_for_status()
        return response.text


def ec2(root: Path = ROOT) -> Any:
    """A client of the EC2 API of the local cloud of `root`."""
    cloud = LocalCloud.ensure(root)
    session = boto3.Session(cloud.access_key_id, cloud.secret_access_key, region_name=cloud.region)
    return session.client("ec2", endpoint_url=cloud.api_url)
