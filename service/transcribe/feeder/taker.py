"""Takes messages from the queue, late: only when the worker is about to have nothing to do."""

import hashlib
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

from transcribe import logs
from transcribe.feeder import checkpoints
from transcribe.feeder.fleet import FETCHED, SUSPECT, Fleet, not_done, trouble
from transcribe.fleet import drops, states, submission
from transcribe.fleet.bucket import MISSING, Found, code_of, status_of
from transcribe.fleet.documents import UNREADABLE, Message, Request, State, UnreadableError, decoded
from transcribe.fleet.drops import Drop
from transcribe.fleet.queues import Delivery
from transcribe.jobs import uploads
from transcribe.jobs.models import JobError, NewJob
from transcribe.jobs.tickets import Ticket

WAIT_SECONDS = 5  # that SQS waits for a message, at most
BLOCK = 1 << 20
NO_JOB = "0" * 32
PAUSE = 2  # times the time that a message is held: others come first to what this machine could not do
URGENT_PARTS = 3  # of audio that is urgent, to one that is not, where both wait
SHORTEST_TURN = 1.0  # seconds of audio that a recording counts for at least
LONGEST_CLAIM = 60.0  # seconds of audio, unless one recording's share is more
CLAIMS = 8  # tries to write that a job is taken
FORBIDDEN, OUT_OF_ORDER = 403, 500  # AWS's answers: no right to it; from here on, its own trouble


class Turns:
    """Whose turn it is: what is urgent comes first, but the rest gets a share of the audio, however much is urgent."""

    def __init__(self) -> None:
        self._owed = 0.0  # seconds of audio that the rest has a claim to

    @property
    def usual_is_due(self) -> bool:
        """Whether the usual queue is to be looked into before the urgent one."""
        return self._owed > 0

    def took(self, seconds: float, *, urgent: bool) -> None:
        """So many seconds of audio were taken. Claims do not pile up while nobody makes use of them."""
        seconds = max(seconds, SHORTEST_TURN)
        if urgent:
            share = seconds / URGENT_PARTS
            self._owed = min(self._owed + share, max(share, LONGEST_CLAIM))
        else:
            self._owed = max(self._owed - seconds, -seconds)


