"""A group that grows with the audio that waits, and machines that end themselves when there is none for them."""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support import api_process, fleets
from support.fleets import FleetCloud, Machine, audio
from support.waiting import until
from transcribe.config import ServiceConfig
from transcribe.feeder import leaving, main
from transcribe.feeder.fleet import Fleet
from transcribe.feeder.gauge import Gauge
from transcribe.feeder.hook import FinishHook
from transcribe.feeder.idle import FIRST_SECONDS, Idle
from transcribe.feeder.taker import Taker
from transcribe.fleet import gauges
from transcribe.jobs.models import NewJob
from transcribe.types import DecodeOptions

pytestmark = pytest.mark.slow
MINUTES = 15


@pytest.fixture
def cloud() -> Iterator[FleetCloud]:
    with fleets.fleet_cloud() as made:
        yield made


@pytest.fixture
def here(cloud: FleetCloud, tmp_path: Path) -> Iterator[Machine]:
    with fleets.machine(tmp_path / "a", cloud, fleet__idle_minutes=MINUTES) as made:
        yield made


class Clock:
    """The parts of a feeder that are about having no work, at a time of the test's."""

    def __init__(self, cloud: FleetCloud, here: Machine, scaling: Any, member: Callable[[], str]) -> None:
        config = ServiceConfig.from_mapping(here.mapping)
        self.fleet = Fleet(config, here.store, cloud.bucket, cloud.queues, here.identity, "program")
        self.now = 0.0
        self.idle = Idle(self.fleet, scaling, member, lambda: self.now)
        self.idle.once()

    def after(self, minutes: float) -> bool:
        """Whether it ends itself so much later, being looked at all the while."""
        end = self.now + 60 * minutes
        while self.now < end:
            self.now += 30
            if self.idle.once():
                return True
        return False


def test_a_machine_without_work_ends_itself_and_its_group_wants_one_less(cloud: FleetCloud, here: Machine) -> None:
    mine, other = cloud.group_of_two()
    until(lambda: (here.store.worker() or {}).get("state") == "ready")
    with fleets.metadata_service() as (address, answers), pytest.MonkeyPatch.context() as patch:
        patch.setenv(leaving.METADATA_VARIABLE, address)
        answers["instance-id"] = mine
        clock = Clock(cloud, here, cloud.client("autoscaling"), leaving.group_member)
        assert not clock.after(3 * MINUTES), "it is in no group"
        answers[leaving.LIFECYCLE] = "InService"
        assert not clock.after(MINUTES - 1)
        assert clock.after(2)
    assert clock.fleet.leaving.is_set()
    assert (cloud.group()["DesiredCapacity"], cloud.members()) == (1, [other])
    cloud.submit(audio("late"))
    assert not Taker(clock.fleet).once(), "one that ends takes nothing"
    assert here.store.tickets.all() == []


def test_work_of_any_kind_keeps_a_machine(cloud: FleetCloud, here: Machine) -> None:
    until(lambda: (here.store.worker() or {}).get("state") == "ready")
    ended: list[Any] = []

    class Scaling:
        def terminate_instance_in_auto_scaling_group(self, **asked: Any) -> None:
            ended.append(asked)

    clock = Clock(cloud, here, Scaling(), lambda: "i-1")
    here.worker.hold.set()
    job = cloud.submit(audio("held"))
    until(lambda: Taker(clock.fleet).once() and here.store.tickets.get(job))
    assert not clock.after(3 * MINUTES), "it holds a job"
    here.store.tickets.withdraw(job)
    options = DecodeOptions(language="sv")
    live = here.store.create(NewJob(key_id="anna", options=options, suffix=".wav", estimate=1.0))
    assert not clock.after(3 * MINUTES), "a live request waits for its text"
    here.store.delete(live.id)
    coming = Path(here.mapping["root"]) / "temp" / "unfinished.part"
    coming.write_bytes(b"RIFF")
    assert not clock.after(3 * MINUTES), "a recording comes in"
    coming.unlink()
    for number in range(8):
        assert not clock.after(MINUTES / 2), "a recording came and went between two looks"
        facts = here.store.worker() or {}
        here.store.set_worker({**facts, "metrics": {"chunks_total": number}})
    assert ended == []
    assert clock.after(2 * MINUTES)
    assert ended == [{"InstanceId": "i-1", "ShouldDecrementDesiredCapacity": True}]


def test_neither_a_recording_that_is_done_nor_the_workers_lock_keeps_a_machine(
    cloud: FleetCloud, here: Machine
) -> None:
    temp = ServiceConfig.from_mapping(here.mapping).temp
    (temp / "worker.lock").touch()
    here.start()
    cloud.wait_over([cloud.submit(audio("short"))])
    clock = Clock(cloud, here, None, lambda: "i-1")
    until(lambda: not clock.idle.busy(), 10, lambda: list(temp.iterdir()))


