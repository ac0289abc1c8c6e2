"""Writes that ask S3 for encryption by name, as a bucket's policy may demand."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

WRITES = ("PutObject", "CopyObject", "CreateMultipartUpload")
HEADERS = {
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
}


def ask_for(s3: "S3Client", algorithm: str, kms_key: str) -> None:
    """From now on every write of this client, and every address that it signs for one, names `algorithm` and the key,
    where there are such."""

    def name(params: dict[str, Any], **_: Any) -> None:
        params.update(_wanted(algorithm, kms_key))

    for operation in WRITES:
        s3.meta.events.register(f"provide-client-params.s3.{operation}", name)


def headers(algorithm: str, kms_key: str) -> Mapping[str, str]:
    """What a PUT to such an address must carry, since the signature covers it."""
    return {HEADERS[name]: value for name, value in _wanted(algorithm, kms_key).items()}


def _wanted(algorithm: str, kms_key: str) -> Mapping[str, str]:
    wanted = {"ServerSideEncryption": algorithm, "SSEKMSKeyId": kms_key}
    return {name: value for name, value in wanted.items() if value}
