"""Jobs of the fleet: sent, looked at, tried again, ended."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath

import msgspec
from transcribe.fleet import drops, states, submission
from transcribe.fleet.documents import GIVEN_UP, UNREADABLE, Message, Request, State, UnreadableError, decoded
from transcribe.fleet.drops import Drop
from transcribe.fleet.layout import JOB, job_id
from transcribe.fleet.queues import Delivery
from transcribe.fleet.states import ContendedError
from transcribe.jobs.models import JobError
from transcribe.types import DecodeOptions

from baker.aws.client import aws_errors
from baker.errors import AwsError, BakeError, UsageError
from baker.fleet.cloud import FleetCloud
from baker.fleet.recordings import Recording

AT_ONCE = 8  # recordings or states that are under way
LOOKED_AT = 50  # of the newest jobs, for what an hour of audio costs
LISTED, READ = 10_000, 200  # at most, for the same: keys of states, and states
CAME_TO_NOTHING = ("failed", "cancelled", "dead")
ALIVE_SECONDS = 600.0  # since its last sign of life, in which a job is not taken for dead
LOOK_SECONDS = 60  # that a message of the dead-letter queue is kept from others who look, at first
LONGEST_LOOK = 900
LOOK_WAIT = 1  # seconds, in which SQS asks all of its servers
AT_A_TIME = 10  # messages, the most that SQS delivers at once


@dataclass(frozen=True)
class Wanted:
    """What is to be done with recordings; `default_language`: in the language of the machine that does it; `again`:
    also with those that were sent before and came to nothing."""

    options: DecodeOptions
    response_format: str
    priority: bool
    default_language: bool
    again: bool = False


@dataclass(frozen=True)
class Sent:
    """What became of one recording: its job; `new` if it was sent now; `came_to`, one of CAME_TO_NOTHING, if it was
    sent before in vain; `problem` in one line if it could not be sent."""

    recording: Recording
    job: str = ""
    new: bool = False
    came_to: str = ""
    problem: str = ""


def submit(fleet: FleetCloud, recordings: Sequence[Recording], wanted: Wanted) -> Iterator[Sent]:
    """Sends recordings, several at once; yields what became of each as it is known."""
    jobs: dict[str, Recording] = {}  # the same content may lie under several names
    with ThreadPoolExecutor(AT_ONCE) as pool:
        under_way = [pool.submit(_submit, fleet, recording, wanted, jobs) for recording in recordings]
        try:
            for done in as_completed(under_way):
                yield done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _submit(fleet: FleetCloud, recording: Recording, wanted: Wanted, jobs: dict[str, Recording]) -> Sent:
    if recording.problem:
        return Sent(recording, problem=f"{recording.name}: {recording.problem}")
    try:
        with aws_errors(f"to take {recording.name}"):
            request = _request(fleet, recording, wanted)
            if jobs.setdefault(request.job, recording) is not recording:
                return Sent(recording, request.job)
            return _sent(fleet, recording, request, again=wanted.again)
    except (OSError, AwsError, ContendedError, ValueError) as error:
        if isinstance(error, AwsError) and error.logged_out:
            raise
        return Sent(recording, problem=f"{recording.name}: {getattr(error, 'strerror', None) or error}")


def _sent(fleet: FleetCloud, recording: Recording, request: Request, *, again: bool) -> Sent:
    """Submits a recording, once. One whose job has failed or was cancelled gets another job if it is to be sent
    `again`, whose id comes from the job before: however often that is asked for, it is one. One that was given up keeps
    its job."""

    def store(key: str) -> None:
        _store(fleet, recording, key)

    while True:
        known = submission.submit(fleet.bucket, fleet.queues, fleet.layout, request, store)
        if known is None:
            return Sent(recording, request.job, new=True)
        if known.status == "dead" and again:
            store(fleet.layout.audio(request.job))
            _try_again(fleet, request.job, ())
            return Sent(recording, request.job, new=True)
        following = msgspec.structs.replace(request, job=job_id(request.job, "again"))
        ended = known.status in CAME_TO_NOTHING and known.status != "dead"
        if not ended or not (again or states.read(fleet.bucket, fleet.layout, following.job)):
            return Sent(recording, request.job, came_to=known.status if known.status in CAME_TO_NOTHING else "")
        request = following


def _request(fleet: FleetCloud, recording: Recording, wanted: Wanted) -> Request:
    digest = recording.digest() if recording.path else ""
    about = [fleet.owner, digest or recording.etag, wanted.options.language or "", wanted.response_format]
    if wanted.options != DecodeOptions(wanted.options.language, words=True):
        about.append(msgspec.json.encode(wanted.options, order="deterministic").decode())
    return Request(
        job=job_id(*about),
        owner=fleet.owner,
        options=wanted.options,
        default_language=wanted.default_language,
        sha256=digest,
        bytes=recording.size,
        seconds=recording.seconds,
        suffix=PurePath(recording.name).suffix.lower(),
        name=recording.name,
        request={"response_format": wanted.response_format},
        priority=wanted.priority,
        created=time.time(),
    )


def _store(fleet: FleetCloud, recording: Recording, key: str) -> None:
    if recording.path:
        fleet.bucket.upload(key, recording.path)
    else:
        fleet.bucket.copy(recording.bucket, recording.key, key, etag=recording.etag.strip('"'))


def listed(fleet: FleetCloud, earlier: dict[str, tuple[str, State | None]] | None = None) -> list[State]:
    """The state of every job, the newest first; that of one which cannot be read says so. A job that is being removed
    is left out. What is in `earlier`, by the key and with the ETag, is not read again; what is read is put there."""
    known = {} if earlier is None else earlier
    with aws_errors("ListObjectsV2"):
        etags = dict(fleet.bucket.etags(fleet.layout.states))
    new = [key for key, etag in etags.items() if key not in known or known[key][0] != etag]
    known.update((key, (etags[key], state)) for key, state in zip(new, _read(fleet, new), strict=True))
    found = [state for key in etags if (state := known[key][1])]
    return sorted(found, key=lambda state: (-state.created, state.job))


def _read(fleet: FleetCloud, keys: Sequence[str]) -> list[State | None]:
    """The states at these keys, several at once."""

    def read(key: str) -> State | None:
        job = PurePath(key).stem
        try:
            with aws_errors("GetObject state"):
                found = states.read(fleet.bucket, fleet.layout, job)
        except UnreadableError as error:
            return State(job=job, owner="", status="dead", error=JobError(f"{error}", code=UNREADABLE))
        return found[0] if found else None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(read, keys))


def recent_cost(fleet: FleetCloud) -> float | None:
    """`hourly_cost`, by few enough requests however many jobs there are: ids of jobs are as good as random, so that
    those whose keys come first stand for all."""
    with aws_errors("ListObjectsV2"):
        keys = fleet.bucket.latest(fleet.layout.states, among=LISTED, most=READ)
    return hourly_cost([state for state in _read(fleet, keys) if state])


def hourly_cost(known: Sequence[State]) -> float | None:
    """US dollars for an hour of audio, as the newest finished jobs cost; None: not known."""
    costs = [state.dollars_per_hour for state in known if state.dollars_per_hour is not None][:LOOKED_AT]
    return sum(costs) / len(costs) if costs else None


def dead_messages(fleet: FleetCloud) -> list[tuple[str, Delivery]]:
    """The jobs in the dead-letter queue, each with its message; '' for a message that names none."""
    found: dict[str, Delivery] = {}
    hold = LOOK_SECONDS

    def receive() -> None:
        nonlocal hold
        while True:
            with aws_errors("ReceiveMessage"):
                more = fleet.queues.dead.receive_some(AT_A_TIME, hold=hold, wait=LOOK_WAIT)
            if not more:
                return
            if all(each.id in found for each in more):  # there are too many for so short a time
                hold = min(2 * hold, LONGEST_LOOK)
            found.update((each.id, each) for each in more)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(receive) for _ in range(AT_ONCE)]:
            done.result()
    return [(_job_of(each), each) for each in found.values()]


def _job_of(found: Delivery) -> str:
    try:
        return decoded(found.body, Message).job
    except ValueError:
        return ""


@dataclass(frozen=True)
class GivenUp:
    """What was given up: the states of jobs; their messages, by the job; and keys of recordings under `in/` that became
    no job."""

    states: list[State]
    messages: dict[str, list[Delivery]]
    drops: list[str]


def given_up(fleet: FleetCloud, earlier: dict[str, tuple[str, State | None]] | None = None) -> GivenUp:
    """All of it. The states of jobs in the dead-letter queue say that they were given up from now on; `earlier` is that
    of `listed`."""
    messages: dict[str, list[Delivery]] = {}
    for job, found in dead_messages(fleet):
        messages.setdefault(job, []).append(found)
    drops = sorted(drop.key for found in messages.pop("", []) for drop in _drops(found.body))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda job: _mark_dead(fleet, job, {each.id for each in messages[job]}), messages))
    return GivenUp([state for state in listed(fleet, earlier) if state.status == "dead"], messages, drops)


def _drops(body: bytes) -> list[Drop]:
    try:
        return drops.read(body) or []
    except UnreadableError:
        return []


def _mark_dead(fleet: FleetCloud, job: str, messages: Collection[str]) -> None:
    """Says in the state of a job that it was given up with one of these messages, if the machines did not come to it.
    One that works on it still, as after twelve hours, is left alone, and so is a job that was tried again since."""
    try:
        with aws_errors("GetObject state"):
            known = states.read(fleet.bucket, fleet.layout, job)
    except UnreadableError:  # which `listed` says
        return
    if known and _alive(known[0], known[1].age):
        return

    def update(state: State) -> State:
        if state.over or state.message not in ("", *messages):
            return state
        return msgspec.structs.replace(state, status="dead", machine="", error=state.error or GIVEN_UP)

    _change(fleet, job, update)


def redrive(fleet: FleetCloud, job: str) -> None:
    """Tries a job again that was given up. Raises UsageError for another, as for one that is still worked on."""
    state, age = _known(fleet, job)
    if _alive(state, age):
        raise UsageError(f"the job {job} is worked on: its machine gave a sign of life {age:.0f} s ago")
    dead = [found for each, found in dead_messages(fleet) if each == job]
    if state.over or not (state.status == "dead" or any(state.message in ("", found.id) for found in dead)):
        raise UsageError(f"the job {job} is {state.status}: only a job that was given up can be tried again")
    _try_again(fleet, job, dead)


def redrive_all(fleet: FleetCloud) -> Iterator[str]:
    """Tries again whatever was given up, several at once; yields for each job why it could not be, '' if it could."""
    found = given_up(fleet)

    def again(state: State) -> str:
        try:
            _try_again(fleet, state.job, found.messages.get(state.job, ()))
        except BakeError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(again, found.states)


def _try_again(fleet: FleetCloud, job: str, dead: Sequence[Delivery]) -> None:
    """Sends a job's message anew, and deletes those of the dead-letter queue."""
    with _documents(job, "GetObject request.json"):
        stored = fleet.bucket.read(fleet.layout.request(job))
        request = decoded(stored.data, Request) if stored else None
    if request is None:
        raise BakeError(f"the job {job} is being removed")
    fresh = {"status": "queued", "machine": "", "message": "", "attempts": 0, "error": None}
    _change(fleet, job, lambda found: found if found.over else msgspec.structs.replace(found, **fresh))
    with aws_errors("SendMessage"):
        sent = submission.send(fleet.queues, request)
        for found in dead:
            fleet.queues.dead.delete(found.receipt)
    # An older message that is left in the dead-letter queue says nothing about the job from now on.
    _change(fleet, job, lambda found: found if found.message else msgspec.structs.replace(found, message=sent))