class Taker:
    """One thread calls `once` again and again."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._failed = False
        self._turns = Turns()

    def once(self) -> bool:
        """Takes one job, if there is room and one waits; True if it is worth asking again at once."""
        failed, self._failed = self._failed, True
        with trouble("take"):
            if failed:  # every delivery counts against the job, so the bucket must answer first
                self._fleet.bucket.read(self._fleet.layout.state(NO_JOB))
            taken = self._once()
            self._failed = False
            return taken
        return False

    def _once(self) -> bool:
        tickets = [held for held in self._fleet.store.tickets.all() if held.receipt]  # of others a callback is left
        for ticket in tickets:
            if not ticket.adopted and (not _suspect(ticket) or len(tickets) == 1):
                self._fetch(ticket)
                return True
        if self._fleet.leaving.is_set() or not self._room(tickets):
            return False
        found = self._receive()
        if found:
            self._admit(found)
        return found is not None

    def _room(self, tickets: list[Ticket]) -> bool:
        """Whether the worker has less than one job ahead of its batch. A suspect is worked on alone."""
        worker = self._fleet.ready_worker
        if self._fleet.pause.on or worker is None:
            return False
        if any(_suspect(ticket) or not ticket.adopted for ticket in tickets):
            return False
        queue = self._fleet.store.queue_stats()
        return queue.queued == 0 and queue.running <= int(worker.get("rows") or 1)

    def _receive(self) -> Delivery | None:
        queues, hold = self._fleet.queues, self._fleet.hold_seconds
        order = (queues.usual, queues.priority) if self._turns.usual_is_due else (queues.priority,)
        at_once = (found for queue in order if (found := queue.receive(hold=hold, wait=0)))
        return next(at_once, None) or queues.usual.receive(hold=hold, wait=WAIT_SECONDS)

    def _admit(self, found: Delivery) -> None:
        """Decides about a message: it is ours now, or somebody has the job, or it is over."""
        fleet = self._fleet
        queue = fleet.queues.by_url(found.queue)
        try:
            dropped = drops.read(found.body)
            if dropped is not None:
                self._submit(dropped)
                queue.delete(found.receipt)
                return
            message = decoded(found.body, Message)
        except ValueError as error:  # it comes again until it is given up, where an operator sees it
            logs.failure("message_unreadable", error)
            return
        fleet.lengths.add(found.queue, message.seconds)
        self._turns.took(message.seconds, urgent=queue is fleet.queues.priority)
        with fleet.guard:
            if fleet.leaving.is_set():
                queue.hold(found.receipt, 0)
                return
            own = fleet.store.tickets.get(message.job)
            if own and own.message == found.id:
                fleet.store.tickets.put(replace(own, receipt=found.receipt, count=found.count))
                return
            # Of a ticket without a receipt only the callback is left: the job may be a new one by now.
            self._claim(message, found, own if own and own.receipt else None)

    def _submit(self, dropped: list[Drop]) -> None:
        """Makes a job of each object. What is gone or replaced by now is passed over: S3 tells of what replaced it."""
        fleet = self._fleet
        for drop in dropped:
            request = drops.request(fleet.layout, drop, fleet.config.fleet.owner)
            if request is None or drop.bucket != fleet.bucket.name or fleet.bucket.etag(drop.key) != drop.etag:
                logs.event("object_passed_over", key=drop.key)
                continue
            copy = partial(fleet.bucket.copy, drop.bucket, drop.key, etag=drop.etag)
            known = submission.submit(fleet.bucket, fleet.queues, fleet.layout, request, copy)
            logs.event("object_submitted", key=drop.key, job=request.job, new=known is None)

    def _claim(self, message: Message, found: Delivery, own: Ticket | None) -> None:
        """Makes the job this machine's, if it may be: its state says so, and its ticket is stored. If this machine has
        it by another message, as `own` says, that may have been another machine's since, and be gone."""
        fleet = self._fleet
        queue = fleet.queues.by_url(found.queue)
        for _ in range(CLAIMS):  # each delivery counts against the job, so others' writes are no reason to let it go
            known = self._read_state(message.job)
            if known is None:  # the job was removed
                queue.delete(found.receipt)
                return
            state, stored = known
            if state.job != message.job:
                logs.warning("state_of_another_job", job=message.job)
                return
            ours = own is not None and (state.machine, state.message) == (fleet.machine, own.message)
            if ours or self._held_elsewhere(state, stored.age):
                if state.message != found.id:  # it was sent twice, and the other message is being worked on
                    queue.delete(found.receipt)
                return
            ended = state.over or fleet.bucket.read(fleet.layout.outcome(message.job)) is not None
            if ended and state.message not in ("", found.id):  # sent twice, and the other has brought it to its end
                queue.delete(found.receipt)
                return
            if ended or self._claim_state(state, stored.etag, found):
                ticket = own or Ticket(message.job, found.queue, found.receipt, found.id, found.count)
                held = replace(ticket, queue=found.queue, receipt=found.receipt, message=found.id, count=found.count)
                fleet.store.tickets.put(replace(held, concluded=ended))
                logs.event("job_taken", job=message.job, delivery=found.count, ended=ended)
                return

    def _read_state(self, job: str) -> tuple[State, Found] | None:
        try:
            return states.read(self._fleet.bucket, self._fleet.layout, job)
        except ClientError as error:
            if status_of(error) == FORBIDDEN:  # those of other jobs lie under the same key
                self._fleet.pause.begin(PAUSE * self._fleet.hold_seconds)
            raise

    def _held_elsewhere(self, state: State, age: float) -> bool:
        """Whether another machine has shown, by S3's clock, that it works on the job. Each does so three times in the
        time that a message is held."""
        return state.status == "running" and state.machine != self._fleet.machine and age < self._fleet.hold_seconds / 2

    def _claim_state(self, state: State, etag: str, found: Delivery) -> bool:
        """Writes into the state that the job is this machine's; False if somebody else has written meanwhile."""
        wanted = msgspec.structs.replace(
            state,
            status="running",
            sent=True,
            machine=self._fleet.machine,
            message=found.id,
            attempts=found.count,
            started=state.started or time.time(),
            signs=state.signs + 1,
        )
        return bool(self._fleet.bucket.put_if(self._fleet.layout.state(state.job), wanted.encoded(), etag))

    def _fetch(self, ticket: Ticket) -> None:
        """Brings the recording, and gives the job to the worker. What cannot be fetched or read is another machine's
        turn, and given up after so many tries; only a network or a bucket that is out of order is waited for."""
        fleet = self._fleet
        try:
            self._bring(ticket)
        except (BotoCoreError, Boto3Error):
            raise
        except Exception as error:
            if isinstance(error, ClientError) and status_of(error) >= OUT_OF_ORDER:
                raise
            if isinstance(error, OSError):  # as where the disk is full: the next recording would fare no better
                fleet.pause.begin(PAUSE * fleet.hold_seconds)
            fleet.store.tickets.withdraw(ticket.job)
            self._part(ticket).unlink(missing_ok=True)
            uploads.remove(fleet.config.temp, ticket.job)
            with trouble("say_why", ticket.job):
                not_done(fleet, ticket, reason(error))
            raise

    def _part(self, ticket: Ticket) -> Path:
        return self._fleet.config.temp / f"{ticket.job}{FETCHED}"

    def _bring(self, ticket: Ticket) -> None:
        fleet = self._fleet
        stored = fleet.bucket.read(fleet.layout.request(ticket.job))
        if stored is None:  # the job was removed
            fleet.queues.by_url(ticket.queue).delete(ticket.receipt)
            fleet.store.tickets.withdraw(ticket.job)
            return
        request, part = decoded(stored.data, Request), self._part(ticket)
        if request.job != ticket.job:
            raise UnreadableError(f"it is about another job, {request.job}")
        if not ticket.concluded:
            fleet.bucket.download(fleet.layout.audio(ticket.job), part)
            check(part, request)
            for index in range(request.speakers):
                voice = uploads.reference(fleet.config.temp, ticket.job, index)
                fleet.bucket.download(fleet.layout.speaker(ticket.job, index), voice)
            for path in (part, *uploads.files(fleet.config.temp, ticket.job)):
                uploads.sync(path)  # here, since it may take long; under the guard only the new name is left
        with fleet.guard:
            latest = fleet.store.tickets.get(ticket.job)
            if latest is None:  # another machine has it by now
                part.unlink(missing_ok=True)
                return
            start = None if latest.concluded else checkpoints.load(fleet, ticket.job)
            if part.exists():
                part.replace(uploads.recording(fleet.config.temp, ticket.job))
                uploads.sync(uploads.recording(fleet.config.temp, ticket.job))
            fleet.store.tickets.adopt(
                replace(latest, adopted=True, callback=request.callback), self._job(request), start
            )
        logs.event("job_adopted", job=ticket.job, resumed=start is not None)

    def _job(self, request: Request) -> NewJob:
        """The job as the machine's own store knows it. It calls nobody back by itself: see Finisher."""
        options = request.options
        if request.default_language and not options.multilingual:
            options = replace(options, language=self._fleet.config.model.language or None)
        return NewJob(
            id=request.job,
            key_id=request.owner,
            options=options,
            suffix=request.suffix,
            estimate=request.seconds,
            channels=request.channels,
            request=request.request,
            fingerprint=request.sha256,
            detached=True,
        )


