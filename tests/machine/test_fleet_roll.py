"""A new image replaces a fleet's machine under load, and a bad one is taken back: real machines of the local cloud.

`./tests/run fleet`. The load is a client that sends one request after another, as a balancer would lead it, and one job
every few seconds.
"""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import requests
from localcloud import LocalCloud, LocalCloudError
from support.baked_machine import ROOT, BakedMachine, ec2
from support.fleet_drill import NAME, PORT, Drill, numbered, sound, write_key
from support.waiting import until
from transcribe.fleet import submission
from transcribe.fleet.documents import Request
from transcribe.fleet.layout import job_id
from transcribe.types import DecodeOptions

pytestmark = pytest.mark.fleet
CLIP = "austen-0880"  # 3 seconds
SECONDS = 2.99
READY_SECONDS, JOBS_SECONDS = 300.0, 240.0
EVERY_SECONDS = 4.0  # a job
QUIET, FLOOD = 9, 150  # jobs
CODE = ("/opt/transcribe/scripts", "/srv/transcribe/service")  # what runs, and what is put there at the next start
# What is wrong with an image: the file, and a command of sed.
BAD = {
    "wrong": ("transcribe/engine/decode/segments.py", "s/self._tokenizer.decode(piece.tokens)/' Something else'/"),
    "slow": ("transcribe/engine/__init__.py", "s/return self._scheduler.step()/time.sleep(1.0); &/"),
    "silent": ("transcribe_optimized.py", "1i raise SystemExit(1)"),
}


def again(stop: threading.Event, each: Callable[[], object], pause: float) -> None:
    """Does it again and again until it is stopped."""
    while not stop.wait(pause):
        each()


def name(kind: str) -> str:
    """Of an image, as the launcher finds it."""
    return f"transcribe-rehearsal-drill-{kind}-{time.time_ns()}"


def copied(image: str) -> str:
    """The same under another id, as a bake without a change would make it."""
    asked = {"SourceImageId": image, "SourceRegion": ec2().meta.region_name, "Name": name("good")}
    return verified(ec2().copy_image(**asked)["ImageId"])


def verified(image: str) -> str:
    ec2().create_tags(
        Resources=[image],
        Tags=[{"Key": "transcribe:bake", "Value": "drill"}, {"Key": "transcribe:verified", "Value": "true"}],
    )
    return image


def spoilt(image: str) -> dict[str, str]:
    """An image of each kind of BAD."""
    made = {}
    [started] = ec2().run_instances(ImageId=image, InstanceType="g4dn.xlarge", MinCount=1, MaxCount=1)["Instances"]
    machine = BakedMachine(started["InstanceId"])
    try:
        LocalCloud.wait_booted(ROOT, machine.id, seconds=READY_SECONDS)
        machine.sh("systemctl stop transcribe-api transcribe-worker")
        for kind, (file, change) in BAD.items():
            files = [f"{folder}/{file}" for folder in CODE]
            machine.run("sed", "-i.right", change, *files)
            assert machine.sh(f"cmp {files[0]} {files[0]}.right || true"), f"nothing in {file} is {kind}"
            asked = {"InstanceId": machine.id, "Name": name(kind), "NoReboot": True}
            made[kind] = verified(ec2().create_image(**asked)["ImageId"])
            machine.sh(f"for file in {' '.join(files)}; do mv $file.right $file; done")
    finally:
        ec2().terminate_instances(InstanceIds=[machine.id])
    return made


