"""Launch templates, Auto Scaling groups and target groups: made once, changed where they differ, removed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from baker.aws import requests
from baker.aws.client import Clients, aws_errors, unless_missing
from baker.errors import AwsError

if TYPE_CHECKING:
    from mypy_boto3_autoscaling.type_defs import TagTypeDef

READY = "/ready"
GRACE_SECONDS = 1200  # longer than a launch waits for a machine: its volume is still being fetched from the snapshot
TAKEN = frozenset({"AlreadyExists", "DuplicateTargetGroupName", "InvalidLaunchTemplateName.AlreadyExistsException"})
CHECK_SECONDS = 10  # between two health checks


@dataclass(frozen=True)
class Group:
    """An Auto Scaling group as it is wanted."""

    name: str
    subnets: Sequence[str]
    target_group: str
    min_size: int
    max_size: int
    tags: Mapping[str, str]
    holds_work: bool = False  # its machines hold jobs of a fleet: they end themselves, and nothing else ends them
    patience: float = 1.0  # by how much more than usual a first start may take
    on_demand: int | None = None  # how many are on demand, those beyond spot; None: all are as the template says


@contextmanager
def _unless_there(made: Callable[[], object]) -> Iterator[None]:
    """Inside, a thing is made by its name. If the answer of AWS is lost, the repetition says that the name is taken: no
    error, if the thing is there now as it is to be, which `made` tells."""
    try:
        yield
    except AwsError as error:
        if error.code not in TAKEN or not made():
            raise


def _template_or_mix(wanted: Group) -> requests.Request:
    """From what a group starts its machines. Which of them are spot does not depend on where there is room."""
    template = {"LaunchTemplateName": wanted.name, "Version": "$Default"}
    if wanted.on_demand is None:
        return {"LaunchTemplate": template}
    distribution = {
        "OnDemandBaseCapacity": wanted.on_demand,
        "OnDemandPercentageAboveBaseCapacity": 0,
        "SpotAllocationStrategy": "price-capacity-optimized",
    }
    mix = {"LaunchTemplate": {"LaunchTemplateSpecification": template}, "InstancesDistribution": distribution}
    return {"MixedInstancesPolicy": mix}


class AutoScaling:
    """These calls in one region. Everything goes by one name, so that it is found instead of made again."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def template(self, name: str, data: requests.Request, digest: str, tags: Mapping[str, str]) -> None:
        """Make the template's default version hold `data`, whose `digest` is the version's description."""
        ec2 = self._clients.ec2
        found = self._default_version(name)
        if found is None:
            with _unless_there(lambda: self._default_version(name) == digest), aws_errors("CreateLaunchTemplate"):
                ec2.create_launch_template(
                    LaunchTemplateName=name,
                    VersionDescription=digest,
                    LaunchTemplateData=data,  # type: ignore[arg-type]
                    TagSpecifications=requests.tag_specifications(("launch-template",), tags),
                )
            return
        if found == digest:
            return
        with aws_errors("CreateLaunchTemplateVersion"):
            made = ec2.create_launch_template_version(
                LaunchTemplateName=name,
                VersionDescription=digest,
                LaunchTemplateData=data,  # type: ignore[arg-type]
            )
        number = str(made["LaunchTemplateVersion"]["VersionNumber"])
        with aws_errors("ModifyLaunchTemplate"):
            ec2.modify_launch_template(LaunchTemplateName=name, DefaultVersion=number)

    def target_group(self, name: str, vpc: str, port: int, tags: Mapping[str, str]) -> str:
        """The ARN of the target group, whose targets are healthy while they are ready."""
        arn = self._target_group(name)
        if arn is None:
            with _unless_there(lambda: self._target_group(name)), aws_errors("CreateTargetGroup"):
                made = self._clients.elbv2.create_target_group(
                    Name=name,
                    Protocol="HTTP",
                    Port=port,
                    VpcId=vpc,
                    TargetType="instance",
                    HealthCheckPath=READY,
                    HealthCheckIntervalSeconds=CHECK_SECONDS,
                    HealthyThresholdCount=2,
                    UnhealthyThresholdCount=3,
                    Matcher={"HttpCode": "200"},
                    Tags=requests.tag_list(tags),  # type: ignore[arg-type]
                )
                return made["TargetGroups"][0]["TargetGroupArn"]
            arn = self._target_group(name)
        assert arn is not None  # it was there a moment ago
        return arn

    def group(self, wanted: Group) -> None:
        """Make the Auto Scaling group what is wanted; its size between the limits is left alone."""
        scaling = self._clients.autoscaling
        request: requests.Request = {
            "AutoScalingGroupName": wanted.name,
            **_template_or_mix(wanted),
            "MinSize": wanted.min_size,
            "MaxSize": wanted.max_size,
            "VPCZoneIdentifier": ",".join(wanted.subnets),
            # A worker that starts again is not ready for a while: no reason to end a machine that holds jobs.
            "HealthCheckType": "EC2" if wanted.holds_work else "ELB",
            "HealthCheckGracePeriod": int(GRACE_SECONDS * wanted.patience),
            "NewInstancesProtectedFromScaleIn": wanted.holds_work,
        }
        if self._group(wanted.name):
            with aws_errors("UpdateAutoScalingGroup"):
                scaling.update_auto_scaling_group(**request)
            return
        tags: list[TagTypeDef] = [
            {"Key": key, "Value": value, "PropagateAtLaunch": False} for key, value in sorted(wanted.tags.items())
        ]
        with _unless_there(lambda: self._group(wanted.name)), aws_errors("CreateAutoScalingGroup"):
            scaling.create_auto_scaling_group(**request, TargetGroupARNs=[wanted.target_group], Tags=tags)

    def last_failure(self, name: str) -> str:
        """What AWS says of the group's newest activity that failed, such as a launch; empty: nothing, or it is denied.

        It is only for a message, and a group that is not there has none.
        """
        try:
            with aws_errors("DescribeScalingActivities"):
                found = self._clients.autoscaling.describe_scaling_activities(AutoScalingGroupName=name)["Activities"]
        except AwsError:
            return ""
        # The newest come first. One whose instance EC2 ends at once, as for a KMS key, is cancelled.
        failed = (activity for activity in found if activity["StatusCode"] in ("Failed", "Cancelled"))
        return " ".join(next((activity.get("StatusMessage", "") for activity in failed), "").split())

    def remove(self, name: str) -> None:
        """Remove the group with its instances, the target group and the template, as far as they are there."""
        scaling, elbv2, ec2 = self._clients.autoscaling, self._clients.elbv2, self._clients.ec2
        if self._group(name):
            with aws_errors("DeleteAutoScalingGroup"):
                scaling.delete_auto_scaling_group(AutoScalingGroupName=name, ForceDelete=True)
        arn = self._target_group(name)
        if arn is not None:
            with aws_errors("DeleteTargetGroup"):
                elbv2.delete_target_group(TargetGroupArn=arn)
        if self._default_version(name) is not None:
            unless_missing("DeleteLaunchTemplate", lambda: ec2.delete_launch_template(LaunchTemplateName=name))

    def _group(self, name: str) -> bool:
        """Whether there is a group with this name."""
        with aws_errors("DescribeAutoScalingGroups"):
            describe = self._clients.autoscaling.describe_auto_scaling_groups
            return bool(describe(AutoScalingGroupNames=[name])["AutoScalingGroups"])

    def _target_group(self, name: str) -> str | None:
        """The ARN of the target group with this name; None when there is none."""
        found = unless_missing("DescribeTargetGroups", lambda: self._clients.elbv2.describe_target_groups(Names=[name]))
        return found["TargetGroups"][0]["TargetGroupArn"] if found else None

    def _default_version(self, name: str) -> str | None:
        """The description of a template's default version; None when there is no such template."""
        describe = self._clients.ec2.describe_launch_template_versions
        found = unless_missing(
            "DescribeLaunchTemplateVersions", lambda: describe(LaunchTemplateName=name, Versions=["$Default"])
        )
        return found["LaunchTemplateVersions"][0].get("VersionDescription", "") if found else None