def check(path: Path, request: Request) -> None:
    """Raises ChangedError unless the file is the recording that was sent."""
    if not request.sha256:
        return
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    if digest.hexdigest() != request.sha256:
        raise ChangedError(f"the recording of the job {request.job} is not the one that was sent")


class ChangedError(ValueError):
    """A recording in the bucket is not the one that was sent."""


def reason(error: Exception) -> JobError:
    """Why a job could not be brought to its machine, for whoever looks at what was given up."""
    if isinstance(error, ChangedError):
        told = "The recording in the bucket is not the one that was sent: its SHA-256 is another one."
        return JobError(told, code="recording_changed")
    if isinstance(error, UnreadableError):
        return JobError(f"What is asked of this job cannot be read: {error}", code=UNREADABLE)
    if isinstance(error, ClientError):
        if code_of(error) in MISSING:
            return JobError("The recording is not in the bucket any more.", code="recording_missing")
        told = f"S3 refused a machine the recording, {error.operation_name}: {code_of(error)}."
        return JobError(told, code="recording_refused")
    told = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return JobError(f"A machine could not take the recording in: {told}.", code="machine_failed")


def clean(fleet: Fleet) -> None:
    """Removes recordings that an earlier feeder has not brought in whole."""
    for path in fleet.config.temp.glob(f"*{FETCHED}*"):  # boto3 adds an end of its own while it writes
        path.unlink(missing_ok=True)


def _suspect(ticket: Ticket) -> bool:
    """Whether its job may be what ended its machine. One that has its outcome is not heard again."""
    return ticket.count >= SUSPECT and not ticket.concluded
