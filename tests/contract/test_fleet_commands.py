"""The launcher's commands for a fleet: recordings are sent once, jobs are shown, tried again and ended."""

import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from baker import cli
from baker.config import from_mapping
from baker.deploy import template
from baker.fleet import cloud as baker_cloud
from baker.fleet import jobs as fleet_jobs
from baker.fleet.jobs import Wanted
from baker.fleet.recordings import Recording
from msgspec import structs
from support import fleets
from support.fleets import Feeder, FleetCloud, audio
from support.project_tree import make_tree
from transcribe.fleet import queues, states
from transcribe.fleet.documents import Message, Request, decoded
from transcribe.types import DecodeOptions, SpeakerOptions

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cloud() -> Iterator[FleetCloud]:
    with fleets.fleet_cloud() as made:
        yield made


@pytest.fixture
def config(cloud: FleetCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in fleets.KEYS.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "bake.toml"
    file.write_text(
        f'[aws]\nregion = "{fleets.REGION}"\nendpoint_url = "{cloud.url}"\n[s3]\nbucket = "{fleets.BUCKET}"\n'
        '[source]\nami = "ami-1"\n[fleet]\nqueue = "speech"\nowner = "newsroom"\n'
    )
    return file


def listed(config: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, Any]]:
    assert cli.main(["jobs", "--json", *options, "--config", str(config)]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_recordings_are_sent_once_tried_again_and_ended(
    cloud: FleetCloud, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "archive"
    (folder / ".hidden").mkdir(parents=True)
    for name in ("one.wav", "two.wav", "copy of two.wav", ".hidden/three.wav"):
        (folder / name).write_bytes(audio(name.removeprefix("copy of ")))
    submit = ["submit", str(folder), "--language", "Swedish", "--format", "srt", "--config", str(config)]
    assert cli.main(submit) == 0
    assert cli.main(submit) == 0
    told = capsys.readouterr().out
    assert "0 sent, 3 had been sent before" in told
    jobs = {Path(job["name"]).name.removeprefix("copy of "): job for job in listed(config, capsys)}
    assert set(jobs) == {"one.wav", "two.wav"}
    assert {(job["status"], job["owner"], job["sent"]) for job in jobs.values()} == {("queued", "newsroom", True)}
    one, two = jobs["one.wav"]["job"], jobs["two.wav"]["job"]
    assert cloud.waiting(cloud.queues.usual)[0] >= 2
    assert cli.main(["jobs", "--cancel", one, "--config", str(config)]) == 0
    assert cli.main(["jobs", "--cancel", one, "--config", str(config)]) == 2
    assert cli.main(["jobs", "--redrive", two, "--config", str(config)]) == 2
    assert "only a job that was given up" in capsys.readouterr().err
    while taken := cloud.queues.usual.receive(hold=60, wait=0):
        cloud.queues.usual.delete(taken.receipt)
        dead = taken.body
        if two.encode() in taken.body:
            cloud.queues.dead.send(dead, "newsroom")
    assert [job["job"] for job in listed(config, capsys, "--dead")] == [two]
    for each in range(2):  # whoever looks keeps the messages to himself for a while: that is no obstacle
        assert cli.main(["jobs", "--redrive", two, "--config", str(config)]) == (2 if each else 0)
    capsys.readouterr()
    again = cloud.queues.usual.receive(hold=60, wait=0)
    assert again
    assert two.encode() in again.body
    cloud.queues.dead.send(again.body, "newsroom")  # from before: the job is tried again since
    assert cloud.state(two).message == again.id
    assert listed(config, capsys, "--dead") == []
    assert {job["job"]: job["status"] for job in listed(config, capsys)} == {one: "cancelled", two: "queued"}


def test_what_was_given_up_says_why(
    cloud: FleetCloud, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the machine that could not do it, if one has lived to say so; and it can be tried again at once."""
    changed = cloud.submit(audio("changed"), owner="newsroom", sha256="0" * 64, name="changed.wav")
    missing, unreadable, lost = (cloud.submit(audio(name), owner="newsroom") for name in ("gone", "spoilt", "lost"))
    cloud.bucket.delete([cloud.layout.audio(missing)])
    cloud.bucket.put(cloud.layout.request(unreadable), b"[]")
    while taken := cloud.queues.usual.receive(hold=60, wait=0):
        cloud.queues.usual.delete(taken.receipt)
    cloud.queues.dead.send(Message(job=lost).encoded(), "newsroom")
    cloud.queues.dead.send(event("in/bert/talk.wav"), "newsroom")
    reasons = {
        changed: "changed.wav: The recording in the bucket is not the one that was sent: its SHA-256 is another one.",
        missing: "-: The recording is not in the bucket any more.",
        unreadable: "-: What is asked of this job cannot be read: no request: Expected `object`, got `array`",
        lost: "-: Several machines have taken this recording, and none could say why it was not done: they were lost",
    }
    with fleets.machine(tmp_path / "a", cloud, fleet__hold_seconds=2) as here:
        feeder = Feeder(cloud, here)
        tried = (changed, missing, unreadable)
        for job in tried:
            cloud.queues.usual.send(Message(job=job).encoded(), "newsroom")
        feeder.take(lambda: all(cloud.state(job).status == "dead" for job in tried))
        assert {cloud.state(job).attempts for job in tried} == {queues.TRIES}
        error = feeder.ask(do="look", job=changed)["answer"]["state"]["error"]
    assert error["code"] == "recording_changed", "so that it is told over HTTP as well"
    assert cli.main(["jobs", "--dead", "--config", str(config)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for job, why in reasons.items():
        [line] = [line for line in lines if line.startswith(job)]
        assert line.startswith(f"{job}  {why}")
    drop = f"s3://{fleets.BUCKET}/in/bert/talk.wav"
    assert f"{drop}: no machine made a job of it; bake.py submit {drop} sends it" in lines
    assert cli.main(["jobs", "--redrive", "all", "--config", str(config)]) == 1
    output = capsys.readouterr()
    assert "3 jobs wait again" in output.out
    assert "1 of 4 jobs could not be tried again" in output.err
    assert [job["job"] for job in listed(config, capsys, "--dead")] == [unreadable]
    set_state(cloud, unreadable, "cancelled")


def test_all_that_was_given_up_is_found_and_tried_again(
    cloud: FleetCloud, config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, and though those that were seen first come again while the rest is looked at."""
    monkeypatch.setattr(fleet_jobs, "LOOK_SECONDS", 1)
    monkeypatch.setattr(fleet_jobs, "AT_ONCE", 1)
    receive = queues.Queue.receive_some

    def slowly(self: queues.Queue, *arguments: Any, **more: Any) -> Any:
        time.sleep(0.4)
        return receive(self, *arguments, **more)

    jobs = {cloud.submit(audio(f"dead {number}"), owner="newsroom") for number in range(40)}
    while taken := cloud.queues.usual.receive(hold=60, wait=0):
        cloud.queues.usual.delete(taken.receipt)
    before = sum(cloud.waiting(cloud.queues.dead))
    for job in jobs:
        cloud.queues.dead.send(Message(job=job).encoded(), "newsroom")
    with monkeypatch.context() as patched:
        patched.setattr(queues.Queue, "receive_some", slowly)
        assert cli.main(["jobs", "--redrive", "all", "--config", str(config)]) == 0
    assert "40 jobs wait again" in capsys.readouterr().out
    assert sum(cloud.waiting(cloud.queues.dead)) == before
    assert listed(config, capsys, "--dead") == []
    assert {cloud.state(job).status for job in jobs} == {"queued"}
    while taken := cloud.queues.usual.receive(hold=60, wait=0):
        cloud.queues.usual.delete(taken.receipt)


def test_what_came_to_nothing_is_sent_again_on_demand_and_what_is_good_never(
    cloud: FleetCloud, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "again"
    folder.mkdir()
    for name in ("done", "failed", "cancelled", "dead", "queued"):
        (folder / f"{name}.wav").write_bytes(audio(f"again {name}"))

    def submit(*more: str) -> str:
        assert cli.main(["submit", str(folder), *more, "--config", str(config)]) == 0
        return " ".join(capsys.readouterr().out.split())

    def mine() -> list[tuple[str, str]]:
        return [(job["job"], job["status"]) for job in listed(config, capsys) if str(folder) in job["name"]]

    submit()
    for job in listed(config, capsys):
        if str(folder) in job["name"]:
            set_state(cloud, job["job"], Path(job["name"]).stem)
    told = submit()
    assert "0 sent, 5 had been sent before" in told
    assert "of those that had been sent before 1 cancelled, 1 dead, 1 failed: --again sends them again" in told
    assert "3 sent, 2 had been sent before" in submit("--again")
    assert Counter(status for _, status in mine()) == {"done": 1, "failed": 1, "cancelled": 1, "queued": 4}
    for more in ((), ("--again",)):  # those that wait now are no worse than the others
        told = submit(*more)
        assert "0 sent, 5 had been sent before" in told
        assert "--again" not in told
    for each, status in mine():
        if status == "queued":
            set_state(cloud, each, "failed")
    assert "4 sent, 1 had been sent before" in submit("--again")
    while taken := cloud.queues.usual.receive(hold=60, wait=0):
        cloud.queues.usual.delete(taken.receipt)


def set_state(cloud: FleetCloud, job: str, status: Any) -> None:
    states.change(cloud.bucket, cloud.layout, job, lambda state: structs.replace(state, status=status))


def event(key: str) -> bytes:
    """What S3 sends of an object."""
    told = {"bucket": {"name": fleets.BUCKET}, "object": {"key": key, "size": 9, "eTag": "e"}}
    return json.dumps({"Records": [{"eventName": "ObjectCreated:Put", "s3": told}]}).encode()


def test_a_job_that_is_worked_on_is_not_tried_again(
    cloud: FleetCloud, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = cloud.submit(audio("a long one"), owner="newsroom")
    while taken := cloud.queues.usual.receive(hold=60, wait=0):
        cloud.queues.usual.delete(taken.receipt)
        if job.encode() in taken.body:
            cloud.queues.dead.send(taken.body, "newsroom")  # as the queue does after twelve hours
    states.change(cloud.bucket, cloud.layout, job, lambda state: structs.replace(state, status="running", machine="a"))
    assert cli.main(["jobs", "--redrive", job, "--config", str(config)]) == 2
    assert f"the job {job} is worked on" in capsys.readouterr().err
    assert (cloud.state(job).status, cloud.queues.usual.receive(hold=1, wait=0)) == ("running", None)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["submit", "no-such-folder"], "no-such-folder: there is no such file or folder"),
        (["submit", ".", "--language", "Klingonese"], "--language Klingonese: use a code such as sv"),
        (["submit", ".", "--languages", "sv,Klingonese"], "--languages Klingonese: use a code such as sv"),
        (["submit", ".", "--language", "sv", "--multilingual"], "--multilingual finds the languages out"),
        (["submit", ".", "--max-speakers", "0"], "--max-speakers must be a whole number from 1 to 50"),
        (["submit", ".", "--min-speakers", "3", "--max-speakers", "2"], "--min-speakers is more than --max-speakers"),
        (["submit", ".", "--format", "doc"], "--format must be one of"),
        (["submit", "s3://fleet/none"], "s3://fleet/none: there is nothing to submit"),
        (["jobs", "--cancel", "x"], "'x' is no id of a job"),
        (["jobs", "--redrive", "0" * 32], "there is no job"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    config: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    assert cli.main([*arguments, "--config", str(config)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert reason in line


def test_what_is_asked_for_reaches_the_machines(
    cloud: FleetCloud, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "talk.wav"
    file.write_bytes(audio("a talk"))

    def sent(*more: str) -> Request:
        assert cli.main(["submit", str(file), *more, "--config", str(config)]) == 0
        job = re.search(r"job (\w{32})", capsys.readouterr().out)
        assert job
        found = cloud.bucket.read(cloud.layout.request(job[1]))
        assert found
        return decoded(found.data, Request)

    plain = sent()
    assert (plain.options, plain.default_language) == (DecodeOptions(None, words=True), True)
    assert sent("--format", "diarized_json").options.speakers == SpeakerOptions()
    found = sent("--max-speakers", "3", "--channels", "auto", "--languages", "Swedish,en", "--multilingual")
    assert found.job != plain.job
    assert found.options == DecodeOptions(
        None,
        words=True,
        candidates=("sv", "en"),
        multilingual=True,
        channels="auto",
        speakers=SpeakerOptions(max_speakers=3),
    )
    one = sent("--languages", "fi")
    assert (one.options.language, one.default_language) == ("fi", False)


def test_a_large_submission_says_what_it_is_and_wants_to_be_meant(
    cloud: FleetCloud, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = tmp_path / "large.mp3"
    with large.open("wb") as file:
        file.truncate(101 * 3600 * 8000)
    assert cli.main(["submit", str(large), "--config", str(config)]) == 2
    told = capsys.readouterr()
    assert "1 recordings, about 101.0 hours of audio" in told.out
    assert "--yes" in told.err


def test_launched_machines_join_the_fleet_with_their_role(tmp_path: Path) -> None:
    document: dict[str, Any] = {
        "aws": {"region": "eu-north-1"}, "s3": {"bucket": "b"}, "source": {"ami": "ami-1"},
        "fleet": {"queue": "speech", "profile": "fleet"}, "prices": {"g4dn.xlarge": 0.5},
    }  # fmt: skip
    config, root = from_mapping(document), make_tree(tmp_path / "tree")
    setup = template.service_setup(root, config)
    assert setup.overrides["fleet"] == {
        "queue": "speech", "bucket": "b", "prefix": "transcribe-fleet", "region": "eu-north-1",
        "owner": "", "wait_minutes": 30, "idle_minutes": 15, "price": 0.5,
    }  # fmt: skip
    assert template.template_data(config, setup, ["sg-1"], "/dev/xvda")["IamInstanceProfile"] == {"Name": "fleet"}


def test_what_cannot_be_read_keeps_nothing_else_back(
    cloud: FleetCloud, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a file among those that are sent, nor a job's state among those that are shown."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in ("good.wav", "again.wav"):
        (folder / name).write_bytes(audio("good"))
    (folder / os.fsdecode(b"caf\xe9.wav")).write_bytes(audio("latin"))
    (folder / "two\nlines.wav").write_bytes(audio("lines"))
    (folder / "empty.wav").touch()
    (folder / "nowhere.wav").symlink_to("none")
    assert cli.main(["submit", str(folder), "--config", str(config)]) == 1
    told = capsys.readouterr()
    assert "3 sent, 1 had been sent before" in told.out
    assert "empty.wav: it is empty" in told.out
    assert "nowhere.wav: No such file or directory" in told.out
    assert "2 of 6 could not be sent" in told.err
    assert len(told.err.splitlines()) == 1
    bad = cloud.submit(audio("spoilt"), owner="newsroom")
    cloud.bucket.put(cloud.layout.state(bad), b"[]")
    try:
        names = {job["name"] for job in listed(config, capsys)}
        assert {str(folder / "caf\N{REPLACEMENT CHARACTER}.wav"), str(folder / "two\nlines.wav")} <= names
        for what in ("--cancel", "--redrive"):
            assert cli.main(["jobs", what, bad, "--config", str(config)]) == 1
            [line] = capsys.readouterr().err.splitlines()
            assert f"a document of the job {bad} cannot be read, no state: Expected `object`" in line
        cloud.queues.dead.send(Message(job=bad).encoded(), "newsroom")
        assert [(job["job"], job["error"]["code"]) for job in listed(config, capsys, "--dead")] == [(bad, "unreadable")]
    finally:
        cloud.bucket.delete([cloud.layout.state(bad)])


def test_an_object_that_was_replaced_since_it_was_seen_is_not_taken_for_the_other(cloud: FleetCloud) -> None:
    cloud.bucket.put("elsewhere/talk.wav", audio("seen"))
    seen = Recording("talk", len(audio("seen")), 1.0, bucket=fleets.BUCKET, key="elsewhere/talk.wav", etag='"0"')
    here = baker_cloud.FleetCloud(cloud.bucket, cloud.queues, cloud.layout, "newsroom")
    wanted = Wanted(DecodeOptions(None, words=True), "json", priority=False, default_language=True)
    [sent] = fleet_jobs.submit(here, [seen], wanted)
    assert (sent.new, "AWS refused to take talk" in sent.problem) == (False, True)


def test_watching_reads_again_only_what_has_changed(cloud: FleetCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (cloud.submit(audio(name), owner="watched") for name in ("first", "second"))
    here = baker_cloud.FleetCloud(cloud.bucket, cloud.queues, cloud.layout, "watched")
    earlier: dict[str, Any] = {}
    fleet_jobs.listed(here, earlier)
    states.change(cloud.bucket, cloud.layout, two, lambda state: structs.replace(state, progress=1.0))
    read, asked = cloud.bucket.read, list[str]()

    def reading(key: str) -> Any:
        asked.append(key)
        return read(key)

    monkeypatch.setattr(cloud.bucket, "read", reading)
    found = {state.job: state.progress for state in fleet_jobs.listed(here, earlier)}
    assert (found[one], found[two], asked) == (0.0, 1.0, [cloud.layout.state(two)])
    cloud.bucket.delete([cloud.layout.state(one)])
    assert one not in {state.job for state in fleet_jobs.listed(here, earlier)}
