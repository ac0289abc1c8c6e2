"""The report of a bake: bake-report.json."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from baker.aws.images import Ami
from baker.aws.s3 import Bucket
from baker.bake import timeline
from baker.bake.acceptance import AcceptedSignal
from baker.bake.plan import BakePlan
from baker.bake.run import machine_phases

SCHEMA = 1
FILE = "bake-report.json"
Document = dict[str, Any]


@dataclass(frozen=True)
class BakeOutcome:
    """A verified image, and what its machines reported; `baked` is None for a reused image."""

    plan: BakePlan
    image: Ami
    bake: str
    baked: AcceptedSignal | None = None
    verified: AcceptedSignal | None = None


def document(outcome: BakeOutcome, phases: Sequence[tuple[str, float]]) -> Document:
    """Everything about a bake that is worth keeping, as JSON's own types."""
    plan, image = outcome.plan, outcome.image
    return {
        "schema": SCHEMA,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "bake": outcome.bake,
        "reused": outcome.baked is None,
        "image": {"id": image.id, "name": image.name, "volume_gb": image.volume_gb, "snapshots": list(image.snapshots)},
        "content_hash": plan.content_hash,
        "inputs": dict(plan.inputs),
        "source_image": {"id": plan.source.id, "name": plan.source.name},
        "model": {"id": plan.model["id"], "commit": plan.model["revision"]},
        "payload": {"sha256": plan.payload.sha256, "bytes": len(plan.payload.data)},
        "user_data_bytes": plan.user_data_bytes,
        "reference": plan.reference,
        "seconds": round(sum(seconds for _, seconds in phases), 1),
        "phases": [{"name": name, "seconds": round(seconds, 1)} for name, seconds in phases],
        "baked": _machine(outcome.baked),
        "verified": _machine(outcome.verified),
    }


def _machine(accepted: AcceptedSignal | None) -> Document | None:
    """What one machine reported, without its secrets."""
    if accepted is None:
        return None
    report = accepted.report
    kept = ("salt", "checks", "clip", "audio", "boot_to_ready_seconds", "facts")
    phases = [{"name": name, "seconds": seconds} for name, seconds in machine_phases(report)]
    same = {"word_error_rate": accepted.word_error_rate, "bytes": (report.get("manifest") or {}).get("bytes")}
    return {"phases": phases, **same, **{key: report.get(key) for key in kept}}


def completed(made: Document, earlier: Document | None) -> Document:
    """The report of a reused image, with what its bake reported then; `earlier` counts only if it is of that bake."""
    if earlier is None or earlier.get("bake") != made["bake"]:
        return made
    machines = {"baked": earlier["baked"], "verified": made["verified"] or earlier["verified"]}
    return {**earlier, **machines, "reused": True} if made["verified"] is None else {**made, **machines}


def save(path: Path, bucket: Bucket, key: str, report: Mapping[str, Any]) -> None:
    """Write the report to the tree and to the bucket, where a later run that reuses the image finds it."""
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
    bucket.put(key, text.encode())


def save_timeline(root: Path, bucket: Bucket, prefix: str, report: Document) -> None:
    """Draw a bake that has just been made, beside its report."""
    page = timeline.html(report)
    (root / timeline.FILE).write_text(page, encoding="utf-8")
    bucket.put(f"{prefix}/reports/{report['bake']}.html", page.encode())


def load(bucket: Bucket, key: str) -> Document | None:
    """An earlier report from the bucket, if there is one."""
    return _parse(bucket.get(key))


def read(path: Path) -> Document | None:
    """The report that an earlier run left in the tree, if there is one."""
    try:
        return _parse(path.read_bytes())
    except OSError:
        return None


def _parse(raw: bytes | None) -> Document | None:
    try:
        found = json.loads(raw) if raw else None
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("schema") == SCHEMA else None


def key_of(prefix: str, bake: str) -> str:
    """Where in the bucket the report of a bake is."""
    return f"{prefix}/reports/{bake}.json"