@dataclass
class Load:
    """A client's requests, and jobs, until it is stopped."""

    drill: Drill
    sound: bytes
    answers: list[tuple[str, str]] = field(default_factory=list)  # machine and text, or what went wrong
    jobs: list[str] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[None]:
        """From now to the end of the block."""
        stop = threading.Event()
        threads = [
            threading.Thread(target=again, args=(stop, each, pause), daemon=True)
            for each, pause in ((self.ask, 0.5), (self.send, EVERY_SECONDS))
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)

    def ask(self) -> None:
        """One request to a machine that a balancer would choose: it serves, and says that it is ready."""
        for machine in self.drill.serving():
            try:
                url = LocalCloud.url_of(ROOT, machine, PORT)
                if requests.get(f"{url}/ready", timeout=5).status_code != 200:
                    continue
            except (LocalCloudError, requests.RequestException):
                continue
            self.answers.append((machine, self._asked(url)))
            return

    def _asked(self, url: str) -> str:
        headers = {"Authorization": f"Bearer {self.drill.key}", "Cache-Control": "no-cache"}
        try:
            answer = requests.post(
                f"{url}/v1/audio/transcriptions",
                data={"model": "whisper-1", "language": "en"},
                files={"file": ("clip.wav", self.sound)},
                headers=headers,
                timeout=60,
            )
        except requests.RequestException as error:
            return f"FAILED {error}"
        return str(answer.json()["text"]) if answer.ok else f"FAILED {answer.status_code} {answer.text[:200]}"

    def send(self, owner: str = "newsroom") -> str:
        """One job."""
        number = len(self.jobs)
        content, job = numbered(self.sound, number), job_id("load", owner, str(time.time_ns()))
        request = Request(
            job=job, owner=owner, options=DecodeOptions(language="en"), bytes=len(content), seconds=SECONDS,
            suffix=".wav", name=f"{owner} {number}", created=time.time(),
        )  # fmt: skip
        drill = self.drill
        submission.submit(drill.bucket, drill.queues, drill.layout, request, lambda key: drill.bucket.put(key, content))
        self.jobs.append(job)
        return job

    def assert_whole(self, what: str) -> None:
        """No request has failed and no job is lost, and all have the same text."""
        until(lambda: not self.drill.undone(self.jobs), JOBS_SECONDS, lambda: self.drill.undone(self.jobs))
        texts = {self.drill.text(job).strip() for job in self.jobs}
        heard = {text.strip() for _, text in self.answers}
        machines = len({machine for machine, _ in self.answers})
        print(f"{what}: {len(self.answers)} requests to {machines} machines, {len(self.jobs)} jobs: {heard} {texts}")
        assert len(heard | texts) == 1, heard | texts


@pytest.fixture(scope="module")
def drill(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drill]:
    """A group with one machine that is ready."""
    folder = tmp_path_factory.mktemp("roll")
    made = Drill(folder, write_key(folder))
    made.forget()
    made.bake("publish", image)
    try:
        made.launch(group=True)
        made.want(1)
        until(lambda: len(made.ready()) == 1, READY_SECONDS, made.members)
        yield made
    finally:
        made.bake("launch", "--end")


@pytest.fixture(scope="module")
def bad(image: str) -> dict[str, str]:
    return spoilt(image)


@pytest.fixture
def load(drill: Drill) -> Load:
    return Load(drill, sound(CLIP, drill.folder))


def rolled(drill: Drill, image: str) -> tuple[int, float, str]:
    """How `publish --roll` ended, after how many seconds, and its last words."""
    began = time.monotonic()
    code, told = drill.try_to_bake("publish", image, "--roll", NAME)
    return code, time.monotonic() - began, told


@pytest.mark.parametrize("kind", list(BAD))
def test_a_bad_image_is_taken_back_and_nobody_sees_it(drill: Drill, load: Load, bad: dict[str, str], kind: str) -> None:
    before = drill.serving()
    with load.running():
        code, seconds, told = rolled(drill, bad[kind])
    print(f"{kind}: after {seconds:.0f} s: {told}")
    assert code == 1
    assert f"was not published; it is {kind}" in told
    load.assert_whole(kind)
    assert drill.serving() == before


def test_a_good_image_replaces_the_machine_under_load(drill: Drill, load: Load, image: str) -> None:
    before, new = drill.serving(), copied(image)
    with load.running():
        code, seconds, told = rolled(drill, new)
        assert code == 0, told
        until(lambda: not set(before) & set(drill.members()), READY_SECONDS, drill.members)
        until(lambda: len({machine for machine, _ in load.answers}) == 2, READY_SECONDS, lambda: load.answers)
    load.assert_whole(f"good, after {seconds:.0f} s")
    assert drill.images() == {new}


def test_a_quiet_owner_does_not_wait_behind_a_flood(drill: Drill, load: Load) -> None:
    def waits() -> float:
        """The quiet owner's median, from one job's sending to its end."""
        found = []
        for _ in range(QUIET):
            job = load.send("quiet")
            until(lambda job=job: not drill.undone([job]), JOBS_SECONDS)  # type: ignore[misc]
            found.append(drill.seconds(job))
        return statistics.median(found)

    alone = waits()
    for _ in range(FLOOD):
        load.send("loud")
    beside = waits()
    left = len(drill.undone(load.jobs))
    print(f"a quiet owner waits {alone:.1f} s alone, {beside:.1f} s beside a flood of {FLOOD}: {left} wait at the end")
    load.assert_whole("flood")
    assert left, "the quiet owner's last job is done before the flood is"
