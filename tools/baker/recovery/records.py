"""The bucket's record of every bake: what it was begun from, and how it ended, so that a launcher may die anywhere."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from baker.aws.images import Ami
from baker.aws.instances import Ec2Instance
from baker.aws.s3 import Bucket
from baker.context import BakeContext
from baker.errors import UsageError

FOLDER = "bakes"
VERIFIED, FAILED = "verified", "failed"
SHOWN = 20  # of the newest bakes


@dataclass(frozen=True)
class BakeRecord:
    """One bake: its inputs (enough to plan the very same bake again) and its end, empty until then."""

    name: str
    content_hash: str
    source_ami: str
    model_revision: str
    began: str  # ISO 8601
    end: str = ""  # VERIFIED or FAILED
    reason: str = ""


@dataclass(frozen=True)
class BakeState:
    """A bake's record, with what exists of the bake in the account now."""

    record: BakeRecord
    instances: tuple[Ec2Instance, ...]
    images: tuple[Ami, ...]

    @property
    def kept(self) -> Ec2Instance | None:
        """The machine that is kept after the bake failed."""
        over = self.record.end == FAILED
        return next((machine for machine in self.instances if over and machine.keep), None)

    @property
    def unfinished(self) -> bool:
        """Whether a machine, or an image that is not verified, is left."""
        return bool(self.instances) or any(not image.verified for image in self.images)


def begin(context: BakeContext, name: str, content_hash: str, source_ami: str, model_revision: str) -> BakeRecord:
    """Record that a bake begins, before anything of it exists."""
    began = datetime.now(UTC).isoformat(timespec="seconds")
    record = BakeRecord(name, content_hash, source_ami, model_revision, began)
    _save(context, record)
    return record


def ended(context: BakeContext, record: BakeRecord, end: str, reason: str = "") -> None:
    """Record how it ended."""
    _save(context, replace(record, end=end, reason=reason[:500]))


def load(context: BakeContext, name: str) -> BakeRecord:
    """Raises UsageError when the bucket has no such record."""
    found = _read(context.bucket, key_of(context, name))
    if found is None:
        raise UsageError(f"the bucket {context.bucket.name} knows no bake {name!r}: see `bake.py status`")
    return found


def newest(context: BakeContext) -> list[BakeRecord]:
    """The newest records, newest first."""
    keys = [key for key in context.bucket.keys(key_of(context, "")[: -len(".json")]) if key.endswith(".json")]
    found = (_read(context.bucket, key) for key in sorted(keys, reverse=True)[:SHOWN])
    return [record for record in found if record is not None]


def unfinished(context: BakeContext) -> list[BakeState]:
    """Bakes of this bucket that left a machine, or an image that is not verified; newest first."""
    instances, images = context.machines.ours(), context.images.ours()
    names = {instance.bake for instance in instances} | {image.bake for image in images if not image.verified}
    records = (_read(context.bucket, key_of(context, name)) for name in sorted(names, reverse=True))
    return [found for record in records if record and (found := _state(record, instances, images)).unfinished]


def raise_if_unfinished(found: list[BakeState]) -> None:
    """One bake at a time: raises UsageError that names an unfinished bake, and what to do about it."""
    for other in found:
        name = other.record.name
        if other.kept is not None:
            raise UsageError(
                f"the bake {name} failed, and its machine {other.kept.id} is kept {other.kept.until}: "
                f"`bake.py reap --bake {name} --yes` ends it before"
            )
        left = ", ".join([*(machine.id for machine in other.instances), *(image.id for image in other.images)])
        raise UsageError(
            f"the bake {name} is not finished ({left}): `bake.py resume {name}` continues it, "
            f"`bake.py reap --bake {name} --yes` removes it"
        )


def survey(context: BakeContext) -> list[BakeState]:
    """The newest bakes, each with what exists of it."""
    instances, images = context.machines.ours(), context.images.ours()
    return [_state(record, instances, images) for record in newest(context)]


def key_of(context: BakeContext, name: str) -> str:
    """Where in the bucket the record of a bake is."""
    return f"{context.config.s3.prefix}/{FOLDER}/{name}.json"


def _state(record: BakeRecord, instances: list[Ec2Instance], images: list[Ami]) -> BakeState:
    return BakeState(
        record,
        tuple(instance for instance in instances if instance.bake == record.name),
        tuple(image for image in images if image.bake == record.name),
    )


def _save(context: BakeContext, record: BakeRecord) -> None:
    context.bucket.put(key_of(context, record.name), json.dumps(asdict(record), indent=1).encode())


def _read(bucket: Bucket, key: str) -> BakeRecord | None:
    raw = bucket.get(key)
    document = json.loads(raw) if raw else None
    return BakeRecord(**document) if isinstance(document, Mapping) else None
