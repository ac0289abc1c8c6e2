"""The machine's report: one JSON document, and the console line that confirms it."""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from driver.parameters import Parameters

SCHEMA = 1
MARKER = "TRANSCRIBE-BAKE"
SUCCESS, FAILURE = "success", "failure"


@dataclass
class Report:
    """What is known so far; after a failure the report is sent as far as it got."""

    phases: list[dict[str, Any]] = field(default_factory=list)
    salt: dict[str, Any] = field(default_factory=dict)
    checks: list[dict[str, str]] = field(default_factory=list)
    clip: dict[str, Any] | None = None
    audio: dict[str, Any] | None = None
    boot_to_ready_seconds: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] | None = None

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Record how long a phase took, also when it fails."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.phases.append({"name": name, "seconds": round(time.monotonic() - began, 3)})

    def document(self, parameters: Parameters, verdict: str, reason: str = "") -> bytes:
        """The report as it is sent."""
        document = {
            "schema": SCHEMA,
            "build_id": parameters.build_id,
            "nonce": parameters.nonce,
            "mode": parameters.mode,
            "payload_sha256": parameters.payload_sha256,
            "verdict": verdict,
            "reason": reason,
            "phases": self.phases,
            "salt": self.salt,
            "checks": self.checks,
            "clip": self.clip,
            "audio": self.audio,
            "boot_to_ready_seconds": self.boot_to_ready_seconds,
            "facts": self.facts,
            "manifest": self.manifest,
        }
        return json.dumps(document, indent=1).encode()


def marker(parameters: Parameters, verdict: str, document: bytes) -> str:
    """The second channel: a line on the console with the report's digest, so that a forged report is noticed."""
    digest = hashlib.sha256(document).hexdigest()
    return f"{MARKER} {parameters.build_id} {parameters.nonce} {verdict} {digest}"
