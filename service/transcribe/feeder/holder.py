"""Keeps the messages of jobs that are worked on from being delivered again, as long as there is progress.

With the same rhythm it says in each job's state how far it is, and stores the text so far for another machine.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import msgspec

from transcribe import logs
from transcribe.feeder import checkpoints
from transcribe.feeder.fleet import SUSPECT, Fleet, not_done, trouble
from transcribe.fleet import states
from transcribe.fleet.documents import State
from transcribe.jobs.models import Job, JobError
from transcribe.jobs.tickets import Ticket

ROUNDS = 3  # in the time that a message is held
STOOD_STILL = JobError("A machine made no progress with this recording for too long.", code="job_stands_still")
PATIENCE = 2  # times that time without progress, and the message is held no longer


@dataclass
class Watch:
    """What was last seen of a job and of the worker's whole work, and when each has changed: seconds of a clock that
    only goes forward."""

    mark: object
    moved: float
    work: object
    worked: float
    held: float = float("-inf")
    saved: float = 0.0  # seconds of audio in the checkpoint

    def see(self, mark: object, work: object, now: float) -> None:
        """Takes down what is seen now."""
        if mark != self.mark:
            self.mark, self.moved = mark, now
        if work != self.work:
            self.work, self.worked = work, now


class Holder:
    """One thread calls `once` again and again."""

    def __init__(self, fleet: Fleet, clock: Callable[[], float] = time.monotonic) -> None:
        self._fleet = fleet
        self._clock = clock
        self._watches: dict[str, Watch] = {}

    def once(self) -> None:
        """Holds what is due."""
        tickets = self._fleet.store.tickets.all()
        self._watches = {each.job: self._watches[each.job] for each in tickets if each.job in self._watches}
        for ticket in tickets:
            with trouble("hold", ticket.job), self._fleet.guard:
                current = self._fleet.store.tickets.get(ticket.job)
                if current and current.receipt:
                    self._hold(current)

    def _hold(self, ticket: Ticket) -> None:
        job, now = self._fleet.store.get(ticket.job), self._clock()
        mark, work = self._mark(ticket, job), self._work()
        watch = self._watches.setdefault(ticket.job, Watch(mark, now, work, now))
        watch.see(mark, work, now)
        over = job is not None and job.over
        if now - watch.held < self._fleet.hold_seconds / ROUNDS:
            return
        watch.held = now
        if not over and self._stands_still(ticket, job, watch, now):
            logs.warning("job_stands_still", job=ticket.job)
            self._fleet.pause.begin(PATIENCE * self._fleet.hold_seconds)
            self._fleet.store.tickets.withdraw(ticket.job)
            not_done(self._fleet, ticket, STOOD_STILL)
            return
        kept = self._fleet.queues.by_url(ticket.queue).hold(ticket.receipt, self._fleet.hold_seconds)
        if over or ticket.concluded:
            return  # the Finisher has the rest, whoever the state says had it
        if not kept:
            logs.warning("message_lost", job=ticket.job)
        if self._still_ours(ticket, job) and job is not None and job.progress > watch.saved:
            watch.saved = checkpoints.save(self._fleet, ticket.job) or watch.saved

    def _stands_still(self, ticket: Ticket, job: Job | None, watch: Watch, now: float) -> bool:
        """Whether the job has shown no progress for too long. The worker's work stands in for its own while it waits
        for its turn, or is alone and all work is on it; beside others it shares the model, and has so much longer."""
        patience, sharing = float(PATIENCE * self._fleet.hold_seconds), 1
        if job is None:
            waits = ticket.count >= SUSPECT and len(self._fleet.store.tickets.all()) > 1
        else:
            sharing = max(self._fleet.store.queue_stats().running, 1) if job.status == "running" else 1
            waits = sharing == 1
        if now - watch.moved <= patience * sharing:
            return False
        return not waits or now - watch.worked > patience

    def _mark(self, ticket: Ticket, job: Job | None) -> object:
        """Something that changes with the job's own progress, or with that of its recordings on their way here."""
        if job is not None:
            return (job.status, job.attempts, job.progress, job.duration)
        sizes = 0
        for part in self._fleet.config.temp.glob(f"{ticket.job}*"):
            with suppress(FileNotFoundError):  # it was brought in at this moment
                sizes += part.stat().st_size
        return sizes

    def _work(self) -> object:
        """Something that changes with whatever the worker does."""
        worker = self._fleet.store.worker() or {}
        return (worker.get("metrics", {}).get("chunks_total"), str(worker.get("steps")))

    def _still_ours(self, ticket: Ticket, job: Job | None) -> bool:
        """Says in the state that it is worked on, and how far it is; None: it is on its way here. False, and it is
        worked on no longer, if it is somebody else's by now, or over, or removed."""
        fleet = self._fleet

        def update(state: State) -> State:
            if state.over or state.machine != fleet.machine:
                return state
            alive = msgspec.structs.replace(state, status="running", signs=state.signs + 1)
            if job is None:
                return alive
            seconds = job.duration if job.duration is not None else state.seconds
            return msgspec.structs.replace(alive, progress=job.progress, seconds=seconds)

        state = states.change(fleet.bucket, fleet.layout, ticket.job, update)
        if state and not state.over and state.machine == fleet.machine:
            return True
        if state and state.over:  # cancelled, or done by a machine that had it as well: its client is still called back
            if job is None:
                fleet.store.tickets.put(replace(ticket, concluded=True))
            else:
                fleet.store.cancel(ticket.job)
            return False
        if state is None:
            fleet.bucket.delete(fleet.layout.written(ticket.job))
            fleet.queues.by_url(ticket.queue).delete(ticket.receipt)
        fleet.store.tickets.withdraw(ticket.job)
        logs.event("job_withdrawn", job=ticket.job, status=state.status if state else "removed")
        return False
