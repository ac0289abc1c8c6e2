"""The machines of an Auto Scaling group while a new image replaces them: which serve, how many, which are ready."""

from dataclasses import dataclass

from baker.aws.client import Clients, aws_errors
from baker.errors import AwsError, UsageError

SERVING = "InService"
AT_ITS_LEAST = "ValidationError"  # what Auto Scaling answers to a group that would have too few machines
NO_LISTENER = "Target.NotInUse"  # nobody asks the target group's machines whether they are ready


@dataclass(frozen=True)
class GroupNow:
    """A group as Auto Scaling describes it: the sizes, and the ids of its machines that serve."""

    desired: int
    max_size: int
    serving: frozenset[str]
    target_groups: tuple[str, ...]


class Members:
    """The machines of one group, found by its name."""

    def __init__(self, clients: Clients, group: str) -> None:
        self._clients, self._group = clients, group

    def now(self) -> GroupNow:
        """The group at this moment. Raises UsageError if there is none."""
        with aws_errors("DescribeAutoScalingGroups"):
            describe = self._clients.autoscaling.describe_auto_scaling_groups
            found = describe(AutoScalingGroupNames=[self._group])["AutoScalingGroups"]
        if not found:
            raise UsageError(f"there is no group {self._group}: bake.py launch --group makes one")
        [group] = found
        serving = (one["InstanceId"] for one in group["Instances"] if one["LifecycleState"] == SERVING)
        targets = tuple(group.get("TargetGroupARNs", ()))
        return GroupNow(group["DesiredCapacity"], group["MaxSize"], frozenset(serving), targets)

    def resize(self, desired: int, max_size: int) -> None:
        """Let the group have so many machines."""
        with aws_errors("UpdateAutoScalingGroup"):
            self._clients.autoscaling.update_auto_scaling_group(
                AutoScalingGroupName=self._group, DesiredCapacity=desired, MaxSize=max_size
            )

    def end(self, instance: str) -> bool:
        """End a machine, and want one less; one that the group must have is replaced by the group. A balancer sends it
        nothing more, and its requests are answered first. True if the group wants one less for it, for certain."""
        for fewer in (True, False):
            try:
                with aws_errors("TerminateInstanceInAutoScalingGroup"):
                    self._clients.autoscaling.terminate_instance_in_auto_scaling_group(
                        InstanceId=instance, ShouldDecrementDesiredCapacity=fewer
                    )
                return fewer
            except AwsError as error:
                if instance not in self.now().serving:  # an earlier try has done it, or the machine has ended itself
                    return False
                if error.code != AT_ITS_LEAST or not fewer:
                    raise
        return False

    def unhealthy(self, group: GroupNow) -> set[str]:
        """The machines that serve and that a balancer finds not ready, or has not found ready yet."""
        found: set[str] = set()
        for arn in group.target_groups:
            with aws_errors("DescribeTargetHealth"):
                told = self._clients.elbv2.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
            fine = {
                one["Target"]["Id"]
                for one in told
                if one["TargetHealth"]["State"] == "healthy" or one["TargetHealth"].get("Reason") == NO_LISTENER
            }
            found |= group.serving - fine
        return found
