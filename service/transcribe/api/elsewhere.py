"""Jobs of the fleet, which any machine answers for: asked of this machine's feeder, since here is no way to AWS."""

import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from transcribe import logs
from transcribe.api.errors import ApiError, busy
from transcribe.fleet.documents import GIVEN_UP, UNREADABLE, Outcome, Request, State
from transcribe.fleet.layout import job_id
from transcribe.jobs.models import Job, NewJob, Status

SUBMIT_SECONDS = 600.0  # for an answer: a large recording is on its way to the bucket meanwhile
SECONDS = 30.0  # for an answer that takes a few small objects
RETRY_SECONDS = 10.0
UNREADABLE_CODE = "job_unreadable"


class Seen(msgspec.Struct, frozen=True):
    """A job as the bucket knows it. `outcome` has its text, if that was asked for and all of it is there."""

    request: Request
    state: State
    outcome: Outcome | None

    def job(self) -> Job:
        """The same in the form that the machine's own jobs have."""
        state, options = self.state, self.request.options
        over = state.over
        error = state.error if over else (state.error or GIVEN_UP if state.status == "dead" else None)
        return Job(
            id=state.job,
            key_id=self.request.owner,
            status=self._status(),
            options=options,
            suffix=self.request.suffix,
            created=self.request.created,
            started=state.started,
            finished=state.finished if over else None,
            attempts=state.attempts,
            releases=0,
            setbacks=0,
            duration=state.progress if over else None,
            estimate=state.seconds,
            channels=self.request.channels,
            progress=state.progress,
            error=error,
            language=state.language or None,
            coverage=state.coverage,
            resume=None,
            request=self.request.request,
            fingerprint=self.request.sha256,
            detached=True,
            callback="",
        )

    def _status(self) -> Status:
        if self.state.over:
            return self.state.status  # type: ignore[return-value]
        return {"running": "running", "dead": "failed"}.get(self.state.status, "queued")  # type: ignore[return-value]


@dataclass(frozen=True)
class Recording:
    """A recording that was uploaded here, with those of known voices: names of files in the folder of uploads."""

    file: str
    sha256: str
    size: int
    speakers: tuple[str, ...] = ()


class FleetClient:
    """Asks the feeder. Every method raises ApiError 503 when the feeder or AWS does not answer now, and 500 when a
    document of the job cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def submit(self, new: NewJob, recording: Recording) -> Job:
        """Puts a recording and its job where every machine finds them; what was put there before stays as it is."""
        request = Request(
            job=new.id,
            owner=new.key_id,
            options=new.options,
            sha256=recording.sha256,
            bytes=recording.size,
            seconds=new.estimate,
            channels=new.channels,
            suffix=new.suffix,
            request=dict(new.request),
            callback=new.callback,
            speakers=len(recording.speakers),
            created=time.time(),
        )
        files = {"file": recording.file, "speakers": recording.speakers}
        self._ask({"do": "submit", "request": request, **files}, SUBMIT_SECONDS)
        seen = self.look(new.id)
        if seen is None:
            raise unavailable()
        return seen.job()

    def look(self, job: str, *, text: bool = False) -> Seen | None:
        """The job, or None if there is none. `text`: with its outcome, which may be many megabytes."""
        found = self._ask({"do": "look", "job": job, "text": text})
        return msgspec.convert(found, Seen) if found else None

    def owner(self, job: str) -> str | None:
        """Whose the job is, even if not all of what is kept of it can be read; None if there is none."""
        found = self._ask({"do": "owner", "job": job})
        return None if found is None else str(found)

    def cancel(self, job: str) -> bool:
        """Ends the job; True if it was this that ended it."""
        return bool(self._ask({"do": "cancel", "job": job}))

    def remove(self, job: str) -> None:
        """Ends the job, and removes its recording and its text."""
        self._ask({"do": "remove", "job": job})

    def _ask(self, question: Mapping[str, Any], seconds: float = SECONDS) -> Any:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(seconds)
                connection.connect(str(self._path))
                connection.sendall(msgspec.json.encode(question) + b"\n")
                with connection.makefile("rb") as answers:
                    told = json.loads(answers.readline())
        except (OSError, ValueError) as error:
            logs.failure("feeder_unreachable", error)
            raise unavailable() from None
        if told.get("error") == UNREADABLE:
            message = "What the fleet keeps of this job cannot be read; tell whoever runs it."
            raise ApiError(500, message, "id", UNREADABLE_CODE)
        if "answer" not in told:
            raise unavailable()
        return told["answer"]


def unavailable() -> ApiError:
    """The fleet cannot be asked now."""
    message = "The queue of the fleet cannot be reached at this moment; try again soon."
    return busy(503, message, "fleet_unavailable", seconds=RETRY_SECONDS)


def repeatable(new: NewJob, seconds: float) -> NewJob:
    """The job with an id that a repeat within about so many seconds has as well."""
    parts = (new.key_id, new.fingerprint, str(int(time.time() // seconds)))
    return replace(new, id=job_id(*parts))
