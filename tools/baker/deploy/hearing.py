"""How a machine that serves is given the verification clip: over HTTP, or through a queue of its own."""

import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from transcribe.fleet import states, submission
from transcribe.fleet.documents import Request
from transcribe.fleet.layout import job_id
from transcribe.fleet.states import ContendedError
from transcribe.types import DecodeOptions
from urllib3 import encode_multipart_formdata

from baker.aws.client import aws_errors
from baker.fleet.cloud import FleetCloud

REQUEST_SECONDS = 60.0  # until an answer over HTTP is given up
OWNER = "roll-out"


@dataclass(frozen=True)
class Clip:
    """A recording and its language."""

    path: Path
    language: str


@dataclass(frozen=True)
class Heard:
    """What a machine has made of the clip, and how many seconds it took for it."""

    text: str
    seconds: float


class Hearing(Protocol):
    """Gives a machine the clip. `problem` is what last kept it from being heard, for a person."""

    problem: str

    def hear(self) -> Heard | None:
        """The text, or None as long as there is none; then the next call asks again."""
        ...


class OverHttp:
    """A request with a key. `urls` are all one machine's; the first that answers counts."""

    def __init__(self, urls: Callable[[], Sequence[str]], key: str, clip: Clip) -> None:
        self._urls, self._key, self._clip = urls, key, clip
        self.problem = "it has no address"

    def hear(self) -> Heard | None:
        for url in self._urls():
            began = time.monotonic()
            text = self._asked(url)
            if text is not None:
                return Heard(text, time.monotonic() - began)
        return None

    def _asked(self, url: str) -> str | None:
        clip = self._clip
        file = (clip.path.name, clip.path.read_bytes())
        body, kind = encode_multipart_formdata({"model": "whisper-1", "language": clip.language, "file": file})
        asked = urllib.request.Request(f"{url}/v1/audio/transcriptions", data=body, method="POST")
        asked.add_header("Authorization", f"Bearer {self._key}")
        asked.add_header("Content-Type", kind)
        asked.add_header("Cache-Control", "no-cache")  # a text that it has made already would come at once
        try:
            with urllib.request.urlopen(asked, timeout=REQUEST_SECONDS) as answer:
                return str(json.load(answer)["text"])
        except urllib.error.HTTPError as error:
            error.close()
            self.problem = f"{url} answers {error.code}"
        except (OSError, ValueError, KeyError) as error:
            self.problem = f"{url}: {error or type(error).__name__}"
        return None


class ThroughQueue:
    """A job in a queue that no other machine takes jobs from."""

    def __init__(self, fleet: FleetCloud, clip: Clip) -> None:
        self._fleet, self._clip = fleet, clip
        self._job = ""
        self.problem = "its job was not done"

    def hear(self) -> Heard | None:
        fleet = self._fleet
        try:
            with aws_errors("the clip's job"):
                if not self._job:
                    self._submit()
                ended = states.outcome(fleet.bucket, fleet.layout, self._job)
        except (ValueError, ContendedError) as error:  # what the machine has written is not what it should be
            self.problem = str(error)
            return None
        if ended is None:
            return None
        self._job = ""
        if ended.status != "done":
            self.problem = f"its job {ended.status}: {ended.error.message if ended.error else 'without a reason'}"
            return None
        text = " ".join(segment.text.strip() for segment in ended.segments)
        # From the worker's claim to its end. Its speed is a mean that begins with a warm-up and follows slowly.
        return Heard(text, ended.finished - (ended.started or 0.0))

    def _submit(self) -> None:
        data = self._clip.path.read_bytes()
        request = Request(
            job=job_id(OWNER, secrets.token_hex(16)),
            owner=OWNER,
            options=DecodeOptions(language=self._clip.language),
            bytes=len(data),
            suffix=self._clip.path.suffix,
            name=self._clip.path.name,
            created=time.time(),
        )
        fleet = self._fleet
        submission.submit(
            fleet.bucket, fleet.queues, fleet.layout, request, lambda key: fleet.bucket.upload(key, self._clip.path)
        )
        self._job = request.job
