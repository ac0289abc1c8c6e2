"""One attempt at running a machine: its names, its secrets, the parameters of its user-data, and its record."""

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

ADDRESSES = "addresses.json"
UPLOADS = {"report": "report.json", "progress": "progress.json", "log": "log.txt"}
GRACE_SECONDS = 900  # presigned URLs outlive the deadline by this, so that a late failure can still be reported


@dataclass(frozen=True)
class Recording:
    """A recording to transcribe on the finished image."""

    path: Path
    language: str  # ISO 639-1; empty: the pillar's

    @property
    def suffix(self) -> str:
        return self.path.suffix.lower()


@dataclass(frozen=True)
class MachineAttempt:
    """One machine of a bake. `id` names the machine, and only that machine knows the nonce."""

    bake: str
    mode: str  # acceptance.BAKE or acceptance.VERIFY
    prefix: str
    number: int = 1  # counts up each time AWS reclaims the machine
    keep: bool = False  # if the machine fails, it stays until its deadline
    nonce: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    @property
    def id(self) -> str:
        return f"{self.bake}-{self.mode}" + (f"-{self.number}" if self.number > 1 else "")

    def key(self, name: str) -> str:
        """The bucket key of one of this machine's objects."""
        return f"{self.prefix}/builds/{self.id}/{name}"

    def recording_key(self, recording: Recording) -> str:
        """The bucket key of the recording to transcribe; every attempt of a bake shares it."""
        return replace(self, number=1).key(f"audio{recording.suffix}")

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
    """A unique name that sorts by time: `20260120-153045-3fa9c1`."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def payload_key(prefix: str, payload: Payload) -> str:
    """The bucket key of a payload, which is named by its content, so that equal payloads are stored once."""
    return f"{prefix}/payloads/{payload.sha256}.tar"


def parameters(
    attempt: MachineAttempt,
    bucket: Bucket,
    deadline_seconds: int,
    *,
    payload: Payload | None = None,
    recording: Recording | None = None,
    origin: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The parameters in the machine's user-data: what must not be changed by who can write to the bucket.

    One signed address is among them, which leads to the others: a session's token makes each some thousand characters.
    """
    result: dict[str, Any] = {
        "build_id": attempt.id,
        "nonce": attempt.nonce,
        "mode": attempt.mode,
        "deadline_seconds": deadline_seconds,
        "keep": attempt.keep,
        "addresses_url": bucket.url(attempt.key(ADDRESSES), "GET", deadline_seconds + GRACE_SECONDS),
        "origin": dict(origin or {}),
    }
    if payload is not None:
        result["payload"] = {"sha256": payload.sha256, "bytes": len(payload.data)}
    if recording is not None:
        result["audio"] = {"language": recording.language, "suffix": recording.suffix}
    return result


def store_addresses(
    attempt: MachineAttempt,
    bucket: Bucket,
    seconds: float,
    *,
    payload: Payload | None = None,
    recording: Recording | None = None,
) -> None:
    """Put the machine's signed addresses into the bucket. Each allows one operation, and ends after `seconds` or with
    the credentials that signed it; the machine fetches them anew each minute, so they can be replaced before.
    """
    gets = {"addresses": attempt.key(ADDRESSES)}
    if payload is not None:
        gets["payload"] = payload_key(attempt.prefix, payload)
    if recording is not None:
        gets["audio"] = attempt.recording_key(recording)
    puts = {name: attempt.key(file) for name, file in UPLOADS.items()}
    signed = {
        f"{name}_url": bucket.url(key, method, int(seconds))
        for method, keys in (("GET", gets), ("PUT", puts))
        for name, key in keys.items()
    }
    document = {**signed, "upload_headers": dict(bucket.upload_headers)}
    bucket.put(attempt.key(ADDRESSES), json.dumps(document, indent=1).encode())


@dataclass(frozen=True)
class RecordedAttempt:
    """The bucket's record of an attempt, with the exact RunInstances request that was to be sent for it."""

    attempt: MachineAttempt
    request: requests.Request
    deadline: datetime
    etag: str  # of the record

    @property
    def spot(self) -> bool:
        """Whether AWS may reclaim the machine."""
        return "InstanceMarketOptions" in self.request


def record(bucket: Bucket, attempt: MachineAttempt, request: requests.Request, deadline: datetime, etag: str) -> str:
    """Store a request with its client token before it is sent, since the launcher may die at any moment.

    Replaces the record that has `etag`, or none if that is empty; returns the new record's. Raises BakeError if another
    launcher has written a record meanwhile: a request may be sent only while its record is in the bucket.
    """
    document = {
        "bake": attempt.bake,
        "mode": attempt.mode,
        "attempt": attempt.number,
        "nonce": attempt.nonce,
        "deadline": deadline.isoformat(timespec="seconds"),
        "request": request,
    }
    data = json.dumps(document, indent=1, sort_keys=True).encode()
    stored = bucket.put_if(attempt.key("state.json"), data, etag)
    if not stored:
        raise BakeError(f"another launcher has asked for the machine of {attempt.id} meanwhile")
    return stored


def recall(bucket: Bucket, attempt: MachineAttempt) -> RecordedAttempt | None:
    """The record of the last attempt that an earlier launcher made; None if it made none."""
    last = None
    for number in itertools.count(1):
        tried = replace(attempt, number=number)
        stored = bucket.read(tried.key("state.json"))
        if stored is None:
            return last
        document = json.loads(stored.data)
        deadline = datetime.fromisoformat(document["deadline"])
        tried = replace(tried, nonce=document["nonce"])
        last = RecordedAttempt(tried, document["request"], deadline, stored.etag)
    return last
