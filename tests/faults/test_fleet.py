"""Every AWS call of a submission and of a feeder, and what can happen to it: nothing is lost, nothing is done twice."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
from baker.aws import iam_policy
from baker.aws.growth import Growth
from baker.fleet import jobs as fleet_jobs
from botocore.exceptions import ClientError
from faults.conftest import Lab
from faults.faultcloud import DENIED, FAULTS, NOT_FOUND, Fault
from faults.test_aws_faults import EVERYTHING, Point, name_of_case, sample
from localcloud.aws.steward import calls
from localcloud.aws.steward.groups import Groups
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.sqs.models import sqs_backends
from support import fleets
from support.fake_cloud import BUCKET, REGION
from support.fleets import FleetCloud, audio
from support.waiting import until
from transcribe.config import ServiceConfig
from transcribe.feeder.fleet import Fleet
from transcribe.feeder.gauge import Gauge
from transcribe.feeder.hook import FinishHook
from transcribe.feeder.idle import Idle
from transcribe.feeder.main import clients
from transcribe.fleet import gauges, queues
from transcribe.fleet.bucket import Bucket
from transcribe.jobs.tickets import Ticket

SUBMIT = [
    "GetQueueUrl", "GetQueueUrl", "GetQueueUrl", "GetObject state", "HeadObject audio", "PutObject audio",
    "PutObject request.json", "PutObject state", "SendMessage", "GetObject state", "PutObject state",
]  # fmt: skip
POINTS: list[Point] = [(name, Counter(SUBMIT[: index + 1])[name]) for index, name in enumerate(SUBMIT)]
Record = Callable[[str, object], None]


@pytest.fixture
def newsroom(lab: Lab) -> Lab:
    """A launcher with a fleet that has its queues."""
    lab.configure('[fleet]\nqueue = "speech"\nowner = "newsroom"\n')
    queues.make(boto3.Session(region_name=REGION).client("sqs", endpoint_url=lab.cloud_url), "speech", {})
    return lab


def messages() -> int:
    return len(sqs_backends[DEFAULT_ACCOUNT_ID][REGION].queues["speech"]._messages)


def test_the_calls_of_a_submission_are_those_that_the_table_tries(newsroom: Lab, tmp_path: Path) -> None:
    recording = tmp_path / "one.wav"
    recording.write_bytes(audio("one"))
    assert newsroom.launch("submit", str(recording)).code == 0
    assert newsroom.cloud.log == SUBMIT


@pytest.mark.parametrize(("kind", "point"), sample([(k, p) for p in POINTS for k in FAULTS]), ids=name_of_case)
def test_a_submission_that_goes_wrong_is_whole_after_the_same_command(
    newsroom: Lab, tmp_path: Path, record_property: Record, kind: str, point: Point
) -> None:
    record_property("fault", (point[0], kind))
    recording = tmp_path / "one.wav"
    recording.write_bytes(audio("one"))
    fault = Fault(kind, *point)
    ended = newsroom.launch("submit", str(recording), fault=fault)
    assert fault.hits, "the fault was never met"
    assert "Traceback" not in ended.err
    assert len(ended.err.splitlines()) == (1 if ended.code else 0), ended.err
    assert ended.code == 0 or kind in (DENIED, NOT_FOUND), ended.err
    assert newsroom.launch("submit", str(recording)).code == 0
    objects = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[BUCKET].keys
    [state] = [objects[key] for key in objects if key.startswith("transcribe-fleet/state/")]
    assert b'"sent":true' in state.value
    assert messages() >= 1


AGAIN = (
    "ReceiveMessage", "GetObject state", "PutObject state", "ListObjectsV2", "GetObject request.json", "SendMessage",
    "DeleteMessage",
)  # fmt: skip


@pytest.mark.parametrize(("kind", "point"), sample([(k, (c, 1)) for c in AGAIN for k in FAULTS]), ids=name_of_case)
def test_what_was_given_up_is_tried_again_by_the_same_command_whatever_went_wrong(
    newsroom: Lab, tmp_path: Path, record_property: Record, kind: str, point: Point
) -> None:
    """Or it had been already: then the command says that nothing is left to try."""
    record_property("fault", (point[0], kind))
    recording = tmp_path / "one.wav"
    recording.write_bytes(audio("one"))
    assert newsroom.launch("submit", str(recording)).code == 0
    found = queues.find(boto3.Session(region_name=REGION).client("sqs", endpoint_url=newsroom.cloud_url), "speech")
    assert found
    taken = found.usual.receive(hold=60, wait=0)
    assert taken
    found.usual.delete(taken.receipt)
    found.dead.send(taken.body, "newsroom")
    newsroom.patch.setattr(fleet_jobs, "LOOK_SECONDS", 1)
    newsroom.patch.setattr(fleet_jobs, "AT_ONCE", 1)
    fault = Fault(kind, *point)
    ended = newsroom.launch("jobs", "--redrive", "all", fault=fault)
    assert fault.hits, "the fault was never met"
    assert "Traceback" not in ended.err
    assert len(ended.err.splitlines()) == (1 if ended.code else 0), ended.err
    assert newsroom.launch("jobs", "--redrive", "all").code == 0
    objects = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[BUCKET].keys
    [state] = [objects[key] for key in objects if key.startswith("transcribe-fleet/state/")]
    assert b'"status":"queued"' in state.value
    assert messages() >= 1


@pytest.mark.parametrize("kind", FAULTS)
def test_a_ledger_is_made_whatever_becomes_of_cloudwatchs_figures(
    newsroom: Lab, tmp_path: Path, record_property: Record, kind: str
) -> None:
    record_property("fault", ("GetMetricData", kind))
    recording = tmp_path / "one.wav"
    recording.write_bytes(audio("one"))
    assert newsroom.launch("submit", str(recording)).code == 0
    bucket = Bucket(boto3.Session(region_name=REGION).client("s3", endpoint_url=newsroom.cloud_url), BUCKET)
    [key] = bucket.keys("transcribe-fleet/state/")
    stored = bucket.read(key)
    assert stored
    done = {"status": "done", "machine": "a", "started": time.time() - 9, "finished": time.time()}
    bucket.put(key, json.dumps({**json.loads(stored.data), **done}).encode())
    fault = Fault(kind, "GetMetricData", 1)
    ended = newsroom.launch("jobs", "--ledger", str(tmp_path / "run.html"), fault=fault)
    assert (ended.code, ended.err) == (0, "")
    assert fault.hits, "the fault was never met"
    assert "<polyline" in (tmp_path / "run.html").read_text()


# --- the feeder

KINDS = ("lost before", "lost after effect", "5xx", "denied")


@pytest.fixture
def cloud() -> Iterator[FleetCloud]:
    with fleets.fleet_cloud(tries=50) as made:
        yield made


def test_each_call_of_a_feeder_goes_wrong_in_each_way(
    cloud: FleetCloud, tmp_path: Path, record_property: Record
) -> None:
    jobs = [cloud.submit(audio(str(number))) for number in range(8 if EVERYTHING else 3)]
    left: dict[str, list[str]] = {}

    def meets(name: str, when: str) -> int | None:
        """Every call, once in each way, or in one that differs from call to call."""
        due = left.setdefault(name, list(KINDS) if EVERYTHING else [KINDS[len(left) % len(KINDS)]])
        if not due or (due[0] == "lost after effect") != (when == "after"):
            return None
        kind = due.pop(0)
        record_property("fault", (name, kind))
        if kind.startswith("lost"):
            raise fleets.DroppedError
        return 500 if kind == "5xx" else 403

    cloud.watched.meets = meets
    with fleets.machine(tmp_path / "a", cloud) as here:
        here.start()
        ended = cloud.wait_over(jobs, 80)
        cloud.assert_empty(20)
        until(lambda: not here.store.tickets.all(), 20)
        assert here.stop() == 0
    assert {one.status for one in ended.values()} == {"done"}
    assert cloud.watched.outcomes == dict.fromkeys(jobs, 1)
    allowed = {call.operation for call in iam_policy.MACHINE_CALLS}
    assert {name.partition(" ")[0] for name in cloud.watched.calls} <= allowed


TOLD = [
    (call, kind)
    for row, call in enumerate(("GetQueueAttributes", "PutMetricData", "TerminateInstanceInAutoScalingGroup"))
    for column, kind in enumerate(KINDS)
    if EVERYTHING or (row + column) % 2 == 0
]


@pytest.mark.parametrize(("call", "kind"), TOLD)
def test_what_a_machine_tells_and_that_it_ends_itself_goes_wrong(
    cloud: FleetCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Record, call: str, kind: str
) -> None:
    """It tells the next minute, and ends itself soon, once."""
    record_property("fault", (call, kind))
    mine, other = cloud.group_of_two()
    due = [kind]
    cloud.watched.meets = goes_wrong(due, call)
    for name, value in fleets.KEYS.items():
        monkeypatch.setenv(name, value)
    with fleets.machine(tmp_path / "a", cloud, fleet__wait_minutes=5, fleet__idle_minutes=1) as here:
        config, now = ServiceConfig.from_mapping(here.mapping), 1_000_000_020.0
        client = clients(config.fleet)
        found = queues.find(client("sqs"), fleets.QUEUE)
        assert found
        fleet = Fleet(config, here.store, cloud.bucket, found, here.identity, "program")
        gauge = Gauge(fleet, client("cloudwatch"), lambda: now)
        idle = Idle(fleet, client("autoscaling"), lambda: mine, lambda: now)
        until(lambda: fleet.ready_worker)
        for _ in range(6):
            gauge.once()
            if cloud.members() == [mine, other]:
                idle.once()
            now += 60
        told = cloud.figures(gauges.WAITING, now)
    assert not due, "the fault was never met"
    assert (cloud.members(), cloud.group()["DesiredCapacity"]) == ([other], 1)
    assert len(told) >= 5
    assert call in {one.operation for one in iam_policy.MACHINE_CALLS}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_machine_says_to_its_hook_goes_wrong(
    cloud: FleetCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Record, kind: str
) -> None:
    """It says it again, and is not let go with work that it holds."""
    for name, value in fleets.KEYS.items():
        monkeypatch.setenv(name, value)
    calls.lead_here(Groups(REGION, time.time))
    mine, other = cloud.group_of_two()
    Growth(SimpleNamespace(autoscaling=cloud.client("autoscaling"))).let_finish(fleets.GROUP)  # type: ignore[arg-type]
    with fleets.machine(tmp_path / "a", cloud) as here:
        config = ServiceConfig.from_mapping(here.mapping)
        found = queues.find(clients(config.fleet)("sqs"), fleets.QUEUE)
        assert found
        fleet = Fleet(config, here.store, cloud.bucket, found, here.identity, "program")
        here.store.tickets.put(Ticket("0" * 32, found.usual.url, "receipt", "message", 1))
        scaling = cloud.client("autoscaling")
        scaling.terminate_instance_in_auto_scaling_group(InstanceId=mine, ShouldDecrementDesiredCapacity=True)
        hook = FinishHook(fleet, clients(config.fleet)("autoscaling"), lambda: mine)

        def wrong(call: str, act: Callable[[], object]) -> None:
            """The call goes wrong, once."""
            record_property("fault", (call, kind))
            due = [kind]
            cloud.watched.meets = goes_wrong(due, call)
            if kind == "denied":
                with pytest.raises(ClientError):
                    act()
            else:
                act()
            assert not due, "the fault was never met"

        wrong("DescribeAutoScalingInstances", hook.finishing)
        hook = FinishHook(fleet, clients(config.fleet)("autoscaling"), lambda: mine)
        wrong("RecordLifecycleActionHeartbeat", hook.finishing)
        assert hook.finishing()
        here.store.tickets.withdraw("0" * 32)
        assert not hook.finishing()
        wrong("CompleteLifecycleAction", hook.release)
        hook.release()
    assert cloud.members() == [other]


def goes_wrong(due: list[str], call: str) -> Callable[[str, str], int | None]:
    """Lets the call go wrong once, in the way that is due."""

    def meets(name: str, when: str) -> int | None:
        if not due or name != call or (due[0] == "lost after effect") != (when == "after"):
            return None
        kind = due.pop()
        if kind.startswith("lost"):
            raise fleets.DroppedError
        return 500 if kind == "5xx" else 403

    return meets
