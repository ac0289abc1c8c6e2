"""The parts of a feeder, one step after the other, on moto's S3 and SQS: what the bucket and the queue may hold."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ClientError
from support import api_process, fleets
from support.fake_worker import canned, resume_after
from support.fleets import Feeder, FleetCloud, Machine, audio
from support.waiting import until
from transcribe.feeder import leaving
from transcribe.feeder.desk import DeskServer
from transcribe.fleet import states
from transcribe.fleet.documents import Checkpoint, Message, Outcome, Request, State, decoded
from transcribe.jobs.models import JobError
from transcribe.types import DecodeOptions, Segment

pytestmark = pytest.mark.slow
REQUEST = {"subtitles": {"of_later_versions": 1, "max_cps": 20.0}}
SEGMENT = Segment(0, 0, 0.0, 1.0, "a", (), 0.0, 0.0, 1.0, 0.0)


@pytest.fixture
def cloud() -> Iterator[FleetCloud]:
    with fleets.fleet_cloud(tries=50) as made:
        yield made


@pytest.fixture
def here(cloud: FleetCloud, tmp_path: Path) -> Iterator[Machine]:
    secret = tmp_path / "secret"
    secret.write_text("0" * 32)
    with fleets.machine(tmp_path / "a", cloud, callbacks__enabled=True, callbacks__secret_file=str(secret)) as made:
        yield made


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
    bad, odd, good = (
        cloud.submit(audio(name), request=request)
        for name, request in {"bad": REQUEST, "odd": {"subtitles": "x"}, "good": REQUEST}.items()
    )
    cloud.bucket.put(cloud.layout.request(bad), b"[]")
    feeder.take(lambda: feeder.fleet.store.get(odd) and feeder.fleet.store.get(good))
    assert feeder.fleet.store.tickets.get(bad) is None
    feeder.finish()
    assert [cloud.state(job).status for job in (odd, good)] == ["done", "done"]
    for job in (odd, good):
        for response_format in ("json", "srt", "vtt"):
            assert cloud.bucket.read(cloud.layout.transcript(job, response_format))
    told = feeder.ask(do="look", job=bad)
    assert told == {"error": "unreadable"}, "AWS has answered: to ask again helps nobody"


@pytest.mark.parametrize(
    ("changes", "segments", "goes_on"),
    [
        ({}, (SEGMENT,), True),
        ({}, (SEGMENT, SEGMENT), False),
        ({"next_id": 0}, (SEGMENT,), False),
        ({"next_id": "1"}, (SEGMENT,), False),
        ({"coverage": None}, (SEGMENT,), False),
    ],
)
def test_a_checkpoint_that_nobody_can_go_on_from_is_passed_over(
    cloud: FleetCloud,
    here: Machine,
    feeder: Feeder,
    changes: dict[str, Any],
    segments: tuple[Segment, ...],
    goes_on: bool,
) -> None:
    here.worker.hold.set()
    job = cloud.submit(audio("one"))
    checkpoint = Checkpoint(
        job=job,
        program="program",
        revision=feeder.fleet.config.model.revision,
        progress=1.0,
        duration=8.0,
        resume=resume_after(SEGMENT) | changes,
        segments=segments,
    )
    cloud.bucket.put(cloud.layout.checkpoint(job), checkpoint.encoded())
    feeder.adopt(job)
    kept = feeder.fleet.store.get(job)
    assert kept
    assert (kept.resume is not None, len(feeder.fleet.store.segments(job))) == (goes_on, int(goes_on))


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


def test_a_client_is_told_how_its_job_ended_wherever_that_was(cloud: FleetCloud, here: Machine, feeder: Feeder) -> None:
    here.worker.hold.set()
    jobs = {name: cloud.submit(audio(name), callback="https://example.org/done") for name in ("here", "late", "failed")}
    error = JobError("There is no sound in it.", code="no_audio", status=400)
    cancelled = Outcome(job=jobs["here"], owner="anna", status="cancelled", machine="another")
    feeder.adopt(jobs["here"])
    assert here.store.claim()
    feeder.take(lambda: feeder.fleet.store.tickets.get(jobs["late"]))
    for ended in (
        cancelled,
        msgspec.structs.replace(cancelled, job=jobs["late"]),
        msgspec.structs.replace(cancelled, job=jobs["failed"], status="failed", error=error),
    ):
        states.conclude(cloud.bucket, cloud.layout, ended)
        states.close(cloud.bucket, cloud.layout, ended)
    feeder.hold()
    feeder.take(lambda: feeder.fleet.store.get(jobs["failed"]))
    feeder.finish()
    told = {due.id: (due.status, due.error) for due in feeder.fleet.store.pending_webhooks()}
    assert told == {
        jobs["here"]: ("cancelled", None), jobs["late"]: ("cancelled", None), jobs["failed"]: ("failed", error),
    }  # fmt: skip
    cloud.assert_empty()


def test_a_job_that_is_worked_on_says_so_each_time_and_one_that_was_removed_leaves_nothing(
    cloud: FleetCloud, here: Machine, feeder: Feeder, tmp_path: Path
) -> None:
    here.worker.hold.set()
    job = cloud.submit(audio("one"))
    feeder.take(lambda: feeder.fleet.store.tickets.get(job))
    signs = [cloud.state(job).signs]
    for adopted in (False, True):  # on its way here, and worked on
        if adopted:
            feeder.adopt(job)
        for _ in range(2):
            feeder.hold()
            signs.append(cloud.state(job).signs)
    assert signs == [1, 2, 3, 4, 5]
    assert feeder.ask(do="remove", job=job) == {"answer": True}
    cloud.bucket.put(cloud.layout.checkpoint(job), b"written meanwhile")
    feeder.hold()
    assert feeder.fleet.store.tickets.all() == []
    assert list(cloud.bucket.keys(cloud.layout.prefix)) == []
    job = cloud.submit(audio("two"))
    feeder.adopt(job)
    assert feeder.ask(do="remove", job=job) == {"answer": True}
    cloud.bucket.put(cloud.layout.checkpoint(job), b"written meanwhile")
    [ticket] = feeder.fleet.store.tickets.all()
    leaving.hand_on(feeder.fleet, ticket)
    assert list(cloud.bucket.keys(cloud.layout.prefix)) == []


def test_a_result_is_there_when_all_of_it_is_and_a_cancelled_job_stands_in_for_none(
    cloud: FleetCloud, here: Machine, feeder: Feeder, tmp_path: Path
) -> None:
    here.worker.hold.set()
    with (
        api_process.started(tmp_path / "a", here.mapping) as api,
        DeskServer(feeder.desk, feeder.fleet.config.fleet.socket) as desk,
    ):
        threading.Thread(target=desk.serve_forever, args=(0.05,), daemon=True).start()
        job = api.upload("/v1/jobs", audio("one")).json["id"]
        owner = cloud.state(job).owner
        ended = Outcome(
            job=job, owner=owner, status="done", language="sv", duration=7.5, segments=tuple(canned(words=True))
        )
        states.conclude(cloud.bucket, cloud.layout, ended)
        feeder.adopt(job)
        assert feeder.fleet.store.tickets.all()[0].concluded
        assert api.request("GET", f"/v1/jobs/{job}/result").status == 409
        feeder.finish()
        assert "Hej och" in api.request("GET", f"/v1/jobs/{job}/result").json["text"]
        here.worker.hold.clear()
        made = api.upload("/v1/jobs", audio("over here")).json
        job = made["id"]
        assert (made["correctable"], api.request("GET", f"/v1/jobs/{job}").json["correctable"]) == (False, False)
        feeder.adopt(job)
        until(lambda: here.store.get(job).over)  # type: ignore[union-attr]
        found = api.request("GET", f"/v1/jobs/{job}/segments").json  # not all of its result is there yet
        assert (found["job"]["status"], found["job"]["correctable"], len(found["data"])) == ("running", False, 3)
        assert [one["correctable"] for one in api.request("GET", "/v1/jobs?limit=1").json["data"]] == [False]
        feeder.finish()
        here.worker.hold.set()
        cloud.bucket.put(cloud.layout.state(job), b"[]")
        assert api.request("GET", f"/v1/jobs/{job}").code == "job_unreadable"
        again = [api.upload("/v1/jobs", audio("two")).json["id"] for _ in range(2)]
        assert again[0] == again[1]
        assert api.request("POST", f"/v1/jobs/{again[0]}/cancel").json["status"] == "cancelled"
        anew = api.upload("/v1/jobs", audio("two")).json
        assert (anew["id"] != again[0], anew["status"]) == (True, "queued")
        desk.shutdown()


def test_a_job_that_stands_still_beside_others_is_let_go(cloud: FleetCloud, here: Machine, feeder: Feeder) -> None:
    here.worker.hold.set()
    stuck, other = cloud.submit(audio("stuck")), cloud.submit(audio("other"))
    for job in (stuck, other):
        feeder.take(lambda job=job: feeder.fleet.store.get(job))  # type: ignore[misc]
        assert here.store.claim()
    for round_ in range(1, 14):  # two share the model: each has twice the time
        assert feeder.fleet.store.get(stuck), round_
        here.store.add_segments(other, 1, [], progress=float(round_))
        facts = here.store.worker() or {}
        here.store.set_worker({**facts, "metrics": {"chunks_total": round_}})
        feeder.hold()
    feeder.hold()
    assert feeder.fleet.store.get(stuck) is None, "the work on others is none on this one"
    assert feeder.fleet.store.get(other)


def test_a_job_of_which_something_cannot_be_read_is_removed_by_its_client_and_nobody_else(
    cloud: FleetCloud, here: Machine, feeder: Feeder, tmp_path: Path
) -> None:
    here.worker.hold.set()
    with (
        api_process.started(tmp_path / "a", here.mapping) as api,
        DeskServer(feeder.desk, feeder.fleet.config.fleet.socket) as desk,
    ):
        threading.Thread(target=desk.serve_forever, args=(0.05,), daemon=True).start()
        layout = cloud.layout
        for spoilt in (layout.state, layout.request):
            job = api.upload("/v1/jobs", audio(spoilt.__name__)).json["id"]
            cloud.bucket.put(spoilt(job), b"[]")
            assert api.request("GET", f"/v1/jobs/{job}").code == "job_unreadable"
            assert api.request("DELETE", f"/v1/jobs/{job}").status == 200
            assert [key for key in cloud.bucket.keys("transcribe-fleet/") if job in key] == []
            assert api.request("GET", f"/v1/jobs/{job}").code == "job_not_found"
        strangers = cloud.submit(audio("strangers"), owner="bert")
        cloud.bucket.put(layout.state(strangers), b"[]")
        assert api.request("DELETE", f"/v1/jobs/{strangers}").code == "job_not_found"
        cloud.bucket.put(layout.request(strangers), b"[]")
        assert api.request("DELETE", f"/v1/jobs/{strangers}").code == "job_unreadable"
        assert cloud.bucket.read(layout.state(strangers))
        desk.shutdown()


def test_only_who_asks_for_the_text_is_sent_it(cloud: FleetCloud, here: Machine, feeder: Feeder) -> None:
    job = cloud.submit(audio("one"))
    feeder.adopt(job)
    feeder.finish()
    read, asked = feeder.fleet.bucket.read, list[str]()

    def reading(key: str) -> Any:
        asked.append(key)
        return read(key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feeder.fleet.bucket, "read", reading)
        [short, whole] = (feeder.ask(do="look", job=job, text=text)["answer"] for text in (False, True))
    assert asked.count(cloud.layout.outcome(job)) == 1
    assert (short["outcome"], len(whole["outcome"]["segments"])) == (None, 3)
    ended = cloud.outcome(job)
    assert ended
    state = decoded(msgspec.json.encode(short["state"]), State)
    for name in ("status", "language", "coverage", "started", "finished", "attempts", "error"):
        assert getattr(state, name) == getattr(ended, name), name
    assert state.progress == ended.duration


def test_what_is_urgent_comes_first_and_leaves_a_share_to_the_rest(cloud: FleetCloud, feeder: Feeder) -> None:
    urgent = [cloud.submit(audio(f"urgent {number}"), priority=True) for number in range(20)]
    usual = [cloud.submit(audio(f"usual {number}")) for number in range(4)]
    order: list[str] = []

    def worked() -> bool:
        feeder.taker.once()
        feeder.finisher.once()
        order.extend(ticket.job for ticket in feeder.fleet.store.tickets.all() if ticket.job not in order)
        return len(order) == len(urgent) + len(usual)

    until(worked, 60, lambda: order)
    assert order[0] in urgent
    last = max(order.index(job) for job in usual)
    ahead = sum(job in urgent for job in order[:last])
    assert 9 <= ahead <= 13, "three to one: neither all of the urgent ones, nor none"


@pytest.mark.parametrize("handed_on", [True, False], ids=["which hands it on", "which works on it"])
def test_a_machine_that_was_cut_off_does_not_lose_the_job_that_another_took_over(
    cloud: FleetCloud, here: Machine, feeder: Feeder, tmp_path: Path, *, handed_on: bool
) -> None:
    """Nor its message: it still holds the job, as far as it knows."""
    here.worker.delay = 6.0
    job = cloud.submit(audio("one"))
    feeder.adopt(job)
    until(lambda: here.worker.seen)
    [stale] = here.store.tickets.all()
    with fleets.machine(tmp_path / "b", cloud) as other:
        other.worker.hold.set()
        taker = Feeder(cloud, other)
        taker.adopt(job)
        if handed_on:
            leaving.hand_on(taker.fleet, other.store.tickets.all()[0])
        else:
            leaving.hand_on(feeder.fleet, stale)
            assert cloud.waiting(cloud.queues.usual) == (0, 1), "the other machine may still die"
            return
    feeder.take(lambda: cloud.waiting(cloud.queues.usual)[0] == 0)
    feeder.hold()
    assert (here.store.get(job) is not None, cloud.state(job).machine) == (True, here.identity)
    here.worker.delay = 0.0
    feeder.finish()
    assert (cloud.state(job).status, len(here.worker.seen)) == ("done", 1)
    cloud.assert_empty()


@pytest.mark.parametrize(
    ("status", "call"), [(503, "download"), (403, "read")], ids=["out of order", "without a right to it"]
)
def test_a_bucket_that_does_not_answer_costs_no_job_its_tries(
    cloud: FleetCloud, feeder: Feeder, monkeypatch: pytest.MonkeyPatch, status: int, call: str
) -> None:
    """What is out of order is waited for; without a right to what is encrypted, the machine takes nothing more."""
    jobs = [cloud.submit(audio(name)) for name in ("one", "two")]
    granted, answer = getattr(feeder.fleet.bucket, call), {"HTTPStatusCode": status}
    due = list(range(3))

    def refused(key: str, *more: Any) -> Any:
        if due and any(job in key for job in jobs):  # what is not there is encrypted by no key
            due.pop()
            raise ClientError({"Error": {"Code": "-"}, "ResponseMetadata": answer}, call)  # type: ignore[typeddict-item]
        return granted(key, *more)

    monkeypatch.setattr(feeder.fleet.bucket, call, refused)
    if status == 503:
        feeder.take(lambda: all(map(feeder.fleet.store.get, jobs)))
        assert {cloud.state(job).attempts for job in jobs} == {1}
        return
    for _ in range(6):
        feeder.taker.once()
    assert (len(due), feeder.fleet.pause.on, cloud.waiting(cloud.queues.usual)) == (2, True, (1, 1))


def test_a_suspect_whose_callback_is_left_to_make_keeps_no_job_back(cloud: FleetCloud, feeder: Feeder) -> None:
    job = cloud.submit(audio("one"), callback="https://example.org/done")
    assert cloud.queues.usual.receive(hold=1, wait=5)  # by a machine that was lost
    feeder.adopt(job)
    feeder.finish()
    assert [(ticket.receipt, ticket.count) for ticket in feeder.fleet.store.tickets.all()] == [("", 2)]
    feeder.adopt(cloud.submit(audio("two")))
