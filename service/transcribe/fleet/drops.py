"""Recordings that are put under `in/` by themselves: S3 tells the queue of each, and any machine makes a job of it.

A job's id comes from its object's key and ETag: however often S3 tells of it, it is one job.
"""

import json
import time
from pathlib import PurePath
from urllib.parse import unquote_plus

import msgspec

from transcribe.fleet.documents import Request, UnreadableError
from transcribe.fleet.layout import Layout, job_id
from transcribe.types import DecodeOptions

COMPRESSED_RATE = 8000  # bytes a second, 64 kbit/s: how long a recording is, as far as its size tells
CREATED = "ObjectCreated:"
TEST = "s3:TestEvent"  # which S3 sends when it is told to tell
RESULT = "json"  # what a client gets that asks for no format


class Drop(msgspec.Struct, frozen=True):
    """An object that was put there. `etag` has no quotation marks."""

    bucket: str
    key: str
    size: int
    etag: str


class _Object(msgspec.Struct, rename="camel"):
    key: str
    size: int = 0
    e_tag: str = ""


class _Bucket(msgspec.Struct):
    name: str


class _S3(msgspec.Struct):
    bucket: _Bucket
    object: _Object


class _Record(msgspec.Struct, rename="camel"):
    event_name: str
    s3: _S3


def read(body: bytes) -> list[Drop] | None:
    """The objects that an event of S3 tells of, which may be none; None for a message that is no such event. Raises
    UnreadableError."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or not ("Records" in told or told.get("Event") == TEST):
        return None
    try:
        records = msgspec.convert(told.get("Records", []), list[_Record])
    except msgspec.ValidationError as error:
        raise UnreadableError(f"no event of S3: {error}") from None
    return [_drop(record.s3) for record in records if record.event_name.startswith(CREATED)]


def _drop(told: _S3) -> Drop:
    return Drop(told.bucket.name, unquote_plus(told.object.key), told.object.size, told.object.e_tag.strip('"'))


def request(layout: Layout, drop: Drop, owner: str) -> Request | None:
    """The job of an object, in the language of the machine that does it; None for one that is not under `in/`, is
    empty, or stands for a folder. `owner` has those that lie in no folder of `in/`: the folder names whose it is."""
    if not drop.key.startswith(layout.drops) or drop.key.endswith("/") or not drop.size:
        return None
    folder, _, rest = drop.key.removeprefix(layout.drops).partition("/")
    whose = folder if rest else owner
    return Request(
        job=job_id("in", drop.key, drop.etag),
        owner=whose,
        options=DecodeOptions(language=None, words=True),
        default_language=True,
        bytes=drop.size,
        seconds=drop.size / COMPRESSED_RATE,
        suffix=PurePath(drop.key).suffix.lower(),
        name=drop.key.removeprefix(layout.drops),
        request={"response_format": RESULT},
        created=time.time(),
    )
