"""What there is in the account of a test, read from moto's own records."""

from collections.abc import Mapping
from typing import Any

from localcloud.aws import account as real
from moto.autoscaling.models import autoscaling_backends
from moto.cloudwatch.models import cloudwatch_backends
from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.elbv2.models import elbv2_backends
from moto.iam.models import iam_backends
from moto.kms.models import kms_backends
from moto.s3.models import s3_backends
from moto.sqs.models import sqs_backends
from moto.ssm.models import ssm_backends
from support.fake_cloud import BUCKET, REGION

CONSOLES: dict[str, str] = {}  # what machines have printed, by instance


def backend() -> Any:
    return ec2_backends[DEFAULT_ACCOUNT_ID][REGION]


def living() -> list[str]:
    return [i.id for i in backend().all_instances() if i.state in ("pending", "running", "stopping", "stopped")]


def remains() -> dict[str, Any]:
    """Everything that a bake can leave in an account, without the source image and the default group."""
    images = [image for image in backend().amis.values() if image.name != "source"]
    return {
        "instances": living(),
        "images": [image.id for image in images],
        "unverified": [image.id for image in images if tags_of(image).get("transcribe:verified") != "true"],
        "volumes": list(backend().volumes),
        "snapshots": [s.id for s in backend().snapshots.values() if tags_of(s)],
        "groups": [g.name for vpc in backend().groups.values() for g in vpc.values() if g.name != "default"],
    }


def tags_of(thing: Any) -> Mapping[str, str]:
    return {tag["key"]: tag["value"] for tag in thing.get_tags()}


def reset() -> None:
    """An empty account with the bucket."""
    iam_backends[DEFAULT_ACCOUNT_ID]["aws"].reset()
    for backends in (
        ec2_backends,
        sqs_backends,
        ssm_backends,
        autoscaling_backends,
        elbv2_backends,
        cloudwatch_backends,
    ):
        backends[DEFAULT_ACCOUNT_ID][REGION].reset()
    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].reset()
    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].create_bucket(BUCKET, REGION)
    real.furnish(REGION)


def stored(key: str) -> Any:
    """moto's record of an object in the bucket, by what follows the launcher's prefix."""
    return s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[BUCKET].keys[f"transcribe-bake/{key}"]


def store(key: str, data: bytes) -> None:
    """Put an object into the bucket, whatever was there."""
    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(BUCKET, f"transcribe-bake/{key}", data)


def keys(under: str) -> list[str]:
    """Keys in the bucket below the launcher's prefix."""
    objects = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[BUCKET].keys
    return [key for key in objects if key.startswith(f"transcribe-bake/{under}")]


def encryptions() -> set[tuple[str, str]]:
    """The algorithms and keys that writes have named, of what is in the bucket."""
    objects = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[BUCKET].keys.values()
    return {(found.encryption, found.kms_key_id) for found in objects}


def bucket_in(region: str) -> None:
    """The bucket, but made in another region."""
    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].reset()
    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].create_bucket(BUCKET, region)


def no_bucket() -> None:
    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].reset()


def no_image() -> None:
    backend().amis.clear()


def no_role(name: str) -> None:
    roles = iam_backends[DEFAULT_ACCOUNT_ID]["aws"].roles
    for key in [key for key, role in roles.items() if role.name == name]:
        del roles[key]


def subnets() -> list[Any]:
    return [subnet for zone in backend().subnets.values() for subnet in zone.values()]


def make_key(state: str) -> str:
    """The ARN of a KMS key in this state; "gone" for none."""
    key = kms_backends[DEFAULT_ACCOUNT_ID][REGION].create_key("", "ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT", "", [])
    key.key_state, key.enabled = state, state == "Enabled"
    arn = str(key.arn)
    return arn if state != "gone" else arn.rpartition("/")[0] + "/00000000-0000-0000-0000-000000000000"
