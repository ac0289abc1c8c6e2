"""The bucket that payloads, signals and reports pass through."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from botocore.exceptions import ClientError

from baker.aws.client import Clients, aws_errors, is_missing, unless_missing
from baker.errors import AwsError, UsageError

PRESIGN_LIMIT = 7 * 24 * 3600  # seconds: what signature version 4 allows
UNMET = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"})  # the condition of a write
ELSEWHERE = frozenset({"301", "PermanentRedirect"})  # S3 names no Location, and may not say where the bucket is


@dataclass(frozen=True)
class StoredObject:
    """An object's content, its ETag, and its age in seconds by S3's own clock."""

    data: bytes
    etag: str
    age: float


class Bucket:
    """One bucket; keys are full keys."""

    def __init__(self, clients: Clients, name: str) -> None:
        self._clients = clients
        self.name = name

    @property
    def upload_headers(self) -> Mapping[str, str]:
        """What a PUT to an address of `url` must carry."""
        return self._clients.upload_headers

    def check(self) -> None:
        """Raise UsageError when the bucket is not there, not ours to use, or in another region than the machines.

        botocore finds a bucket wherever it is; the signed addresses that machines are given do not.
        """
        try:
            with aws_errors("HeadBucket"):
                found = self._region()
            if found and found != self._clients.region:
                raise UsageError(
                    f"[s3] the bucket {self.name!r} is in {found}, and machines run in {self._clients.region}: "
                    "name a bucket of the same region"
                )
        except AwsError as error:
            if is_missing(error):
                raise UsageError(f"[s3] there is no bucket {self.name!r}; create it, or name another") from None
            if error.code in ELSEWHERE:
                raise UsageError(
                    f"[s3] the bucket {self.name!r} is in another region than the machines, {self._clients.region}: "
                    "name a bucket of the same region"
                ) from None
            if error.code == "400":  # the answer to HEAD has no words
                raise UsageError(
                    f"[s3] S3 answers 400 about the bucket {self.name!r}: have the credentials ended, or is the region "
                    "not enabled?"
                ) from None
            if error.code == "403":
                raise UsageError(
                    f"[s3] the bucket {self.name!r} is not yours to use: name one of your account in [s3] bucket, "
                    "or allow s3:ListBucket on it"
                ) from None
            raise

    def _region(self) -> str:
        """Where the bucket is, by the header that S3 sends with a refusal as well; empty: it does not say."""
        try:
            answer = self._clients.s3.head_bucket(Bucket=self.name)
        except ClientError as error:
            elsewhere = error.response["ResponseMetadata"].get("HTTPHeaders", {}).get("x-amz-bucket-region", "")
            if not elsewhere or elsewhere == self._clients.region:
                raise
            return str(elsewhere)
        return answer.get("BucketRegion", "")

    def encryption(self) -> str:
        """How S3 encrypts what is put here, for a person."""
        answer = unless_missing("GetBucketEncryption", lambda: self._clients.s3.get_bucket_encryption(Bucket=self.name))
        for rule in answer["ServerSideEncryptionConfiguration"]["Rules"] if answer else ():
            default = rule.get("ApplyServerSideEncryptionByDefault", {})
            if default.get("SSEAlgorithm", "").startswith("aws:kms"):
                return f"by KMS, {default.get('KMSMasterKeyID', 'the key aws/s3')}"
        return "by S3's own keys"

    def put(self, key: str, data: bytes) -> None:
        """Store an object."""
        with aws_errors(f"PutObject {key}"):
            self._clients.s3.put_object(Bucket=self.name, Key=key, Body=data)

    def put_if(self, key: str, data: bytes, etag: str) -> str:
        """Replace the object that has this ETag; if `etag` is empty, create the object unless there is one.

        Returns the new ETag, or "" if somebody else has written meanwhile. Every write must have unique content: if
        the condition fails but the object holds exactly our bytes, an earlier try succeeded and only its response was
        lost.
        """
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        try:
            with aws_errors(f"PutObject {key}"):
                return self._clients.s3.put_object(Bucket=self.name, Key=key, Body=data, **condition)["ETag"]  # type: ignore[arg-type]
        except AwsError as error:
            if error.code not in UNMET:
                raise
        found = self.read(key)
        return found.etag if found and found.data == data else ""

    def get(self, key: str) -> bytes | None:
        """The object's bytes, or None when there is none (yet)."""
        found = self.read(key)
        return found.data if found else None

    def read(self, key: str) -> StoredObject | None:
        """The object, or None when there is none (yet)."""

        def get() -> StoredObject:
            answer = self._clients.s3.get_object(Bucket=self.name, Key=key)
            date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
            now = parsedate_to_datetime(date) if date else datetime.now(UTC)
            age = max((now - answer["LastModified"]).total_seconds(), 0.0)
            return StoredObject(answer["Body"].read(), answer["ETag"], age)

        return unless_missing(f"GetObject {key}", get)

    def keys(self, prefix: str) -> list[str]:
        """The keys that begin with `prefix`, sorted."""
        with aws_errors(f"ListObjectsV2 {prefix}"):
            pages = self._clients.s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
            return sorted(found["Key"] for page in pages for found in page.get("Contents", []))

    def signer(self) -> str:
        """The id of the key that signs addresses now. Credentials of a role or a login by SSO are replaced in time by
        botocore, and what the old ones signed ends with them.
        """
        with aws_errors("credentials"):
            keys = self._clients.credentials.get_frozen_credentials() if self._clients.credentials else None
        return str(keys.access_key) if keys else ""

    def url(self, key: str, method: str, seconds: int, *, here: bool = False) -> str:
        """An address for machines that allows one method ("GET" or "PUT") on one key, for so many seconds.

        With `here` it is for this computer, which the local cloud sees at another address than its machines do.
        """
        signs = self._clients.s3 if here else self._clients.presigner
        operation = {"GET": "get_object", "PUT": "put_object"}[method]
        with aws_errors("presigning"):
            return signs.generate_presigned_url(
                operation, Params={"Bucket": self.name, "Key": key}, ExpiresIn=min(seconds, PRESIGN_LIMIT)
            )
