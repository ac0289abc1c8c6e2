"""A fleet of real machines in a group of the local cloud, as the drill needs it: sent to, disturbed, counted."""

import json
import os
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import requests
from localcloud import LocalCloud, LocalCloudError
from transcribe.fleet import queues, states, submission
from transcribe.fleet.bucket import Bucket
from transcribe.fleet.documents import Request, State, decoded
from transcribe.fleet.layout import Layout
from transcribe.keys import new_key

from support.baked_machine import ROOT, BakedMachine

NAME, QUEUE, PORT = "fleet-drill", "drill", 8000
PREFIX = "transcribe-fleet/drill"  # the role of machines permits what lies below transcribe-fleet
COMMAND_SECONDS = 600


def sound(clip: str, folder: Path) -> bytes:
    """One of the recordings of the tests as a WAV file."""
    wav = folder / f"{clip}.wav"
    source = str(ROOT / f"tests/audio/{clip}.flac")
    subprocess.run(["ffmpeg", "-y", "-v", "error", "-i", source, "-bitexact", str(wav)], check=True)
    return wav.read_bytes()


def numbered(wav: bytes, number: int) -> bytes:
    """The same sound in a file of its own: a WAV file with a note behind the sound, which decoders pass over."""
    note = b"INFOICMT" + struct.pack("<I", 8) + f"{number:08d}".encode()
    body = wav[8:] + b"LIST" + struct.pack("<I", len(note)) + note
    return b"RIFF" + struct.pack("<I", len(body)) + body


def begun(machine: str) -> Counter[str]:
    """How often the machine's workers have begun each job; nothing of a machine that is gone."""
    journal = ["journalctl", "--quiet", "--output=cat", "--unit=transcribe-worker", "--grep=job_started"]
    try:
        said = BakedMachine(machine).run(*journal, check=False).stdout
    except (LocalCloudError, subprocess.TimeoutExpired):
        return Counter()
    return Counter(json.loads(line)["job"] for line in said.splitlines())


