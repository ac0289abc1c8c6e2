"""Whether the account allows what the launcher must do: EC2's dry run of every call that changes something."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from baker.aws import requests
from baker.aws.client import Clients, aws_errors, is_missing
from baker.aws.images import Ami
from baker.aws.placement import is_refusal
from baker.aws.requests import Place
from baker.config import LauncherConfig
from baker.errors import AwsError, UsageError

ALLOWED, DENIED, REFUSED, UNKNOWN = "allowed", "denied", "refused", "unknown"
DRY = "DryRunOperation"  # the call would have succeeded
MADE_UP = "0" * 17  # of an id
NO_INSTANCE, NO_IMAGE = f"i-{MADE_UP}", f"ami-{MADE_UP}"
NO_SNAPSHOT, NO_VOLUME = f"snap-{MADE_UP}", f"vol-{MADE_UP}"


@dataclass(frozen=True)
class Subject:
    """What a bake would work with. Made-up ids stand for what does not exist yet."""

    place: Place
    source: Ami
    group: str  # empty: the shared security group is still to be made
    vpc: str
    image: Ami | None  # an earlier image of a bake


@dataclass(frozen=True)
class DryRunResult:
    """What the dry run of one operation said."""

    operation: str
    answer: str
    words: str = ""  # AWS' own, unless it is allowed
    mend: str = ""


class DryRuns:
    """The dry runs of one account in one region."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def ask(self, config: LauncherConfig, subject: Subject) -> list[DryRunResult]:
        """One verdict for each call that changes something and has a dry run; nothing is changed by any of them."""
        return [self._ask(*question) for question in _questions(config, subject)]

    def _ask(self, operation: str, request: Mapping[str, Any], real: bool) -> DryRunResult:
        method: Callable[..., object] = getattr(self._clients.ec2, _snake(operation))
        try:
            with aws_errors(f"the dry run of {operation}"):
                method(**request, DryRun=True)
        except AwsError as error:
            if error.code == DRY:
                return DryRunResult(operation, ALLOWED)
            return DryRunResult(operation, _answer(error, real), error.told, error.mend)
        return DryRunResult(operation, ALLOWED)


def require(verdicts: list[DryRunResult]) -> None:
    """Raise UsageError that names every operation that is denied, or would fail for another reason, in AWS' words."""
    denied = [verdict for verdict in verdicts if verdict.answer == DENIED]
    if denied:
        raise UsageError(
            f"AWS denies you {', '.join(f'ec2:{verdict.operation}' for verdict in denied)}; "
            f"{denied[0].mend}; {denied[0].words}"
        )
    refused = ["; ".join(filter(None, (v.words, v.mend))) for v in verdicts if v.answer == REFUSED]
    if refused:
        raise UsageError("; ".join(refused))


def _answer(error: AwsError, real: bool) -> str:
    """What the error of a dry run says about the call; `real`: all that the call names exists.

    A policy with conditions on tags, as ours is, denies a call about something that does not exist. An outage says
    nothing about the call.
    """
    if not real or error.transient or not error.code:
        return UNKNOWN
    if error.denied:
        return DENIED
    return UNKNOWN if is_missing(error) or is_refusal(error) else REFUSED  # another place may have room


def _questions(config: LauncherConfig, subject: Subject) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """Operation, request, and whether all that it names exists."""
    tags = {**config.tags, requests.TAG_BAKE: "dry-run"}
    source = subject.source
    spec = requests.MachineSpec(
        source.id, source.root_device, source.volume_gb, subject.group, "#cloud-config\n", tags, config.image.kms_key
    )
    run = requests.run_request(spec, subject.place, "dry-run")
    if not subject.group:
        del run["SecurityGroupIds"]
        group = {"GroupName": "transcribe-bake", "Description": "dry run", "VpcId": subject.vpc}
        kinds = requests.tag_specifications(("security-group",), tags)
        yield "CreateSecurityGroup", {**group, "TagSpecifications": kinds}, True
    yield "RunInstances", run, True
    yield "StopInstances", {"InstanceIds": [NO_INSTANCE]}, False
    yield "CreateImage", requests.image_request(NO_INSTANCE, "dry-run", tags), False
    yield "TerminateInstances", {"InstanceIds": [NO_INSTANCE]}, False
    image = subject.image
    image_id = image.id if image else NO_IMAGE
    snapshot = image.snapshots[0] if image and image.snapshots else ""
    yield "CreateTags", {"Resources": [image_id], "Tags": requests.tag_list({"Name": "dry-run"})}, image is not None
    yield "DeregisterImage", {"ImageId": image_id}, image is not None
    yield "DeleteSnapshot", {"SnapshotId": snapshot or NO_SNAPSHOT}, bool(snapshot)
    yield "DeleteVolume", {"VolumeId": NO_VOLUME}, False


def _snake(operation: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in operation).lstrip("_")
