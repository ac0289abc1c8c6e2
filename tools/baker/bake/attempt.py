"""One machine's errand: its names, its secrets, and the parameters that its user-data carries."""

import itertools
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from baker.aws import requests
from baker.aws.s3 import Bucket
from baker.errors import BakeError
from baker.inputs.payload import Payload

GRACE_SECONDS = 900  # signed addresses outlive the deadline by this, so that a late failure can still be told


@dataclass(frozen=True)
class Audio:
    """A recording to transcribe on the finished image."""

    path: Path
    language: str  # ISO 639-1; empty: the one that the pillar gives the machine


@dataclass(frozen=True)
class Build:
    """`bake` names the whole undertaking, `id` one machine of it; the nonce is that machine's alone."""

    bake: str
    mode: str  # signal.BAKE or signal.VERIFY
    prefix: str
    attempt: int = 1  # counted on when AWS took the machine of the one before away
    keep: bool = False  # if it fails, its machine stays until its deadline
    nonce: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    @property
    def id(self) -> str:
        return f"{self.bake}-{self.mode}" + (f"-{self.attempt}" if self.attempt > 1 else "")

    def key(self, name: str) -> str:
        """Where in the bucket something of this machine is."""
        return f"{self.prefix}/builds/{self.id}/{name}"

    def tags(self, common: Mapping[str, str], deadline: datetime) -> dict[str, str]:
        """The tags of its instance and volume."""
        return {
            **common,
            **({requests.TAG_KEEP: "true"} if self.keep else {}),
            "Name": f"transcribe-bake {self.id}",
            requests.TAG_BAKE: self.bake,
            requests.TAG_ROLE: self.mode,
            requests.TAG_DEADLINE: deadline.isoformat(timespec="seconds"),
        }


def new_bake_name() -> str:
    """A name that sorts by time and that no other bake has: `20260120-153045-3fa9c1`."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def payload_key(prefix: str, payload: Payload) -> str:
    """Where in the bucket a payload is: by its content, so that the same one is stored once."""
    return f"{prefix}/payloads/{payload.sha256}.tar.gz"


def audio_key(errand: Build, audio: Audio) -> str:
    """Where in the bucket a recording for a machine is."""
    return errand.key(f"audio{audio.path.suffix.lower()}")


def parameters(
    build: Build,
    bucket: Bucket,
    deadline_seconds: int,
    *,
    payload: Payload | None = None,
    audio: Audio | None = None,
    origin: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What the machine is told. Every address in it is signed, allows one thing, and expires."""
    seconds = deadline_seconds + GRACE_SECONDS
    told: dict[str, Any] = {
        "build_id": build.id,
        "nonce": build.nonce,
        "mode": build.mode,
        "deadline_seconds": deadline_seconds,
        "keep": build.keep,
        "report_url": bucket.url(build.key("report.json"), "PUT", seconds),
        "progress_url": bucket.url(build.key("progress.json"), "PUT", seconds),
        "log_url": bucket.url(build.key("log.txt"), "PUT", seconds),
    }
    if payload is not None:
        url = bucket.url(payload_key(build.prefix, payload), "GET", seconds)
        told["payload"] = {"url": url, "sha256": payload.sha256, "bytes": len(payload.data)}
        told["origin"] = dict(origin or {})
    if audio is not None:
        suffix = audio.path.suffix.lower()
        url = bucket.url(audio_key(replace(build, attempt=1), audio), "GET", seconds)
        told["audio"] = {"url": url, "language": audio.language, "suffix": suffix}
    return told


@dataclass(frozen=True)
class Started:
    """What the bucket knows of a machine: its errand, and the very request that it was asked for with."""

    errand: Build
    request: requests.Request
    deadline: datetime
    etag: str  # of what the bucket holds

    @property
    def spot(self) -> bool:
        """Whether AWS may take the machine away."""
        return "InstanceMarketOptions" in self.request


def record(bucket: Bucket, errand: Build, request: requests.Request, deadline: datetime, before: str) -> str:
    """Write down what is about to be asked, client token and all, before it is: a launcher may die at any moment.

    It takes the place of what has the tag `before`, if any. Returns its own; raises BakeError when another launcher
    has written something else down: only what is in the bucket may be asked for.
    """
    document = {
        "bake": errand.bake,
        "mode": errand.mode,
        "attempt": errand.attempt,
        "nonce": errand.nonce,
        "deadline": deadline.isoformat(timespec="seconds"),
        "request": request,
    }
    etag = bucket.put_if(errand.key("state.json"), json.dumps(document, indent=1, sort_keys=True).encode(), before)
    if not etag:
        raise BakeError(f"another launcher has asked for the machine of {errand.id} meanwhile")
    return etag


def recall(bucket: Bucket, errand: Build) -> Started | None:
    """What an earlier launcher wrote down of the last attempt at `errand`; None: it had not come so far."""
    last = None
    for attempt in itertools.count(1):
        tried = replace(errand, attempt=attempt)
        stored = bucket.look(tried.key("state.json"))
        if stored is None:
            return last
        told = json.loads(stored.data)
        deadline = datetime.fromisoformat(told["deadline"])
        last = Started(replace(tried, nonce=told["nonce"]), told["request"], deadline, stored.etag)
    return last
