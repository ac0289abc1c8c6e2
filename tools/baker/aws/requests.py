"""What a machine of a bake is asked to be: pure values that become one RunInstances request."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from baker.config import ON_DEMAND, SPOT

if TYPE_CHECKING:
    from mypy_boto3_ec2.literals import ResourceTypeType
    from mypy_boto3_ec2.type_defs import TagSpecificationTypeDef, TagTypeDef

TAG_BAKE = "transcribe:bake"  # on everything that one bake makes: how it is found again
TAG_ROLE = "transcribe:role"  # what a machine is for: "bake", "verify", or what a roll-out compares
TAG_DEADLINE = "transcribe:deadline"  # ISO 8601: from then on it is swept, unless it is a verified image or of one
TAG_KEEP = "transcribe:keep"  # on a machine that does not end itself when it fails, but at its deadline only
TAG_CONTENT = "transcribe:content-hash"
TAG_INPUTS = "transcribe:inputs"
TAG_PAYLOAD = "transcribe:payload"
TAG_MODEL = "transcribe:model"
TAG_MANIFEST = "transcribe:manifest"  # the digest of the manifest that the machine wrote when it was baked
TAG_VERIFIED = "transcribe:verified"
TAG_PUBLISHED = "transcribe:published"  # when an image was last made the one that is launched, ISO 8601
TAG_LAUNCH = "transcribe:launch"  # on what serves: the name of the launch template that it was started by
TAG_COPY = "transcribe:copy-of"  # on the copy of an image in another region: the id of the image

Request = dict[str, Any]  # boto3's own shape


@dataclass(frozen=True)
class Place:
    """Where a machine may run: one of the combinations that are tried when AWS has no capacity."""

    instance_type: str
    subnet: str
    zone: str
    market: str = ON_DEMAND

    @property
    def pool(self) -> tuple[str, str]:
        """What a quota is counted for."""
        return self.instance_type, self.market

    def __str__(self) -> str:
        return f"{self.instance_type} in {self.zone}" + (" (spot)" if self.market == SPOT else "")


@dataclass(frozen=True)
class MachineSpec:
    """A machine, but for where it runs and under which client token."""

    image_id: str
    root_device: str
    volume_gb: int
    security_group: str
    user_data: str
    tags: Mapping[str, str]
    kms_key: str = ""  # of the disk; empty: AWS' own
    profile: str = ""  # an instance profile; empty: the machine has no role
    initialization_rate: int = 0  # MiB/s


def run_request(spec: MachineSpec, place: Place, client_token: str) -> Request:
    """The arguments of RunInstances. No key pair, and a role only where one is named: the machine may do nothing."""
    ebs = {"VolumeSize": spec.volume_gb, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}
    if spec.kms_key:
        ebs["KmsKeyId"] = spec.kms_key
    if spec.initialization_rate:
        ebs["VolumeInitializationRate"] = spec.initialization_rate
    request: Request = {
        "ImageId": spec.image_id,
        "InstanceType": place.instance_type,
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": client_token,
        "UserData": spec.user_data,
        "SubnetId": place.subnet,
        "SecurityGroupIds": [spec.security_group],
        "BlockDeviceMappings": [{"DeviceName": spec.root_device, "Ebs": ebs}],
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "TagSpecifications": tag_specifications(("instance", "volume"), spec.tags),
    }
    if spec.profile:
        request["IamInstanceProfile"] = {"Name": spec.profile}
    return {**request, **market_options(place.market)}


def market_options(market: str) -> Request:
    """What asks for a spot machine; nothing for one on demand."""
    if market != SPOT:
        return {}
    # Only a persistent request could be stopped, and that would start a new machine when one ends at its deadline.
    options = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
    return {"InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": options}}


def image_request(instance_id: str, name: str, tags: Mapping[str, str], *, running: bool = False) -> Request:
    """The arguments of CreateImage. A machine that is `running` has flushed its disk, and is not to start again."""
    return {
        "InstanceId": instance_id,
        "NoReboot": running,
        "Name": name,
        "Description": "Speech-to-text machine",
        "TagSpecifications": tag_specifications(("image", "snapshot"), tags),
    }


def tag_specifications(
    kinds: "tuple[ResourceTypeType, ...]", tags: Mapping[str, str]
) -> "list[TagSpecificationTypeDef]":
    """The same tags for each kind of resource."""
    return [{"ResourceType": kind, "Tags": tag_list(tags)} for kind in kinds]


def overdue(deadline: datetime | None, now: datetime) -> bool:
    """Whether a deadline tag's time is over. A resource without a readable deadline has nothing to wait for."""
    return deadline is None or now > deadline


def parse_time(text: str) -> datetime | None:
    """A time out of a tag, in UTC; None for anything else."""
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        return None
    return read if read.tzinfo else None


def tag_list(tags: Mapping[str, str]) -> "list[TagTypeDef]":
    """Tags as AWS takes them."""
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]
