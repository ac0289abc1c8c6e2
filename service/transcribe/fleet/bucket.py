"""The bucket that the machines of a fleet share. Keys are full keys."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

UNMET = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
MISSING = frozenset({"NoSuchKey", "404", "NotFound"})


@dataclass(frozen=True)
class Found:
    """An object's content, its ETag, and its age in seconds by S3's own clock."""

    data: bytes
    etag: str
    age: float


def code_of(error: ClientError) -> str:
    """AWS's word for what is wrong."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    """The HTTP status of AWS's answer."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


class Bucket:
    """One bucket. Every method raises what botocore raises."""

    def __init__(self, s3: "S3Client", name: str) -> None:
        self._s3 = s3
        self.name = name

    def read(self, key: str) -> Found | None:
        """The object, or None when there is none."""
        try:
            answer = self._s3.get_object(Bucket=self.name, Key=key)
        except ClientError as error:
            if code_of(error) in MISSING:
                return None
            raise
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        now = parsedate_to_datetime(date) if date else datetime.now(UTC)
        age = max((now - answer["LastModified"]).total_seconds(), 0.0)
        return Found(answer["Body"].read(), answer["ETag"], age)

    def put_new(self, key: str, data: bytes) -> bool:
        """Creates the object; False if there is one already, whose content may be the same."""
        return bool(self._put_when(key, data, {"IfNoneMatch": "*"}))

    def put_if(self, key: str, data: bytes, etag: str) -> str:
        """Replaces the object that has this ETag; returns the new one, '' if somebody else has written meanwhile.

        If the answer to a write that succeeded is lost, the repetition says '' as well.
        """
        return self._put_when(key, data, {"IfMatch": etag})

    def _put_when(self, key: str, data: bytes, condition: Mapping[str, str]) -> str:
        given: dict[str, Any] = {"Bucket": self.name, "Key": key, "Body": data, **condition}
        try:
            return str(self._s3.put_object(**given)["ETag"])
        except ClientError as error:
            if code_of(error) in UNMET or (code_of(error) in MISSING and "IfMatch" in condition):
                return ""
            raise

    def put(self, key: str, data: bytes) -> None:
        """Stores the object, whatever was there."""
        self._s3.put_object(Bucket=self.name, Key=key, Body=data)

    def size(self, key: str) -> int | None:
        """The object's length in bytes, or None when there is none."""
        try:
            return int(self._s3.head_object(Bucket=self.name, Key=key)["ContentLength"])
        except ClientError as error:
            if code_of(error) in MISSING:
                return None
            raise

    def etag(self, key: str) -> str | None:
        """The object's ETag without quotation marks, or None when there is none."""
        try:
            return str(self._s3.head_object(Bucket=self.name, Key=key)["ETag"]).strip('"')
        except ClientError as error:
            if code_of(error) in MISSING:
                return None
            raise

    def upload(self, key: str, path: Path) -> None:
        """Stores a file, a large one in parts."""
        with path.open("rb") as file:
            self._s3.upload_fileobj(file, self.name, key)

    def download(self, key: str, path: Path) -> None:
        """Writes the object to a file, which is not complete before this returns."""
        self._s3.download_file(self.name, key, str(path))

    def copy(self, bucket: str, source: str, key: str, etag: str = "") -> None:
        """Stores another object's content, without reading it here; with `etag` only if that is its ETag. Its tags,
        which take other rights, are left behind."""
        wanted = {"TaggingDirective": "REPLACE"} | ({"CopySourceIfMatch": f'"{etag}"'} if etag else {})
        self._s3.copy({"Bucket": bucket, "Key": source}, self.name, key, ExtraArgs=wanted)

    def etags(self, prefix: str) -> Iterator[tuple[str, str]]:
        """The keys that begin with `prefix`, in order, each with its object's ETag."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return ((found["Key"], found["ETag"]) for page in pages for found in page.get("Contents", []))

    def latest(self, prefix: str, *, among: int, most: int) -> list[str]:
        """Of the first `among` keys that begin with `prefix` the `most` whose objects are newest, the newest first."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.name, Prefix=prefix, PaginationConfig={"MaxItems": among}
        )
        found = [(each["LastModified"], each["Key"]) for page in pages for each in page.get("Contents", [])]
        return [key for _, key in sorted(found, reverse=True)[:most]]

    def keys(self, prefix: str) -> Iterator[str]:
        """The keys that begin with `prefix`, in order."""
        return (key for key, _ in self.etags(prefix))

    def delete(self, keys: Sequence[str]) -> None:
        """Removes the objects, in this order; those that are not there count as removed."""
        for key in keys:
            self._s3.delete_object(Bucket=self.name, Key=key)