def cancel(fleet: FleetCloud, job: str) -> None:
    """Ends a job. Raises UsageError for one that is over."""
    state, _ = _known(fleet, job)
    if not state.over:
        with _documents(job, "PutObject outcome.json"):
            ended = states.cancel(fleet.bucket, fleet.layout, state, time.time())
        if ended.status == "cancelled":
            return
    raise UsageError(f"the job {job} is already over")


def _alive(state: State, age: float) -> bool:
    """Whether a machine has shown lately that it works on the job; `age` is that of the state in seconds."""
    return state.status == "running" and age < ALIVE_SECONDS


def _known(fleet: FleetCloud, job: str) -> tuple[State, float]:
    """The job's state, and its age in seconds. Raises UsageError."""
    if not JOB.fullmatch(job):
        raise UsageError(f"{job!r} is no id of a job, which has 32 hexadecimal digits")
    with _documents(job, "GetObject state"):
        found = states.read(fleet.bucket, fleet.layout, job)
    if found is None:
        raise UsageError(f"there is no job {job}")
    return found[0], found[1].age


def _change(fleet: FleetCloud, job: str, update: Callable[[State], State]) -> None:
    with _documents(job, "PutObject state"):
        states.change(fleet.bucket, fleet.layout, job, update)


@contextmanager
def _documents(job: str, doing: str) -> Iterator[None]:
    """Turns what keeps a job's documents from being read or written into a BakeError of one line."""
    try:
        with aws_errors(doing):
            yield
    except ContendedError as error:
        raise BakeError(str(error)) from None
    except UnreadableError as error:
        mend = f"delete state/{job}.json in the bucket, and submit its recording again"
        raise BakeError(f"a document of the job {job} cannot be read, {error}: {mend}") from None
