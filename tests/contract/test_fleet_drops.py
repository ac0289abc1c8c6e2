"""Recordings that are put under in/ by themselves: S3's events, as moto sends them, and as they may be."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from support import fleets
from support.fleets import FleetCloud, Machine, audio
from support.waiting import until
from transcribe.config import ServiceConfig
from transcribe.feeder.fleet import Fleet
from transcribe.feeder.taker import Taker
from transcribe.fleet import drops
from transcribe.fleet.documents import Request, UnreadableError, decoded
from transcribe.fleet.layout import Layout
from transcribe.fleet.queues import group_of

pytestmark = pytest.mark.slow
IN = "transcribe-fleet/in/"
TEST = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-01-01T00:00:00.000Z", "Bucket": fleets.BUCKET}


@pytest.fixture
def cloud() -> Iterator[FleetCloud]:
    with fleets.fleet_cloud() as made:
        session: Any = boto3.Session("testing", "testing", region_name=fleets.REGION)
        sqs, s3 = (session.client(name, endpoint_url=made.url) for name in ("sqs", "s3"))
        told = sqs.get_queue_attributes(QueueUrl=made.queues.usual.url, AttributeNames=["QueueArn"])["Attributes"]
        rule = {"Name": "prefix", "Value": IN}
        one = {
            "QueueArn": told["QueueArn"],
            "Events": ["s3:ObjectCreated:*"],
            "Filter": {"Key": {"FilterRules": [rule]}},
        }
        s3.put_bucket_notification_configuration(
            Bucket=fleets.BUCKET, NotificationConfiguration={"QueueConfigurations": [one]}
        )
        yield made


@pytest.fixture
def here(cloud: FleetCloud, tmp_path: Path) -> Iterator[Machine]:
    with fleets.machine(tmp_path / "a", cloud, fleet__owner="house") as made:
        yield made


def event(key: str, **about: Any) -> bytes:
    told = {"bucket": {"name": fleets.BUCKET}, "object": {"key": key, "size": 1, "eTag": "e", **about}}
    return json.dumps({"Records": [{"eventName": "ObjectCreated:Put", "s3": told}]}).encode()


def jobs(cloud: FleetCloud) -> dict[str, Request]:
    """The jobs' requests, by the name of what was put there."""
    found = [cloud.bucket.read(key) for key in cloud.bucket.keys("transcribe-fleet/jobs/") if key.endswith(".json")]
    made = [decoded(stored.data, Request) for stored in found if stored]
    assert len({request.name for request in made}) == len(made)
    return {request.name: request for request in made}


def test_what_is_put_under_in_is_done_once_for_its_owner_however_often_it_is_told(
    cloud: FleetCloud, here: Machine
) -> None:
    names = ("one.wav", "anna/två möten + 1.wav", "nyheter på svenska/a/b.wav")
    cloud.bucket.put(f"{IN}anna/", b"")
    for name in names:
        cloud.bucket.put(f"{IN}{name}", audio(name))
    told = []
    while found := cloud.queues.usual.receive(hold=60, wait=0):
        told.append(found.body)
        cloud.queues.usual.delete(found.receipt)
    assert json.loads(told[0])["Event"] == "s3:TestEvent"
    assert len(told) == 5
    for body in (*told, *told):
        cloud.queues.usual.send(body, "")
    here.start()
    until(lambda: set(jobs(cloud)) == set(names), 30)
    ended = cloud.wait_over([request.job for request in jobs(cloud).values()])
    cloud.assert_empty()
    assert here.stop() == 0
    assert {one.status for one in ended.values()} == {"done"}
    assert set(cloud.watched.outcomes.values()) == {1}
    owners = {name: request.owner for name, request in jobs(cloud).items()}
    assert owners == dict(zip(names, ("house", "anna", "nyheter på svenska"), strict=True))
    assert cloud.waiting(cloud.queues.dead) == (0, 0)
    assert cloud.bucket.size(f"{IN}one.wav"), "what was put there stays"


def test_what_is_no_recording_of_ours_is_passed_over(cloud: FleetCloud, here: Machine) -> None:
    fleet = Fleet(
        ServiceConfig.from_mapping(here.mapping), here.store, cloud.bucket, cloud.queues, here.identity, "program"
    )
    cloud.bucket.put(f"{IN}anna/replaced.wav", audio("new"))
    elsewhere = event("transcribe-fleet/state/x.json")
    for body in (
        json.dumps(TEST).encode(),
        event(f"{IN}anna/gone.wav"),
        event(f"{IN}anna/replaced.wav"),
        event(f"{IN}anna/empty.wav", size=0),
        elsewhere,
        elsewhere.replace(b'"fleet"', b'"others"'),
        event(f"{IN}anna/removed.wav").replace(b"ObjectCreated:Put", b"ObjectRemoved:Delete"),
        b'{"Records": []}',
    ):
        cloud.queues.usual.send(body, "")
    taker = Taker(fleet)
    here.worker.hold.set()

    def all_read() -> bool:
        taker.once()
        return cloud.waiting(cloud.queues.usual) == (0, 0) or bool(here.store.tickets.all())

    until(all_read, 30)
    cloud.bucket.delete([f"{IN}anna/replaced.wav"])
    names = {request.name for request in jobs(cloud).values()}
    assert names == {"anna/replaced.wav"}, "which S3 told of when it was put there"


def test_messages_that_are_no_events_are_left_to_others() -> None:
    for body in (b"", b"[]", b"{", b'{"job": "x"}', b'{"Event": "x"}', b'"Records"', b"\xff"):
        assert drops.read(body) is None
    for body in (b'{"Records": 1}', b'{"Records": [{}]}', b'{"Records": [{"eventName": "x", "s3": {"bucket": 1}}]}'):
        with pytest.raises(UnreadableError):
            drops.read(body)
    [found] = drops.read(event("in/a+b%C3%A5.wav")) or []
    assert found.key == "in/a bå.wav"
    assert drops.request(Layout("in"), found, "x") is None
    assert [group_of(owner) for owner in ("", "anna", "a.b+c")] == ["anyone", "anna", "a.b+c"]
    assert len(group_of("två ord")) == len(group_of("x" * 200)) == 64
