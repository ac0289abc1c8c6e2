"""What the bucket knows of every bake, so that a launcher may die anywhere: begun from what, and how it ended."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from baker.aws.images import Image
from baker.aws.instances import Machine
from baker.aws.s3 import Bucket
from baker.bake.plan import Plan
from baker.context import Context
from baker.errors import UsageError

FOLDER = "bakes"
VERIFIED, FAILED = "verified", "failed"
SHOWN = 20  # of the newest bakes


@dataclass(frozen=True)
class Bake:
    """One bake: what it was begun from (enough to plan the very same again) and its end, empty until then."""

    name: str
    content_hash: str
    source_ami: str
    model_revision: str
    began: str  # ISO 8601
    end: str = ""  # VERIFIED or FAILED
    reason: str = ""


@dataclass(frozen=True)
class Found:
    """A bake with what exists of it in the account now."""

    bake: Bake
    instances: tuple[Machine, ...]
    images: tuple[Image, ...]

    @property
    def kept(self) -> Machine | None:
        """The machine that is kept after it failed."""
        over = self.bake.end == FAILED
        return next((machine for machine in self.instances if over and machine.keep), None)

    @property
    def unfinished(self) -> bool:
        """Whether it left a machine, or an image that nobody has verified."""
        return bool(self.instances) or any(not image.verified for image in self.images)


def begin(context: Context, plan: Plan, name: str) -> Bake:
    """Write down that a bake begins, before anything of it exists."""
    began = datetime.now(UTC).isoformat(timespec="seconds")
    bake = Bake(name, plan.content_hash, plan.source.id, plan.model["revision"], began)
    _save(context, bake)
    return bake


def ended(context: Context, bake: Bake, end: str, reason: str = "") -> None:
    """Write down how it ended."""
    _save(context, replace(bake, end=end, reason=reason[:500]))


def load(context: Context, name: str) -> Bake:
    """Raises UsageError when the bucket knows no such bake."""
    found = _read(context.bucket, key_of(context, name))
    if found is None:
        raise UsageError(f"the bucket {context.bucket.name} knows no bake {name!r}: see `bake.py status`")
    return found


def newest(context: Context) -> list[Bake]:
    """The newest bakes that the bucket knows, newest first."""
    keys = [key for key in context.bucket.keys(key_of(context, "")[: -len(".json")]) if key.endswith(".json")]
    found = (_read(context.bucket, key) for key in sorted(keys, reverse=True)[:SHOWN])
    return [bake for bake in found if bake is not None]


def unfinished(context: Context) -> list[Found]:
    """Bakes of this bucket that left a machine or an image that is not verified, newest first."""
    instances, images = context.machines.ours(), context.images.ours()
    names = {instance.bake for instance in instances} | {image.bake for image in images if not image.verified}
    records = (_read(context.bucket, key_of(context, name)) for name in sorted(names, reverse=True))
    return [found for record in records if record and (found := _found(record, instances, images)).unfinished]


def refuse_beside(found: list[Found]) -> None:
    """One bake at a time: raises UsageError that names the one that is not finished, and the ways out."""
    for other in found:
        name = other.bake.name
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


def survey(context: Context) -> list[Found]:
    """The newest bakes, each with what exists of it."""
    instances, images = context.machines.ours(), context.images.ours()
    return [_found(bake, instances, images) for bake in newest(context)]


def key_of(context: Context, name: str) -> str:
    """Where in the bucket the record of a bake is."""
    return f"{context.config.s3.prefix}/{FOLDER}/{name}.json"


def _found(bake: Bake, instances: list[Machine], images: list[Image]) -> Found:
    return Found(
        bake,
        tuple(instance for instance in instances if instance.bake == bake.name),
        tuple(image for image in images if image.bake == bake.name),
    )


def _save(context: Context, bake: Bake) -> None:
    context.bucket.put(key_of(context, bake.name), json.dumps(asdict(bake), indent=1).encode())


def _read(bucket: Bucket, key: str) -> Bake | None:
    raw = bucket.get(key)
    told = json.loads(raw) if raw else None
    return Bake(**told) if isinstance(told, Mapping) else None
