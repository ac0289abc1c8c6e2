"""A fleet's bucket whose policy demands an encryption: every kind of write names it."""

from pathlib import Path

import boto3
import pytest
from baker import config
from baker.errors import UsageError
from support.fake_cloud import BUCKET, REGION
from transcribe.fleet import encryption
from transcribe.fleet.bucket import Bucket

KEY = "arn:aws:kms:eu-north-1:111122223333:key/objects"


@pytest.mark.usefixtures("cloud")
def test_every_write_of_a_fleet_names_its_encryption(endpoint: str, tmp_path: Path) -> None:
    s3 = boto3.Session("testing", "testing", region_name=REGION).client("s3", endpoint_url=endpoint)
    s3.put_object(Bucket=BUCKET, Key="in/a", Body=b"a")
    bucket = Bucket(s3, BUCKET)
    encryption.ask_for(s3, "aws:kms", KEY)
    large = tmp_path / "large"
    large.write_bytes(bytes(9 << 20))  # goes in parts
    bucket.put("put", b"a")
    bucket.put_new("new", b"a")
    bucket.put_if("new", b"b", s3.head_object(Bucket=BUCKET, Key="new")["ETag"])
    bucket.upload("large", large)
    bucket.copy(BUCKET, "in/a", "copied")
    for key in ("put", "new", "large", "copied"):
        told = s3.head_object(Bucket=BUCKET, Key=key)
        assert (told["ServerSideEncryption"], told["SSEKMSKeyId"]) == ("aws:kms", KEY), key


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"encryption": "aes"}, r"\[s3\] encryption must be AES256, aws:kms or aws:kms:dsse, not 'aes'"),
        ({"encryption": "AES256", "kms_key": "k"}, r"\[s3\] kms_key needs \[s3\] encryption"),
        ({"kms_key": "k"}, r"\[s3\] kms_key needs \[s3\] encryption"),
    ],
)
def test_what_s3_would_not_take_is_refused(section: dict[str, str], says: str) -> None:
    mapping = {"aws": {"region": REGION}, "s3": {"bucket": BUCKET, **section}, "source": {"ami": "ami-1"}}
    with pytest.raises(UsageError, match=says):
        config.from_mapping(mapping)
