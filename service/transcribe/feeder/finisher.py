"""Brings what the worker has finished back: the outcome once, whoever else may have the job; then the rest.

The order is what makes it safe to end anywhere: outcome, formats, state, message, callback. Each step may be repeated.
"""

import json
import time
from concurrent.futures import ThreadPoolExecutor

from transcribe import formats, logs
from transcribe.feeder.fleet import Fleet, not_done, trouble
from transcribe.fleet import states
from transcribe.fleet.documents import Outcome
from transcribe.fleet.layout import TRANSCRIPTS
from transcribe.formats import TranscriptionResult
from transcribe.jobs import uploads
from transcribe.jobs.models import Job
from transcribe.jobs.tickets import Ticket
from transcribe.subtitles import SubtitleOptions
from transcribe.types import Segment, Transcript

SERVERS_FAULT = 500  # the status from which on an error is not the recording's


class Finisher:
    """One thread calls `once` again and again."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def once(self) -> None:
        """Goes on with every job that the worker is done with."""
        for ticket in self._fleet.store.tickets.all():
            with trouble("finish", ticket.job), self._fleet.guard:
                current = self._fleet.store.tickets.get(ticket.job)
                if current and current.adopted:
                    self._look(current)

    def _look(self, ticket: Ticket) -> None:
        found = self._fleet.store.tickets.snapshot(ticket.job)
        if found is None:
            self._vanished(ticket)
        elif not ticket.receipt:
            if not found[0].callback:  # it was made, or there was none
                self._fleet.store.tickets.withdraw(ticket.job)
                uploads.remove(self._fleet.config.temp, ticket.job)  # a recording that lies there keeps the machine
        elif found[0].over:
            self._finish(ticket, *found)

    def _vanished(self, ticket: Ticket) -> None:
        """A client has removed the job here. If it is known elsewhere, it is another machine's turn."""
        fleet, queue = self._fleet, self._fleet.queues.by_url(ticket.queue)
        if ticket.receipt:
            if states.read(fleet.bucket, fleet.layout, ticket.job):
                queue.hold(ticket.receipt, 0)
            else:
                fleet.bucket.delete(fleet.layout.written(ticket.job))
                queue.delete(ticket.receipt)
        fleet.store.tickets.withdraw(ticket.job)

    def _finish(self, ticket: Ticket, job: Job, segments: list[Segment]) -> None:
        fleet = self._fleet
        if job.error and job.error.status >= SERVERS_FAULT and not ticket.concluded:
            self._give_back(ticket, job)
            return
        if ticket.concluded:
            ended = states.outcome(fleet.bucket, fleet.layout, job.id)
        elif states.read(fleet.bucket, fleet.layout, job.id):
            ended = states.conclude(fleet.bucket, fleet.layout, self._outcome(job, segments))
        else:  # it was removed
            ended = None
        if ended is not None:
            self._write_texts(ended, job)
        if ended is None or not states.close(fleet.bucket, fleet.layout, ended):  # removed: nothing may stay of it
            fleet.bucket.delete(fleet.layout.written(job.id))
        fleet.queues.by_url(ticket.queue).delete(ticket.receipt)
        fleet.bucket.delete([fleet.layout.checkpoint(job.id)])
        if ended:
            callback = ticket.callback if fleet.config.callbacks.enabled else ""
            fleet.store.tickets.settle(ticket, callback, ended.status, ended.error)
        else:
            fleet.store.tickets.withdraw(job.id)
        logs.event("job_finished", job=job.id, status=ended.status if ended else "removed")

    def _give_back(self, ticket: Ticket, job: Job) -> None:
        """This machine could not do it, and it is not the recording's fault as far as is known: another one may. After
        so many deliveries the queue gives the job up."""
        fleet = self._fleet
        not_done(fleet, ticket, job.error)
        fleet.queues.by_url(ticket.queue).hold(ticket.receipt, 0)
        fleet.store.tickets.withdraw(job.id)

    def _outcome(self, job: Job, segments: list[Segment]) -> Outcome:
        fleet = self._fleet
        speed = float((fleet.store.worker() or {}).get("speed") or 0.0)
        price = fleet.config.fleet.price
        translated = job.options.task == "translate"
        assert job.status in ("done", "failed", "cancelled")
        return Outcome(
            job=job.id,
            owner=job.key_id,
            status=job.status,
            task=job.options.task,
            model=f"{fleet.config.model.id}@{fleet.config.model.revision}",
            language="en" if translated else job.language or job.options.language or "",
            duration=job.length,
            segments=tuple(segments) if job.status == "done" else (),
            coverage=dict(job.coverage) if job.coverage else None,
            error=job.error,
            machine=fleet.machine,
            attempts=job.attempts,
            started=job.started,
            finished=job.finished or time.time(),
            speed=round(speed, 3),
            dollars_per_hour=round(price / speed, 6) if price and speed else None,
        )

    def _write_texts(self, ended: Outcome, job: Job) -> None:
        """The transcript in every format, always of the outcome that counts. All are sent at once: one after the other
        they would hold up a machine with a GPU longer than a short recording does."""
        if ended.status != "done":
            return
        texts: dict[str, bytes] = {}
        for response_format in TRANSCRIPTS:
            if response_format == "diarized_json" and job.options.speakers is None:
                continue
            try:
                key = self._fleet.layout.transcript(ended.job, response_format)
                texts[key] = rendered(ended, response_format, job)
            except Exception as error:  # what a client has asked for, from wherever, keeps nothing else back
                logs.failure("format_failed", error, job=ended.job, format=response_format)
        with ThreadPoolExecutor(len(TRANSCRIPTS)) as senders:
            list(senders.map(self._fleet.bucket.put_new, texts, texts.values()))


def rendered(ended: Outcome, response_format: str, job: Job) -> bytes:
    """The outcome in a format."""
    timed = all(segment.words for segment in ended.segments)
    answer = TranscriptionResult(
        Transcript(ended.language, ended.duration, ended.segments),
        task=ended.task,
        granularities=("segment", "word") if timed else ("segment",),
        logprobs=bool(job.request.get("logprobs")),
        coverage=ended.coverage or {},
        model=ended.model,
        subtitles=SubtitleOptions.stored(job.request.get("subtitles", {})),
    )
    if response_format in formats.TEXT_WRITERS:
        return formats.TEXT_WRITERS[response_format][1](answer).encode()
    return json.dumps(formats.JSON_WRITERS[response_format](answer), ensure_ascii=False).encode()
