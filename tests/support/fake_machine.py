"""Machines that exist only as moto's records: a thread that reads their user-data and signals as a script says."""

import base64
import gzip
import hashlib
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import boto3
import requests
import yaml

Report = dict[str, Any]
Script = Callable[["FakeMachine"], None]
APPLY = {"states": 12, "changed": 10, "failed": [], "seconds": 1.0, "results": []}


def manifest_of(payload_sha256: str, **changes: Any) -> Report:
    """A small manifest as a machine writes it: the same on the machine that was baked and on the one that booted."""
    package = {"name": "numpy", "version": "2.0", "license": "BSD-3-Clause", "files_sha256": "0" * 64}
    return {
        "schema": 1,
        "origin": {"bake": "b", "payload_sha256": payload_sha256},
        "os": {"id": "debian", "version": "12", "name": "Debian"},
        "kernel": "6.1",
        "driver": None,
        "model": {"id": "a/model", "revision": "c" * 40, "files": {"m.safetensors": {"sha256": "1" * 64, "bytes": 9}}},
        "python": {"service": [package], "salt": []},
        "debian": [{"name": "ffmpeg", "version": "7:5.1", "architecture": "amd64", "files_sha256": None}],
        "sources": {"salt/states/layout.sls": "2" * 64},
        "bytes": {"disk": 100, "venv": 50, "models": 9, "salt": 10},
        **changes,
    }


class FakeMachine:
    """One launched instance as it sees itself."""

    def __init__(self, ec2: Any, instance_id: str, reference: str) -> None:
        self._ec2 = ec2
        self.id = instance_id
        self._reference = reference
        raw = ec2.describe_instance_attribute(InstanceId=instance_id, Attribute="userData")["UserData"]["Value"]
        self.user_data = base64.b64decode(raw).decode()
        files = {file["path"]: file for file in yaml.safe_load(self.user_data)["write_files"]}
        content = files["/run/transcribe-bake/parameters.json"]["content"]
        self.parameters: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(content)))

    def address(self, name: str) -> str:
        """One of the signed addresses that the user-data's own address leads to."""
        return str(self._addresses()[f"{name}_url"])

    def _addresses(self) -> dict[str, Any]:
        found: dict[str, Any] = requests.get(self.parameters["addresses_url"], timeout=10).json()
        return found

    @property
    def mode(self) -> str:
        return str(self.parameters["mode"])

    def payload_sha256(self) -> str:
        """What a bake's machine fetched; a machine from an image remembers it, as tests do by the image's tag."""
        if self.mode == "bake":
            data = requests.get(self.address("payload"), timeout=10).content
            assert len(data) == self.parameters["payload"]["bytes"]
            return hashlib.sha256(data).hexdigest()
        [reservation] = self._ec2.describe_instances(InstanceIds=[self.id])["Reservations"]
        image = reservation["Instances"][0]["ImageId"]
        tags = self._ec2.describe_images(ImageIds=[image])["Images"][0]["Tags"]
        return str({tag["Key"]: tag["Value"] for tag in tags}["transcribe:payload"])

    def report(self, **changes: Any) -> Report:
        """A success, but for `changes`."""
        return {
            "schema": 1,
            "build_id": self.parameters["build_id"],
            "nonce": self.parameters["nonce"],
            "mode": self.mode,
            "payload_sha256": self.payload_sha256(),
            "verdict": "success",
            "reason": "",
            "phases": [{"name": "apply", "seconds": 1.0}],
            "salt": {"first": APPLY, "second": {**APPLY, "changed": 0}},
            "checks": [{"name": "api-unit", "verdict": "pass", "detail": "active"}],
            "clip": {"text": self._reference, "audio_seconds": 7.0, "seconds": 1.0},
            "audio": {"text": "hello"} if self.parameters.get("audio") else None,
            "boot_to_ready_seconds": 4.0,
            "facts": {},
            "manifest": manifest_of(self.payload_sha256()),
            **changes,
        }

    def put(self, name: str, content: Any) -> None:
        """Upload to one of the addresses that the machine was given: `report`, `progress` or `log`."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        addresses = self._addresses()
        requests.put(
            addresses[f"{name}_url"], data=data, headers=addresses["upload_headers"], timeout=10
        ).raise_for_status()

    def power_off(self) -> None:
        """What shutting down from inside does: the instance is terminated."""
        self._ec2.terminate_instances(InstanceIds=[self.id])


class Fleet(threading.Thread):
    """Finds instances as they start and runs the script of their mode, once each."""

    def __init__(self, session: boto3.Session, endpoint: str, reference: str) -> None:
        super().__init__(daemon=True)
        self._ec2: Any = session.client("ec2", endpoint_url=endpoint)
        self._reference = reference
        self._ended = threading.Event()
        self.scripts: dict[str, Script] = {"bake": succeed, "verify": succeed}
        self.seen: dict[str, FakeMachine] = {}
        self.errors: list[Exception] = []

    def run(self) -> None:
        while not self._ended.is_set():
            for reservation in self._ec2.describe_instances()["Reservations"]:
                for instance in reservation["Instances"]:
                    if instance["InstanceId"] not in self.seen and instance["State"]["Name"] == "running":
                        self._begin(instance["InstanceId"])
            time.sleep(0.1)

    def _begin(self, instance_id: str) -> None:
        try:
            machine = self.seen[instance_id] = FakeMachine(self._ec2, instance_id, self._reference)
            self.scripts[machine.mode](machine)
        except Exception as error:  # shown by the test that waits for it
            if self._runs(instance_id):  # and not taken away, with its image, in the middle of it
                self.errors.append(error)

    def _runs(self, instance_id: str) -> bool:
        (reservation,) = self._ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
        return bool(reservation["Instances"][0]["State"]["Name"] == "running")

    def end(self) -> None:
        self._ended.set()
        self.join()


def succeed(machine: FakeMachine) -> None:
    """Report progress and a success."""
    progress = {"build_id": machine.parameters["build_id"], "phase": "apply", "state": "layout", "done": 1, "total": 12}
    machine.put("progress", progress)
    machine.put("report", machine.report())


def looked(machine: FakeMachine, **facts: Any) -> None:
    """Report what a machine saw that was only to look; `facts` are otherwise than usual."""
    usual: Report = {
        "system": "Debian GNU/Linux 12 (bookworm)", "python": "3.11.2", "architecture": "x86_64", "free_gb": 35.0,
        "needed_gb": 14.0, "gpu_on_bus": True, "nvidia_devices": ["nvidia0"], "packages_busy": "",
        "needrestart": False, "venv": True, "reachable": {"pip": "", "apt": "", "hub": ""},
    }  # fmt: skip
    same = {key: machine.parameters[key] for key in ("build_id", "nonce", "mode")}
    machine.put("report", {**same, "verdict": "success", "facts": {**usual, **facts}})