@dataclass
class Drill:
    """The group, and whoever submits to it. `folder` holds its configuration and keys."""

    folder: Path
    key: str
    begun: dict[str, Counter[str]] = field(default_factory=dict)  # by machine

    def __post_init__(self) -> None:
        cloud = LocalCloud.ensure(ROOT)
        session: Any = boto3.Session(cloud.access_key_id, cloud.secret_access_key, region_name=cloud.region)
        self.clients = {
            name: session.client(name, endpoint_url=cloud.api_url) for name in ("ec2", "s3", "sqs", "autoscaling")
        }
        self.bucket, self.layout = Bucket(self.clients["s3"], cloud.bucket), Layout(PREFIX)
        security = self.clients["ec2"].describe_security_groups()["SecurityGroups"][0]["GroupId"]
        (self.folder / "fleet.toml").write_text(
            f'[fleet]\nqueue = "{QUEUE}"\nprefix = "{PREFIX}"\nprofile = "transcribe-fleet"\nowner = "newsroom"\n'
            "wait_minutes = 1\nidle_minutes = 3\n"
            f'[launch]\nname = "{NAME}"\nsecurity_groups = ["{security}"]\nmin_size = 0\nmax_size = 3\n'
            f"[launch.pillar]\nfleet = {{ hold_seconds = 30, leave_seconds = 20 }}\n"
        )

    def bake(self, command: str, *arguments: str) -> str:
        """What `bake.py COMMAND --cloud local` prints."""
        code, told = self.try_to_bake(command, *arguments)
        assert code == 0, f"{command}: {told[-5000:]}"
        return told

    def try_to_bake(self, command: str, *arguments: str) -> tuple[int, str]:
        """How it ends, and what it prints."""
        argv = [sys.executable, str(ROOT / "tools/bake.py"), command, "--cloud=local"]
        argv += [f"--config={self.folder / 'fleet.toml'}", *arguments]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        done = subprocess.run(
            argv, cwd=ROOT, check=False, capture_output=True, text=True, timeout=COMMAND_SECONDS, env=environment
        )
        return done.returncode, f"{done.stdout}{done.stderr}"

    def launch(self, *, group: bool) -> None:
        """Make the group, of no machines yet; or start a machine that joins, and wait until it serves."""
        self.bake("launch", "--group" if group else "--wait", f"--keys={self.folder / 'keys'}")

    @property
    def queues(self) -> queues.Queues:
        """The group's."""
        found = queues.find(self.clients["sqs"], QUEUE)
        assert found
        return found

    def want(self, machines: int) -> None:
        """Set how many machines the group is to have."""
        self.clients["autoscaling"].set_desired_capacity(AutoScalingGroupName=NAME, DesiredCapacity=machines)

    def members(self) -> list[str]:
        """The ids of its machines."""
        return [one["InstanceId"] for one in self._members()]

    def serving(self) -> list[str]:
        """The ids of those that a balancer would send requests to, if they are ready."""
        return [one["InstanceId"] for one in self._members() if one["LifecycleState"] == "InService"]

    def _members(self) -> list[dict[str, Any]]:
        groups = self.clients["autoscaling"].describe_auto_scaling_groups(AutoScalingGroupNames=[NAME])
        return [one for group in groups["AutoScalingGroups"] for one in group["Instances"]]

    def images(self) -> set[str]:
        """Those of its machines."""
        found = self.clients["ec2"].describe_instances(InstanceIds=self.members())["Reservations"]
        return {one["ImageId"] for each in found for one in each["Instances"]}

    def ready(self) -> list[str]:
        """Those that take jobs now."""
        return [machine for machine in self.members() if self._look(machine)]

    def _look(self, machine: str) -> bool:
        try:
            url = LocalCloud.url_of(ROOT, machine, PORT)
            return requests.get(f"{url}/ready", timeout=5).status_code == 200
        except (LocalCloudError, requests.RequestException):
            return False

    def count_begun(self, machines: Iterable[str]) -> None:
        """Note which jobs these have begun until now: after a machine's end nobody can ask it."""
        for machine in machines:
            self.begun[machine] = max(self.begun.get(machine, Counter()), begun(machine), key=Counter.total)

    def begun_again(self, jobs: Iterable[str]) -> Counter[str]:
        """How often each of the jobs was begun after its first time: all of it may have been heard again."""
        everywhere = sum(self.begun.values(), Counter[str]())
        return Counter({job: everywhere[job] - 1 for job in jobs if everywhere[job] > 1})

    def jobs(self) -> list[str]:
        """The ids of all."""
        return [Path(key).stem for key in self.bucket.keys(self.layout.states)]

    def states(self) -> list[State]:
        """Of all jobs."""
        found = (states.read(self.bucket, self.layout, job) for job in self.jobs())
        return [known[0] for known in found if known]

    def undone(self, jobs: Sequence[str]) -> list[State]:
        """The states of those that are not done."""
        found = (states.read(self.bucket, self.layout, job) for job in jobs)
        return [known[0] for known in found if known and known[0].status != "done"]

    def seconds(self, job: str) -> float:
        """From its sending to its end."""
        known = states.read(self.bucket, self.layout, job)
        assert known
        return (known[0].finished or 0.0) - known[0].created

    def text(self, job: str) -> str:
        """The job's transcript."""
        found = self.bucket.read(self.layout.transcript(job, "text"))
        return found.data.decode() if found else ""

    def over(self) -> int:
        """How many jobs have results. Of those that end at this moment not all may be there."""
        pages = self.clients["s3"].get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=self.bucket.name, Prefix=f"{self.layout.prefix}/out/", Delimiter="/")
        return sum(len(page.get("CommonPrefixes", [])) for page in found)

    def results(self) -> Mapping[str, int]:
        """How many times each job's outcome was written; the bucket keeps all versions. To be asked once: for each page
        moto copies the whole bucket, and keeps the copy."""
        counts: dict[str, int] = {}
        pages = self.clients["s3"].get_paginator("list_object_versions")
        for page in pages.paginate(Bucket=self.bucket.name, Prefix=f"{self.layout.prefix}/out/"):
            for version in page.get("Versions", []):
                if version["Key"].endswith("/outcome.json"):
                    job = version["Key"].split("/")[-2]
                    counts[job] = counts.get(job, 0) + 1
        return counts

    def keep_versions(self, *, on: bool) -> None:
        """Let the bucket keep what is overwritten."""
        status = {"Status": "Enabled" if on else "Suspended"}
        self.clients["s3"].put_bucket_versioning(Bucket=self.bucket.name, VersioningConfiguration=status)

    def forget(self) -> None:
        """Remove what earlier drills have left in the bucket."""
        for part in ("jobs", "state", "checkpoint", "out"):
            self.bucket.delete(list(self.bucket.keys(f"{self.layout.prefix}/{part}/")))

    # --- what goes wrong

    def kill_process(self, machine: str, unit: str) -> None:
        """End one of a machine's processes at once."""
        BakedMachine(machine).run("systemctl", "kill", "--signal=KILL", f"transcribe-{unit}", check=False)

    def kill_machine(self, machine: str) -> None:
        """A machine loses its power; the group replaces it."""
        self.count_begun([machine])
        self.clients["ec2"].terminate_instances(InstanceIds=[machine])

    def notify_spot(self, machine: str) -> None:
        """AWS wants a machine back in two minutes."""
        LocalCloud.notify_spot(ROOT, machine)

    def cut(self, machine: str, seconds: float) -> None:
        """Nothing of a machine's comes through to AWS for a while, and no answer either."""
        BakedMachine(machine).network(
            f"ip address del 10.0.2.4/32 dev lo; (sleep {seconds}; ip address add 10.0.2.4/32 dev lo) >&- 2>&- <&- &"
        )

    def deliver_again(self, job: str) -> None:
        """The queue delivers a job's message twice."""
        found = self.bucket.read(self.layout.request(job))
        assert found
        submission.send(self.queues, decoded(found.data, Request))


@dataclass
class Ledger:
    """What happened, for who runs the drill."""

    began: float = field(default_factory=time.monotonic)
    moments: list[tuple[float, int, int, str]] = field(default_factory=list)

    def note(self, machines: int, over: int, what: str) -> None:
        """Something happened, with so many machines ready and so many jobs over."""
        self.moments.append((time.monotonic() - self.began, machines, over, what))
        print(_row(*self.moments[-1]), flush=True)

    def table(self, totals: Mapping[str, object]) -> str:
        """All of it, and the totals below."""
        rows = [f"{'seconds':>8}  {'machines':>8}  {'jobs over':>9}  event"]
        rows += [_row(*moment) for moment in self.moments]
        return "\n".join([*rows, "", *(f"{name:<42} {value}" for name, value in totals.items())])


def _row(when: float, machines: int, over: int, what: str) -> str:
    return f"{when:8.0f}  {machines:8}  {over:9}  {what}"


def plan(counts: Mapping[str, int]) -> Sequence[str]:
    """Disturbances in turn, each kind spread over the whole."""
    spread = [((index + 0.5) / count, kind) for kind, count in counts.items() for index in range(count)]
    return [kind for _, kind in sorted(spread)]


def write_key(folder: Path) -> str:
    """A key, whose line is in the folder's keys file."""
    key, line = new_key("drill")
    (folder / "keys").write_text(line)
    return key
