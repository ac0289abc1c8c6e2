"""One machine's errand: its names, its secrets, and the parameters that its user-data carries."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from baker import launchspec
from baker.bucket import Bucket
from baker.payload import Payload

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
    nonce: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    @property
    def id(self) -> str:
        return f"{self.bake}-{self.mode}"

    def key(self, name: str) -> str:
        """Where in the bucket something of this machine is."""
        return f"{self.prefix}/builds/{self.id}/{name}"

    def tags(self, common: Mapping[str, str], deadline_seconds: int) -> dict[str, str]:
        """The tags of its instance and volume."""
        ends = datetime.now(UTC) + timedelta(seconds=deadline_seconds)
        return {
            **common,
            "Name": f"transcribe-bake {self.id}",
            launchspec.TAG_BAKE: self.bake,
            launchspec.TAG_ROLE: self.mode,
            launchspec.TAG_DEADLINE: ends.isoformat(timespec="seconds"),
        }


def new_bake_name() -> str:
    """A name that sorts by time and that no other bake has: `20260120-153045-3fa9c1`."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def payload_key(prefix: str, payload: Payload) -> str:
    """Where in the bucket a payload is: by its content, so that the same one is stored once."""
    return f"{prefix}/payloads/{payload.sha256}.tar.gz"


def parameters(
    build: Build, bucket: Bucket, deadline_seconds: int, *, payload: Payload | None = None, audio: Audio | None = None
) -> dict[str, Any]:
    """What the machine is told. Every address in it is signed, allows one thing, and expires."""
    seconds = deadline_seconds + GRACE_SECONDS
    told: dict[str, Any] = {
        "build_id": build.id,
        "nonce": build.nonce,
        "mode": build.mode,
        "deadline_seconds": deadline_seconds,
        "report_url": bucket.url(build.key("report.json"), "PUT", seconds),
        "progress_url": bucket.url(build.key("progress.json"), "PUT", seconds),
        "log_url": bucket.url(build.key("log.txt"), "PUT", seconds),
    }
    if payload is not None:
        url = bucket.url(payload_key(build.prefix, payload), "GET", seconds)
        told["payload"] = {"url": url, "sha256": payload.sha256, "bytes": len(payload.data)}
    if audio is not None:
        suffix = audio.path.suffix.lower()
        url = bucket.url(build.key(f"audio{suffix}"), "GET", seconds)
        told["audio"] = {"url": url, "language": audio.language, "suffix": suffix}
    return told


def record(bucket: Bucket, build: Build, facts: Mapping[str, Any]) -> None:
    """Write down what is about to be done, before it is done: a launcher that died can be continued or swept."""
    document = {"bake": build.bake, "mode": build.mode, "nonce": build.nonce, **facts}
    bucket.put(build.key("state.json"), json.dumps(document, indent=1, sort_keys=True).encode())
