"""Where the HTTP interface, which has no way to AWS, asks about jobs of the fleet: one JSON line, and one in answer."""

import json
import socketserver
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

from transcribe import logs
from transcribe.feeder.fleet import Fleet
from transcribe.fleet import states, submission
from transcribe.fleet.documents import UNREADABLE, Request, State, UnreadableError, decoded
from transcribe.fleet.layout import JOB
from transcribe.fleet.states import ContendedError
from transcribe.speakers.names import MOST_KNOWN

LONGEST_LINE = 1 << 20  # bytes
SOCKET_MODE = 0o660


class Desk:
    """Answers what the HTTP interface asks. It says whose a job is; the interface decides who may see it."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._actions: dict[str, Callable[[Mapping[str, Any]], Any]] = {
            "submit": self._submit,
            "look": self._look,
            "owner": self._owner,
            "cancel": self._cancel,
            "remove": self._remove,
        }

    def answer(self, line: bytes) -> bytes:
        """The answer to one line: `answer`, or `error` if AWS does not do its part now. UNREADABLE means that what is
        kept of the job cannot be read, so that to ask again helps nobody."""
        try:
            asked = json.loads(line)
            return msgspec.json.encode({"answer": self._actions[asked["do"]](asked)})
        except UnreadableError as error:
            logs.failure("document_unreadable", error, job=str(asked.get("job", "")))
            return msgspec.json.encode({"error": UNREADABLE})
        except (BotoCoreError, Boto3Error, ClientError, OSError, ValueError, ContendedError) as error:
            logs.failure("desk_failed", error)
            return msgspec.json.encode({"error": type(error).__name__})

    def _submit(self, asked: Mapping[str, Any]) -> bool:
        """Puts a recording of the uploads' folder into the bucket, and its job into the queue."""
        fleet, request = self._fleet, msgspec.convert(asked["request"], Request)
        file, *speakers = (fleet.config.temp / Path(name).name for name in (asked["file"], *asked["speakers"]))

        def store_audio(key: str) -> None:  # the recording last: by it, all are known to be there
            for index, path in enumerate(speakers):
                fleet.bucket.upload(fleet.layout.speaker(request.job, index), path)
            fleet.bucket.upload(key, file)

        return submission.submit(fleet.bucket, fleet.queues, fleet.layout, request, store_audio) is None

    def _look(self, asked: Mapping[str, Any]) -> dict[str, Any] | None:
        """The job's request and state, and its outcome if that is over and its text is asked for; None if there is no
        such job."""
        fleet, job = self._fleet, _job(asked)
        stored = fleet.bucket.read(fleet.layout.request(job))
        known = states.read(fleet.bucket, fleet.layout, job)
        if stored is None or known is None:
            return None
        wanted = known[0].over and asked.get("text")
        ended = states.outcome(fleet.bucket, fleet.layout, job) if wanted else None
        return {"request": decoded(stored.data, Request), "state": known[0], "outcome": ended}

    def _owner(self, asked: Mapping[str, Any]) -> str | None:
        """Whose a job is, as far as one of its documents can be read; None if there is no such job. Raises
        UnreadableError."""
        fleet, job = self._fleet, _job(asked)
        unreadable: UnreadableError | None = None
        kinds: dict[str, type[Request] | type[State]] = {
            fleet.layout.request(job): Request, fleet.layout.state(job): State,
        }  # fmt: skip
        for key, kind in kinds.items():
            try:
                if stored := fleet.bucket.read(key):
                    return decoded(stored.data, kind).owner
            except UnreadableError as error:
                unreadable = error
        if unreadable:
            raise unreadable
        return None

    def _cancel(self, asked: Mapping[str, Any]) -> bool:
        """Ends a job; True if it was this that ended it."""
        fleet, known = self._fleet, states.read(self._fleet.bucket, self._fleet.layout, _job(asked))
        if known is None or known[0].over:
            return False
        return states.cancel(fleet.bucket, fleet.layout, known[0], time.time()).status == "cancelled"

    def _remove(self, asked: Mapping[str, Any]) -> bool:
        """Ends a job and removes all that there is of it, whether it can be read or not."""
        fleet, job, speakers = self._fleet, _job(asked), 0
        with suppress(UnreadableError):  # without its state nobody works on it either
            self._cancel(asked)
        try:
            stored = fleet.bucket.read(fleet.layout.request(job))
            speakers = decoded(stored.data, Request).speakers if stored else 0
        except UnreadableError:
            speakers = MOST_KNOWN
        fleet.bucket.delete(fleet.layout.everything(job, speakers))
        return True


def _job(asked: Mapping[str, Any]) -> str:
    job = str(asked["job"])
    if not JOB.fullmatch(job):
        raise ValueError(f"no id of a job: {job!r}")
    return job


class DeskServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """The socket of a desk, for the group of the service."""

    daemon_threads = True

    def __init__(self, desk: Desk, path: Path) -> None:
        """Raises OSError."""
        path.unlink(missing_ok=True)
        self.desk = desk
        super().__init__(str(path), _Conversation)
        path.chmod(SOCKET_MODE)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A conversation that broke off says nothing of the others."""
        logs.warning("conversation_broken")


class _Conversation(socketserver.StreamRequestHandler):
    server: DeskServer

    def handle(self) -> None:
        line = self.rfile.readline(LONGEST_LINE)
        if line.endswith(b"\n"):
            self.wfile.write(self.server.desk.answer(line) + b"\n")