def test_a_request_that_is_still_coming_in_keeps_its_machine(cloud: FleetCloud, here: Machine, tmp_path: Path) -> None:
    until(lambda: (here.store.worker() or {}).get("state") == "ready")
    with api_process.started(tmp_path / "a", here.mapping) as api:
        clock = Clock(cloud, here, None, lambda: "i-1")
        assert not clock.idle.busy()
        with socket.create_connection(("127.0.0.1", api.port)) as slow:
            head = "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: 127.0.0.1"
            slow.sendall(
                f"{head}\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 500000\r\n\r\n".encode()
                + b"-" * 1000
            )
            until(clock.idle.busy, 15)


def test_a_group_that_needs_its_machines_keeps_them_and_a_new_one_has_time(cloud: FleetCloud, here: Machine) -> None:
    asked: list[str] = []

    class Scaling:
        code = "ValidationError"

        def terminate_instance_in_auto_scaling_group(self, **_: Any) -> None:
            asked.append(self.code)
            if self.code:
                raise ClientError({"Error": {"Code": self.code, "Message": "-"}}, "TerminateInstance")

    until(lambda: (here.store.worker() or {}).get("state") == "ready")
    here.worker.stop()
    here.store.set_worker({"state": "loading"})
    scaling = Scaling()
    clock = Clock(cloud, here, scaling, lambda: "i-1")
    assert not clock.after(FIRST_SECONDS / 60 - 1), "the model is still being loaded"
    assert asked == []
    here.store.set_worker({"state": "ready"})
    assert not clock.after(MINUTES - 1)
    assert not clock.after(2 * MINUTES), "the group has no more than it must have"
    assert asked == ["ValidationError"] * 2
    assert not clock.fleet.leaving.is_set()
    scaling.code = "Throttling"
    assert not clock.after(MINUTES + 2)
    assert len(asked) >= 4, "an error is tried again soon"
    scaling.code = ""
    assert clock.after(2)


def test_a_machine_tells_how_much_audio_waits_and_how_fast_it_is(cloud: FleetCloud, here: Machine) -> None:
    now = 1_000_000_020.0
    fleet = Fleet(
        ServiceConfig.from_mapping(here.mapping), here.store, cloud.bucket, cloud.queues, here.identity, "program"
    )
    gauge = Gauge(fleet, cloud.client("cloudwatch"), lambda: now)

    def figures(name: str) -> list[float]:
        return cloud.figures(name, now)

    until(lambda: (here.store.worker() or {}).get("state") == "ready")
    here.worker.hold.set()
    jobs = [cloud.submit(audio(str(number)), seconds=40.0 * (1 + number % 2)) for number in range(6)]
    gauge.once()
    assert (figures(gauges.WAITING), figures(gauges.SPEED)) == ([], [10.0]), "nobody knows yet how long they are"
    taker = Taker(fleet)
    until(lambda: taker.once() and any(map(here.store.get, jobs)))
    gauge.once()
    assert figures(gauges.SPEED) == [10.0], "once a minute"
    now += 60
    gauge.once()
    [waiting] = figures(gauges.WAITING)
    assert waiting in (5 * 40.0, 5 * 80.0)
    here.worker.stop()
    here.store.set_worker({"state": "loading"})
    now += 60
    gauge.once()
    assert figures(gauges.SPEED) == [10.0, 10.0], "one that is not ready does not count"
    assert len(figures(gauges.WAITING)) == 2


class Draining:
    """Auto Scaling while a balancer lets a machine's requests end; its hook keeps the machine only after that."""

    def __init__(self) -> None:
        self.state, self.told = "Terminating", list[str]()

    def describe_auto_scaling_instances(self, **_: Any) -> Any:
        return {"AutoScalingInstances": [{"AutoScalingGroupName": "g", "LifecycleState": self.state}]}

    def record_lifecycle_action_heartbeat(self, **_: Any) -> None:
        self.say("beat")

    def complete_lifecycle_action(self, **_: Any) -> None:
        self.say("complete")

    def say(self, what: str) -> None:
        if self.state == "Terminating":
            raise ClientError({"Error": {"Code": "ValidationError"}}, what)
        self.told.append(what)


def test_a_machine_whose_balancer_lets_requests_end_first_waits_for_its_hook(
    cloud: FleetCloud, here: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else it would hand its jobs on, and then be kept by a hook that nobody speaks to."""
    scaling, now = Draining(), 0.0
    clock = Clock(cloud, here, scaling, lambda: "i-1")
    hook = FinishHook(clock.fleet, scaling, lambda: "i-1", lambda: now)
    here.worker.hold.set()
    job = cloud.submit(audio("held"))
    taker = Taker(clock.fleet)
    until(lambda: taker.once() and here.store.get(job))
    assert (hook.finishing(), hook.release(), clock.fleet.pause.on) == (True, False, True)
    here.store.tickets.withdraw(job)
    assert hook.finishing(), "there is a hook to be let go by"
    scaling.state = "Terminating:Wait"
    assert not hook.finishing()
    monkeypatch.setattr(main, "NOTICE_SECONDS", 0.02)
    scaling.state = "Terminating"
    threading.Timer(0.5, setattr, (scaling, "state", "Terminating:Wait")).start()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        main.let_go(hook)
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert scaling.told == ["beat", "complete"]
