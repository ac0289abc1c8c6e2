"""The parts of a feeder, one step after the other, on moto's S3 and SQS: what the bucket and the queue may hold."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support import fleets
from support.fleets import FleetCloud, Machine, audio
from support.waiting import until
from transcribe.config import ServiceConfig
from transcribe.feeder.desk import Desk
from transcribe.feeder.finisher import Finisher
from transcribe.feeder.fleet import Fleet
from transcribe.feeder.holder import Holder
from transcribe.feeder.taker import Taker
from transcribe.fleet.documents import Checkpoint, Message, Request, decoded
from transcribe.types import DecodeOptions, Segment

pytestmark = pytest.mark.slow
REQUEST = {"subtitles": {"of_later_versions": 1, "max_cps": 20.0}}


@pytest.fixture
def cloud() -> Iterator[FleetCloud]:
    with fleets.fleet_cloud(tries=50) as made:
        yield made


@pytest.fixture
def here(cloud: FleetCloud, tmp_path: Path) -> Iterator[Machine]:
    with fleets.machine(tmp_path / "a", cloud, callbacks__enabled=True) as made:
        yield made


class Feeder:
    """A feeder's parts, without their threads."""

    def __init__(self, cloud: FleetCloud, here: Machine) -> None:
        config = ServiceConfig.from_mapping(here.mapping)
        self.fleet = Fleet(config, here.store, cloud.bucket, cloud.queues, here.identity, "program")
        self.taker, self.finisher, self.desk = Taker(self.fleet), Finisher(self.fleet), Desk(self.fleet)
        self.now = 0.0
        self.holder = Holder(self.fleet, lambda: self.now)

    def take(self, condition: Callable[[], Any]) -> None:
        """Until the condition is met."""

        def met() -> Any:
            self.taker.once()
            return condition()

        until(met, 30, self.fleet.store.tickets.all)

    def adopt(self, job: str) -> None:
        self.take(lambda: self.fleet.store.get(job))

    def hold(self) -> None:
        self.now += fleets.HOLD / 3
        self.holder.once()

    def finish(self) -> None:
        """Until no message is held."""

        def settled() -> bool:
            self.finisher.once()
            return all(not ticket.receipt for ticket in self.fleet.store.tickets.all())

        until(settled)

    def ask(self, **question: Any) -> Any:
        return json.loads(self.desk.answer(json.dumps(question).encode()))


@pytest.fixture
def feeder(cloud: FleetCloud, here: Machine) -> Feeder:
    return Feeder(cloud, here)


def test_what_is_no_id_of_a_job_or_another_jobs_never_becomes_a_name(cloud: FleetCloud, feeder: Feeder) -> None:
    job, other = cloud.submit(audio("one")), cloud.submit(audio("two"))
    for name in ("../results/jobs", "0" * 31, "A" * 32, f"{job}\n"):
        with pytest.raises(ValueError, match="no message"):
            decoded(msgspec.json.encode({"job": name}), Message)
        request = Request(job=name, owner="anna", options=DecodeOptions(language=None))
        assert "error" in feeder.ask(do="submit", request=msgspec.to_builtins(request), file="x", speakers=[])
        assert "error" in feeder.ask(do="look", job=name)
    request_of_other = cloud.bucket.read(cloud.layout.request(other))
    assert request_of_other
    cloud.bucket.put(cloud.layout.request(job), request_of_other.data)
    feeder.take(lambda: feeder.fleet.store.tickets.get(job))
    feeder.take(lambda: not feeder.fleet.store.tickets.get(job))
    assert (feeder.fleet.store.get(job), feeder.fleet.store.get(other)) == (None, None)


def test_a_document_that_cannot_be_read_keeps_no_other_job_back(cloud: FleetCloud, feeder: Feeder) -> None:
    bad, twice, good = (cloud.submit(audio(name), request=REQUEST) for name in ("bad", "twice", "good"))
    cloud.bucket.put(cloud.layout.request(bad), b"[]")
    segment = Segment(0, 0, 0.0, 1.0, "a", (), 0.0, 0.0, 1.0, 0.0)
    revision = feeder.fleet.config.model.revision
    text: dict[str, Any] = {
        "job": twice,
        "program": "program",
        "revision": revision,
        "progress": 1.0,
        "duration": 8.0,
        "resume": {},
    }
    cloud.bucket.put(cloud.layout.checkpoint(twice), Checkpoint(**text, segments=(segment, segment)).encoded())
    feeder.take(lambda: feeder.fleet.store.get(twice) and feeder.fleet.store.get(good))
    assert feeder.fleet.store.tickets.get(bad) is None
    feeder.finish()
    assert [cloud.state(job).status for job in (twice, good)] == ["done", "done"]
    assert cloud.bucket.read(cloud.layout.transcript(good, "srt"))
    assert cloud.bucket.read(cloud.layout.transcript(twice, "vtt"))


def test_a_machine_that_cannot_do_a_job_lets_others_come_first(
    cloud: FleetCloud, here: Machine, feeder: Feeder, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.worker.hold.set()
    job = cloud.submit(audio("one"))
    feeder.adopt(job)
    feeder.hold()
    feeder.now += 3 * fleets.HOLD
    feeder.holder.once()
    assert (feeder.fleet.store.get(job), feeder.fleet.store.tickets.all()) == (None, [])
    assert feeder.fleet.pause.on
    feeder.fleet.pause.begin(0.0)

    def full(key: str, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(feeder.fleet.bucket, "download", full)
    feeder.take(feeder.fleet.store.tickets.all)
    feeder.taker.once()
    assert feeder.fleet.store.tickets.all() == []
    assert feeder.fleet.pause.on


def test_a_job_that_was_removed_and_sent_again_is_done_again(cloud: FleetCloud, feeder: Feeder) -> None:
    job = cloud.submit(audio("again"), callback="https://example.org/done")
    feeder.adopt(job)
    feeder.finish()
    [left] = feeder.fleet.store.tickets.all()
    assert (left.job, left.receipt) == (job, "")
    assert feeder.ask(do="remove", job=job) == {"answer": True}
    assert cloud.submit(audio("again"), callback="https://example.org/done") == job
    feeder.take(lambda: feeder.fleet.store.tickets.all()[0].receipt and feeder.fleet.store.tickets.all()[0].adopted)
    feeder.finish()
    assert cloud.state(job).status == "done"
    assert [due.id for due in feeder.fleet.store.pending_webhooks()] == [job]
