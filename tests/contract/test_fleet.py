"""Jobs of a fleet: real feeder processes on moto's S3 and SQS. Whatever ends where, each job has one outcome."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from baker.aws.growth import Growth
from localcloud.aws.steward import calls
from localcloud.aws.steward.groups import Groups
from support import api_process, fleets
from support.fake_worker import TEXTS
from support.fleets import REGION, Feeder, FleetCloud, audio
from support.waiting import until
from transcribe.config import ServiceConfig
from transcribe.feeder import leaving
from transcribe.feeder.finisher import Finisher
from transcribe.feeder.fleet import Fleet, program_digest
from transcribe.feeder.taker import Taker

pytestmark = pytest.mark.slow
TEXT = "".join(TEXTS).strip()
STEPS = [  # where a feeder is ended, in the order in which it comes there
    ("ReceiveMessage", "after"),
    ("PutObject state", "after"),
    ("GetObject audio", "after"),
    ("PutObject outcome.json", "before"),
    ("PutObject outcome.json", "after"),
    ("PutObject transcript.vtt", "after"),
    ("DeleteMessage", "before"),
    ("DeleteMessage", "after"),
]


@pytest.fixture
def cloud() -> Iterator[FleetCloud]:
    with fleets.fleet_cloud() as made:
        yield made


def test_a_job_goes_in_and_its_transcript_comes_out_in_every_format(cloud: FleetCloud, tmp_path: Path) -> None:
    job = cloud.submit(audio("one"))
    with fleets.machine(tmp_path / "a", cloud, fleet__price=0.5) as here:
        here.start()
        ended = cloud.wait_over([job])[job]
        cloud.assert_empty()
        assert here.stop() == 0
        assert here.store.tickets.all() == []
        assert here.store.get(job) is None
    assert (ended.status, ended.owner, ended.language) == ("done", "anna", "sv")
    assert "".join(segment.text for segment in ended.segments).strip() == TEXT
    assert ended.dollars_per_hour == 0.05  # at the speed of 10 that the worker reports
    keys = [key.rpartition("/")[2] for key in cloud.bucket.keys(f"transcribe-fleet/out/{job}/")]
    assert keys == [
        "outcome.json", "transcript.json", "transcript.srt", "transcript.tsv", "transcript.txt",
        "transcript.verbose.json", "transcript.vtt",
    ]  # fmt: skip
    found = cloud.bucket.read(cloud.layout.transcript(job, "text"))
    assert found
    assert found.data.decode().strip() == TEXT


@pytest.fixture
def patient_cloud() -> Iterator[FleetCloud]:
    """One that gives a message up late: what a dead feeder was waiting for is delivered to nobody, and counts."""
    with fleets.fleet_cloud(tries=50) as made:
        yield made


@pytest.mark.drill
def test_a_feeder_that_is_killed_at_each_step_loses_nothing_and_does_nothing_twice(
    patient_cloud: FleetCloud, tmp_path: Path
) -> None:
    cloud = patient_cloud
    jobs = [cloud.submit(audio(str(number))) for number in range(len(STEPS))]
    left = list(STEPS)
    with fleets.machine(tmp_path / "a", cloud) as here:

        def meets(name: str, when: str) -> None:
            if left and (name, when) == left[0] and here.feeder:
                left.pop(0)
                here.feeder.kill()
                raise fleets.DroppedError

        cloud.watched.meets = meets
        while left:
            here.start().wait(30)
        here.start()
        ended = cloud.wait_over(jobs, 40)
        cloud.assert_empty()
        assert here.stop() == 0
    assert {one.status for one in ended.values()} == {"done"}
    assert cloud.watched.outcomes == dict.fromkeys(jobs, 1)
    assert cloud.waiting(cloud.queues.dead) == (0, 0)


def test_two_machines_that_get_everything_twice_and_poison_have_one_outcome_each(
    cloud: FleetCloud, tmp_path: Path
) -> None:
    jobs = [cloud.submit(audio(str(number)), owner=("anna", "bert")[number % 2]) for number in range(16)]
    bad, poison = cloud.submit(b"bad"), cloud.submit(b"crash")
    for job in jobs[::2]:
        cloud.resend(job)
    with (
        fleets.machine(tmp_path / "a", cloud, delay=0.05) as a,
        fleets.machine(tmp_path / "b", cloud, delay=0.05) as b,
    ):
        for one in (a, b):
            one.start()
        until(lambda: len(cloud.watched.outcomes) > 4, 60)
        a.stop(signal.SIGKILL)
        a.start()
        ended = cloud.wait_over([*jobs, bad], 40)
        until(lambda: cloud.waiting(cloud.queues.dead) == (1, 0), 60)
        cloud.assert_empty()
        until(lambda: not a.store.tickets.all() and not b.store.tickets.all())
    assert {ended[job].status for job in jobs} == {"done"}
    assert [(ended[bad].status, error.code) for error in (ended[bad].error,) if error] == [("failed", "no_audio")]
    assert cloud.watched.outcomes == dict.fromkeys([*jobs, bad], 1)
    state = cloud.state(poison)
    assert state.error
    assert (state.status, state.attempts, state.error.code) == ("dead", 3, "out_of_memory")


def test_a_machine_that_is_ended_hands_on_what_it_has(cloud: FleetCloud, tmp_path: Path) -> None:
    job = cloud.submit(audio("long"))
    with (
        fleets.machine(tmp_path / "a", cloud, delay=3.0) as a,
        fleets.machine(tmp_path / "b", cloud) as b,
    ):
        a.start()
        until(lambda: a.store.segments(job), 60)
        assert a.stop() == 0
        assert (a.store.tickets.all(), a.store.get(job)) == ([], None)
        b.start()
        ended = cloud.wait_over([job])[job]
        cloud.assert_empty()
    [seen] = b.worker.seen
    assert seen.resume is not None
    assert [segment.id for segment in ended.segments] == [0, 1, 2]
    assert (ended.machine, cloud.state(job).attempts) == (b.identity, 1)


def test_a_lost_machine_costs_what_was_done_since_its_last_sign_of_life(cloud: FleetCloud, tmp_path: Path) -> None:
    job = cloud.submit(audio("long"))
    with (
        fleets.machine(tmp_path / "a", cloud, delay=1.5) as a,
        fleets.machine(tmp_path / "b", cloud) as b,
    ):
        a.start()
        until(lambda: cloud.bucket.read(cloud.layout.checkpoint(job)), 60)
        a.stop(signal.SIGKILL)
        a.worker.stop()
        b.start()
        ended = cloud.wait_over([job])[job]
    [seen] = b.worker.seen
    assert seen.resume is not None
    assert [segment.id for segment in ended.segments] == [0, 1, 2]


@pytest.mark.drill
def test_a_job_without_progress_goes_to_another_machine(cloud: FleetCloud, tmp_path: Path) -> None:
    job = cloud.submit(audio("one"))
    with fleets.machine(tmp_path / "a", cloud) as a, fleets.machine(tmp_path / "b", cloud) as b:
        a.worker.hold.set()
        a.start()
        until(lambda: a.store.get(job), 60)
        b.start()
        ended = cloud.wait_over([job])[job]
        cloud.assert_empty()
        until(lambda: not a.store.tickets.all())
    assert ended.machine == b.identity


def test_what_fits_is_finished_after_a_spot_notice(cloud: FleetCloud, tmp_path: Path) -> None:
    jobs = [cloud.submit(audio(str(number))) for number in range(3)]
    with fleets.metadata_service() as (address, answers), fleets.machine(tmp_path / "a", cloud, delay=0.3) as a:
        feeder = a.start(AWS_EC2_METADATA_SERVICE_ENDPOINT=address)
        until(lambda: a.worker.seen, 60)
        answers["spot/instance-action"] = '{"action": "terminate"}'
        assert feeder.wait(30) == 0
        states = {job: cloud.state(job).status for job in jobs}
        assert states[a.worker.seen[0].id] == "done"
        assert set(states.values()) <= {"done", "queued"}
        assert a.store.tickets.all() == []
        assert [line["reason"] for line in a.log() if line["event"] == "leaving"] == ["spot"]


def test_a_machine_that_its_group_ends_does_what_it_holds_first(cloud: FleetCloud, tmp_path: Path) -> None:
    """As in a roll-out. Nothing is handed on, and Auto Scaling is told when it is done."""
    calls.lead_here(Groups(REGION, time.time))
    mine, other = cloud.group_of_two()
    Growth(SimpleNamespace(autoscaling=cloud.client("autoscaling"))).let_finish(fleets.GROUP)  # type: ignore[arg-type]
    held = {"fleet__hold_seconds": 60}
    with fleets.metadata_service() as (address, answers), fleets.machine(tmp_path / "a", cloud, **held) as a:
        answers["instance-id"] = mine
        answers[leaving.LIFECYCLE] = "InService"
        a.worker.hold.set()
        job = cloud.submit(audio("held"))
        feeder = a.start(AWS_EC2_METADATA_SERVICE_ENDPOINT=address)
        until(lambda: a.store.tickets.get(job), 60)
        cloud.client("autoscaling").terminate_instance_in_auto_scaling_group(
            InstanceId=mine, ShouldDecrementDesiredCapacity=True
        )
        answers[leaving.LIFECYCLE] = "Terminated"
        until(lambda: [line for line in a.log() if line["event"] == "finishing"], 30)
        late = cloud.submit(audio("late"))
        time.sleep(2 * a.mapping["fleet"]["leave_seconds"])
        assert feeder.poll() is None
        assert cloud.members() == [mine, other]
        a.worker.hold.clear()
        assert feeder.wait(30) == 0
    assert cloud.members() == [other]
    assert (cloud.state(job).status, cloud.state(job).attempts) == ("done", 1)
    assert cloud.state(late).status == "queued", "one that ends takes nothing"


def test_any_machine_takes_a_job_and_answers_for_it(cloud: FleetCloud, tmp_path: Path) -> None:
    strangers = cloud.submit(audio("strangers"), owner="bert")
    with (
        fleets.machine(tmp_path / "a", cloud) as one,
        fleets.machine(tmp_path / "b", cloud) as two,
        api_process.started(tmp_path / "a", one.mapping) as a,
        api_process.started(tmp_path / "b", two.mapping) as b,
    ):
        one.start(), two.start()
        until(lambda: all(Path(each.mapping["fleet"]["socket"]).exists() for each in (one, two)))
        made = a.upload("/v1/jobs", audio("one"), response_format="srt")
        assert made.status == 202, made.body
        job = made.json["id"]
        assert a.upload("/v1/jobs", audio("one"), response_format="srt").json["id"] == job
        until(lambda: all(each.request("GET", f"/v1/jobs/{job}").json["status"] == "done" for each in (a, b)))
        results = [each.request("GET", f"/v1/jobs/{job}/result").body.decode() for each in (a, b)]
        assert results[0] == results[1]
        assert "Hej och välkomna." in results[0]
        assert len(b.request("GET", f"/v1/jobs/{job}/segments?after=0").json["data"]) == 2
        assert b.request("GET", f"/v1/jobs/{strangers}").code == "job_not_found"
        assert b.request("DELETE", f"/v1/jobs/{job}").status == 200
        assert a.request("GET", f"/v1/jobs/{job}").code == "job_not_found"
        assert [key for key in cloud.bucket.keys("transcribe-fleet/") if job in key] == []
        for each in (one, two):
            each.worker.hold.set()
        job = a.upload("/v1/jobs", audio("two")).json["id"]
        assert b.request("POST", f"/v1/jobs/{job}/cancel").json["status"] == "cancelled"
        assert a.request("POST", f"/v1/jobs/{job}/cancel").code == "job_over"
        cloud.assert_empty()
        one.stop(signal.SIGKILL)
        assert a.upload("/v1/jobs", audio("three")).code == "fleet_unavailable"


def test_a_client_is_called_back_when_all_is_done_and_the_job_is_kept_until_then(
    cloud: FleetCloud, tmp_path: Path
) -> None:
    job = cloud.submit(audio("one"), callback="https://example.org/done")
    with fleets.machine(tmp_path / "a", cloud, callbacks__enabled=True) as here:
        config = ServiceConfig.from_mapping(here.mapping)
        fleet = Fleet(config, here.store, cloud.bucket, cloud.queues, here.identity, program_digest())
        taker, finisher = Taker(fleet), Finisher(fleet)
        until(lambda: taker.once() and here.store.get(job))

        def settled() -> bool:
            finisher.once()
            return not here.store.tickets.all()[0].receipt

        until(settled)
        assert cloud.state(job).status == "done"
        cloud.assert_empty()
        [due] = here.store.pending_webhooks()
        assert (due.id, due.callback) == (job, "https://example.org/done")
        finisher.once()
        assert here.store.get(job)
        here.store.webhook_done(job)
        finisher.once()
        assert (here.store.get(job), here.store.tickets.all()) == (None, [])


def test_a_quiet_owner_is_next_beside_a_flood(cloud: FleetCloud, tmp_path: Path) -> None:
    """SQS delivers fairly by the group of a message, its owner; a machine that takes late keeps it so."""
    for number in range(20):
        cloud.submit(audio(f"flood {number}"), owner="loud")
    with fleets.machine(tmp_path / "a", cloud) as here:
        feeder, taken = Feeder(cloud, here), list[str]()

        def taking() -> list[str]:
            feeder.taker.once()
            feeder.finisher.once()
            taken.extend(ticket.job for ticket in here.store.tickets.all() if ticket.job not in taken)
            return taken

        until(lambda: len(taking()) > 2)
        for number in range(4):
            before, quiet = len(taken), cloud.submit(audio(f"quiet {number}"), owner="quiet")
            until(lambda quiet=quiet: quiet in taking())  # type: ignore[misc]
            assert taken.index(quiet) <= before + 1, "it waits for one of the flood, which was on its way"
