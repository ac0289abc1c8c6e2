"""What the launcher may do in an AWS account: every call that it makes, declared here, and the policy that allows them.

A call that is made and not declared fails a test, and so does one that is declared and never made.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import boto3
from transcribe.fleet import gauges

from baker.aws import requests
from baker.config import LauncherConfig

LAUNCHER, QUEUES, MACHINE, SUBMITTER, ROLL = ROLES = ("launcher", "queues", "machine", "submitter", "roll")
ANY = ("*",)  # what has no resource of its own: every Describe of EC2
IMAGES, SNAPSHOTS = "{ec2_any}image/*", "{ec2_any}snapshot/*"  # a public image belongs to no account
INSTANCES, VOLUMES, GROUPS = "{ec2}instance/*", "{ec2}volume/*", "{ec2}security-group/*"
OBJECTS, BUCKET = "{s3}{bucket}/{prefix}/*", "{s3}{bucket}"
TEMPLATES = "{ec2}launch-template/*"
TARGETS, SCALING = "{elb}targetgroup/{launch}/*", "{scaling}autoScalingGroup:*:autoScalingGroupName/{launch}"
PUBLISHED = "{published_parameter}"
SPOT = "{ec2}spot-instances-request/*"
LINKED = "{iam}role/aws-service-role/*"  # roles that AWS's services have in an account, made at their first use
PASSED = "{iam}role/{role}"  # to a machine that is kept, where a profile is configured
RECORDINGS, FLEET_BUCKET = "{s3}{fleet_bucket}/{fleet_prefix}/*", "{s3}{fleet_bucket}"
TAKEN = ("{sqs}{fleet}", "{sqs}{fleet}-priority")  # queues that machines take jobs from
DEAD = "{sqs}{fleet}-dead"
ON_TRIAL = "{sqs}{fleet}-roll-*"  # queues of the two machines that a roll-out compares
TRIALS = "{s3}{fleet_bucket}/{fleet_prefix}/roll/*"  # and their objects
ALARMS = "{cloudwatch}alarm:{launch}-from-zero*"
KEY = "{kms_key}"  # of disks, where it is the account's own
OBJECT_KEY = "{object_key}"  # of what lies in the bucket, where it is named
NETWORK = ("{ec2}subnet/*", "{ec2}network-interface/*", "{ec2}vpc/*")

Value = str | tuple[str, ...]
Condition = Mapping[str, Mapping[str, Value]]
FREE: Condition = {}
OURS: Condition = {"Null": {f"aws:ResourceTag/{requests.TAG_BAKE}": "false"}}  # it carries a bake's tag
SERVES: Condition = {"Null": {f"aws:ResourceTag/{requests.TAG_LAUNCH}": "false"}}  # it was launched to serve
BECOMES_SERVING: Condition = {"Null": {f"aws:RequestTag/{requests.TAG_LAUNCH}": "false"}}
VIA_EC2: Condition = {
    "StringLike": {"kms:ViaService": "ec2.{anywhere}.{suffix}"},
    "ForAnyValue:StringLike": {"kms:ResourceAliases": "{alias}"},
}  # fmt: skip
VIA_S3: Condition = {
    "StringLike": {"kms:ViaService": "s3.{region}.{suffix}"},
    "ForAnyValue:StringLike": {"kms:ResourceAliases": "{object_alias}"},
}  # fmt: skip
FOR_EC2: Condition = {**VIA_EC2, "Bool": {"kms:GrantIsForAWSResource": "true"}}
CREATES = ("CopyImage", "CreateImage", "CreateLaunchTemplate", "CreateSecurityGroup", "RunInstances")
GAUGES: Condition = {"StringEquals": {"cloudwatch:namespace": gauges.NAMESPACE}}
BECOMES_OURS: Condition = {"Null": {f"aws:RequestTag/{requests.TAG_BAKE}": "false"}}


@dataclass(frozen=True)
class Grant:
    """One permission: an IAM action, the resources that it is confined to, and the condition."""

    action: str
    resources: tuple[str, ...] = ANY
    condition: tuple[tuple[str, tuple[tuple[str, Value], ...]], ...] = ()  # hashable, so that equal scopes are one


@dataclass(frozen=True)
class ApiCall:
    """One operation of one service, as botocore names them, and the permissions that it takes."""

    service: str
    operation: str
    grants: tuple[Grant, ...]


def grant(action: str, *resources: str, when: Condition = FREE) -> Grant:
    """A Grant from plain values."""
    condition = tuple((test, tuple(sorted(keys.items()))) for test, keys in sorted(when.items()))
    return Grant(action, resources or ANY, condition)


def describes(*operations: str) -> tuple[ApiCall, ...]:
    """Calls of EC2 that only look; IAM cannot confine them to a resource."""
    return tuple(ApiCall("ec2", operation, (grant(f"ec2:{operation}"),)) for operation in operations)


def tags_at_birth(*resources: str) -> Grant:
    """The permission to tag what is just being created, and nothing else."""
    return grant("ec2:CreateTags", *resources, when={"StringEquals": {"ec2:CreateAction": CREATES}})


# What EC2 does with the key for whoever starts a machine from an encrypted disk, or copies one.
ENCRYPTS = (
    *(
        grant(f"kms:{operation}", KEY, when=VIA_EC2)
        for operation in ("Decrypt", "DescribeKey", "GenerateDataKeyWithoutPlaintext", "ReEncryptFrom", "ReEncryptTo")
    ),
    grant("kms:CreateGrant", KEY, when=FOR_EC2),
)

# What S3 does with the key for whoever reads what it encrypts, and for whoever writes (in parts, which are read again).
READS = grant("kms:Decrypt", OBJECT_KEY, when=VIA_S3)
WRITES = (READS, grant("kms:GenerateDataKey", OBJECT_KEY, when=VIA_S3))

CALLS: tuple[ApiCall, ...] = (
    *describes(
        "DescribeImages", "DescribeInstances", "DescribeInstanceStatus", "DescribeInstanceTypeOfferings",
        "DescribeInstanceTypes", "DescribeRegions", "DescribeRouteTables", "DescribeSecurityGroups",
        "DescribeSnapshots", "DescribeSubnets", "DescribeVolumes", "DescribeVpcs", "GetEbsDefaultKmsKeyId",
    ),
    ApiCall("ec2", "GetConsoleOutput", (grant("ec2:GetConsoleOutput", INSTANCES, when=OURS),)),
    ApiCall("ec2", "RunInstances", (
        grant("ec2:RunInstances", INSTANCES, when={
            **BECOMES_OURS, "StringEquals": {"ec2:MetadataHttpTokens": "required"},
        }),
        grant("ec2:RunInstances", VOLUMES, when={"Bool": {"ec2:Encrypted": "true"}}),
        grant("ec2:RunInstances", SPOT, IMAGES, SNAPSHOTS, GROUPS, *NETWORK[:2]),  # no key pair: nobody could log in
        grant("ec2:RunInstances", INSTANCES, when={
            **BECOMES_SERVING, "StringEquals": {"ec2:MetadataHttpTokens": "required"},
        }),
        grant("ec2:RunInstances", TEMPLATES), grant("ssm:GetParameters", PUBLISHED),  # which names a template's image
        tags_at_birth(INSTANCES, VOLUMES), *ENCRYPTS,
        grant("iam:PassRole", PASSED, when={"StringEquals": {"iam:PassedToService": "ec2.{suffix}"}}),
    )),
    ApiCall("ec2", "StopInstances", (grant("ec2:StopInstances", INSTANCES, when=OURS),)),
    ApiCall("ec2", "TerminateInstances", (
        grant("ec2:TerminateInstances", INSTANCES, when=OURS), grant("ec2:TerminateInstances", INSTANCES, when=SERVES),
    )),
    ApiCall("ec2", "CreateImage", (
        grant("ec2:CreateImage", INSTANCES, when=OURS),
        grant("ec2:CreateImage", IMAGES, SNAPSHOTS, when=BECOMES_OURS),
        tags_at_birth(IMAGES, SNAPSHOTS),
    )),
    ApiCall("ec2", "CreateTags", (grant("ec2:CreateTags", IMAGES, when=OURS),)),
    ApiCall("ec2", "DeregisterImage", (grant("ec2:DeregisterImage", IMAGES, when=OURS),)),
    ApiCall("ec2", "DeleteSnapshot", (grant("ec2:DeleteSnapshot", SNAPSHOTS, when=OURS),)),
    ApiCall("ec2", "CreateSecurityGroup", (
        grant("ec2:CreateSecurityGroup", GROUPS, NETWORK[2]), tags_at_birth(GROUPS),
    )),
    *describes("DescribeImageAttribute"),
    ApiCall("ec2", "CopyImage", (
        grant("ec2:CopyImage", IMAGES, SNAPSHOTS), tags_at_birth(IMAGES, SNAPSHOTS), *ENCRYPTS,
    )),
    ApiCall("ec2", "ModifyImageAttribute", (grant("ec2:ModifyImageAttribute", IMAGES, when=OURS),)),
    ApiCall("ec2", "EnableImageDeprecation", (grant("ec2:EnableImageDeprecation", IMAGES, when=OURS),)),
    ApiCall("ec2", "DeleteVolume", (grant("ec2:DeleteVolume", VOLUMES, when=OURS),)),
    *describes("DescribeLaunchTemplateVersions"),
    ApiCall("ec2", "CreateLaunchTemplate", (
        grant("ec2:CreateLaunchTemplate", TEMPLATES), tags_at_birth(TEMPLATES),
    )),
    *(
        ApiCall("ec2", operation, (grant(f"ec2:{operation}", TEMPLATES, when=SERVES),))
        for operation in ("CreateLaunchTemplateVersion", "ModifyLaunchTemplate", "DeleteLaunchTemplate")
    ),
    ApiCall("elbv2", "DescribeTargetGroups", (grant("elasticloadbalancing:DescribeTargetGroups"),)),
    ApiCall("elbv2", "CreateTargetGroup", (
        grant("elasticloadbalancing:CreateTargetGroup", TARGETS), grant("elasticloadbalancing:AddTags", TARGETS),
    )),
    ApiCall("elbv2", "DeleteTargetGroup", (grant("elasticloadbalancing:DeleteTargetGroup", TARGETS),)),
    *(
        ApiCall("autoscaling", operation, (grant(f"autoscaling:{operation}"),))
        for operation in ("DescribeAutoScalingGroups", "DescribeScalingActivities")
    ),
    *(
        ApiCall("autoscaling", operation, (grant(f"autoscaling:{operation}", SCALING),))
        for operation in ("CreateAutoScalingGroup", "UpdateAutoScalingGroup", "DeleteAutoScalingGroup")
    ),
    ApiCall("pricing", "GetProducts", (grant("pricing:GetProducts"),)),
    ApiCall("sts", "GetCallerIdentity", ()),  # everybody may
    ApiCall("service-quotas", "GetServiceQuota", (grant("servicequotas:GetServiceQuota"),)),
    ApiCall("kms", "DescribeKey", (grant("kms:DescribeKey", "{keys}*"),)),
    ApiCall("iam", "GetRole", (grant("iam:GetRole", LINKED), grant("iam:CreateServiceLinkedRole", LINKED))),
    ApiCall("s3", "GetBucketEncryption", (grant("s3:GetEncryptionConfiguration", BUCKET),)),
    ApiCall("s3", "HeadBucket", (grant("s3:ListBucket", BUCKET),)),
    ApiCall("s3", "ListObjectsV2", (grant("s3:ListBucket", BUCKET),)),
    # Without ListBucket, S3 answers that a missing object is denied.
    ApiCall("s3", "GetObject", (grant("s3:GetObject", OBJECTS), grant("s3:ListBucket", BUCKET), READS)),
    ApiCall("s3", "PutObject", (grant("s3:PutObject", OBJECTS), *WRITES)),
    ApiCall("ssm", "GetParameter", (
        grant("ssm:GetParameter", "{source_parameter}"), grant("ssm:GetParameter", PUBLISHED),
    )),
    ApiCall("ssm", "GetParameterHistory", (grant("ssm:GetParameterHistory", PUBLISHED),)),
    ApiCall("ssm", "PutParameter", (grant("ssm:PutParameter", PUBLISHED),)),
)  # fmt: skip

# What launch does for a fleet. A policy of its own: with it, the launcher's could be longer than IAM allows.
FLEET_CALLS: tuple[ApiCall, ...] = (
    ApiCall("sqs", "CreateQueue", (grant("sqs:CreateQueue", *TAKEN, DEAD), grant("sqs:TagQueue", *TAKEN, DEAD))),
    ApiCall("sqs", "GetQueueAttributes", (grant("sqs:GetQueueAttributes", *TAKEN, DEAD),)),
    ApiCall("sqs", "SetQueueAttributes", (grant("sqs:SetQueueAttributes", TAKEN[0]),)),
    ApiCall("s3", "GetBucketNotificationConfiguration", (grant("s3:GetBucketNotification", FLEET_BUCKET),)),
    ApiCall("s3", "PutBucketNotificationConfiguration", (grant("s3:PutBucketNotification", FLEET_BUCKET),)),
    *(
        ApiCall("autoscaling", operation, (grant(f"autoscaling:{operation}", SCALING),))
        for operation in ("EnableMetricsCollection", "PutLifecycleHook", "PutScalingPolicy", "DeletePolicy")
    ),
    ApiCall("autoscaling", "DescribePolicies", (grant("autoscaling:DescribePolicies"),)),
    ApiCall("cloudwatch", "PutMetricAlarm", (
        grant("cloudwatch:PutMetricAlarm", ALARMS), grant("cloudwatch:TagResource", ALARMS),
    )),
    ApiCall("cloudwatch", "DeleteAlarms", (grant("cloudwatch:DeleteAlarms", ALARMS),)),
)  # fmt: skip

# What a roll-out does besides, to a group and with the machines that it compares.
ROLL_CALLS: tuple[ApiCall, ...] = (
    ApiCall("elbv2", "DescribeTargetHealth", (grant("elasticloadbalancing:DescribeTargetHealth"),)),
    ApiCall("autoscaling", "TerminateInstanceInAutoScalingGroup", (
        grant("autoscaling:TerminateInstanceInAutoScalingGroup", SCALING),
    )),
    ApiCall("sqs", "CreateQueue", (grant("sqs:CreateQueue", ON_TRIAL), grant("sqs:TagQueue", ON_TRIAL))),
    *(
        ApiCall("sqs", operation, (grant(f"sqs:{operation}", ON_TRIAL),))
        for operation in ("GetQueueAttributes", "SendMessage", "DeleteQueue")
    ),
    ApiCall("s3", "GetObject", (grant("s3:GetObject", TRIALS), grant("s3:ListBucket", FLEET_BUCKET))),
    ApiCall("s3", "HeadObject", (grant("s3:GetObject", TRIALS),)),
    ApiCall("s3", "PutObject", (grant("s3:PutObject", TRIALS),)),
    ApiCall("s3", "ListObjectsV2", (grant("s3:ListBucket", FLEET_BUCKET),)),
    ApiCall("s3", "DeleteObject", (grant("s3:DeleteObject", TRIALS),)),
)  # fmt: skip

# The role of a fleet's machines, which their feeders use.
MACHINE_CALLS: tuple[ApiCall, ...] = (
    # Without ListBucket, S3 answers that a missing object is denied.
    ApiCall("s3", "GetObject", (grant("s3:GetObject", RECORDINGS), grant("s3:ListBucket", FLEET_BUCKET), READS)),
    ApiCall("s3", "HeadObject", (grant("s3:GetObject", RECORDINGS),)),
    ApiCall("s3", "PutObject", (
        grant("s3:PutObject", RECORDINGS), grant("s3:AbortMultipartUpload", RECORDINGS), *WRITES,
    )),
    ApiCall("s3", "DeleteObject", (grant("s3:DeleteObject", RECORDINGS),)),
    ApiCall("sqs", "GetQueueUrl", (grant("sqs:GetQueueUrl", *TAKEN, DEAD, ON_TRIAL),)),
    *(
        ApiCall("sqs", operation, (grant(f"sqs:{operation}", *TAKEN, ON_TRIAL),))
        for operation in ("ReceiveMessage", "ChangeMessageVisibility", "DeleteMessage", "SendMessage")
    ),
    ApiCall("sqs", "GetQueueAttributes", (grant("sqs:GetQueueAttributes", *TAKEN, ON_TRIAL),)),
    ApiCall("cloudwatch", "PutMetricData", (grant("cloudwatch:PutMetricData", when=GAUGES),)),
    ApiCall("autoscaling", "DescribeAutoScalingInstances", (grant("autoscaling:DescribeAutoScalingInstances"),)),
    *(
        ApiCall("autoscaling", operation, (grant(f"autoscaling:{operation}", SCALING),))
        for operation in (
            "TerminateInstanceInAutoScalingGroup", "RecordLifecycleActionHeartbeat", "CompleteLifecycleAction",
        )
    ),
)  # fmt: skip

# Whoever submits recordings, looks at jobs, redrives and cancels them.
SUBMITTER_CALLS: tuple[ApiCall, ...] = (
    *MACHINE_CALLS[:3],
    ApiCall("s3", "ListObjectsV2", (grant("s3:ListBucket", FLEET_BUCKET),)),
    ApiCall("sqs", "GetQueueUrl", (grant("sqs:GetQueueUrl", *TAKEN, DEAD),)),
    ApiCall("sqs", "SendMessage", (grant("sqs:SendMessage", *TAKEN),)),
    *(
        ApiCall("sqs", operation, (grant(f"sqs:{operation}", DEAD),))
        for operation in ("ReceiveMessage", "DeleteMessage")
    ),
    ApiCall("cloudwatch", "GetMetricData", (grant("cloudwatch:GetMetricData"),)),
)


def calls_of(role: str) -> tuple[ApiCall, ...]:
    """What one of the ROLES may ask of AWS."""
    return {
        LAUNCHER: CALLS,
        QUEUES: FLEET_CALLS,
        MACHINE: MACHINE_CALLS,
        SUBMITTER: SUBMITTER_CALLS,
        ROLL: ROLL_CALLS,
    }[role]


def declared(service: str, operation: str) -> bool:
    """Whether the launcher may make this call at all."""
    return any((call.service, call.operation) == (service, operation) for call in (*CALLS, *FLEET_CALLS, *ROLL_CALLS))


def document(config: LauncherConfig, calls: Iterable[ApiCall] = CALLS) -> dict[str, Any]:
    """The least-privilege policy for `config`, as IAM takes it: one statement for each confinement, and one for those
    that allow the same under the same condition, since IAM limits a policy's length."""
    actions: dict[tuple[Any, ...], set[str]] = {}
    for granted in (granted for call in calls for granted in call.grants):
        if _concerns(config, granted.resources):
            actions.setdefault((granted.resources, granted.condition), set()).add(granted.action)
    resources: dict[tuple[Any, ...], dict[str, None]] = {}
    for (confined, condition), allowed in actions.items():
        resources.setdefault((tuple(sorted(allowed)), condition), {}).update(dict.fromkeys(confined))
    values = _values(config)
    statements = [_statement(allowed, condition, found, values) for (allowed, condition), found in resources.items()]
    return {"Version": "2012-10-17", "Statement": statements}


def _concerns(config: LauncherConfig, resources: tuple[str, ...]) -> bool:
    """Whether the configuration has what these resources are."""
    there = {
        "{source_parameter}": config.source.ssm_parameter,
        KEY: config.image.kms_key,
        OBJECT_KEY: config.s3.kms_key,
        PASSED: config.instance.profile or config.fleet.profile,
        ON_TRIAL: config.fleet.queue,
        TRIALS: config.fleet.queue,
        RECORDINGS: config.fleet.queue,
        FLEET_BUCKET: config.fleet.queue,
    }
    return all(configured for resource, configured in there.items() if resource in resources)


def _statement(
    actions: Iterable[str], condition: tuple[Any, ...], resources: Iterable[str], values: Mapping[str, str]
) -> dict[str, Any]:
    statement: dict[str, Any] = {
        "Effect": "Allow",
        "Action": list(actions),
        "Resource": [resource.format_map(values) for resource in resources],
    }
    if condition:
        filled = {test: {key: _filled(value, values) for key, value in keys} for test, keys in condition}
        statement["Condition"] = {test: keys for test, keys in filled.items() if all(keys.values())}
    return statement


def _filled(value: Value, values: Mapping[str, str]) -> str | list[str]:
    return value.format_map(values) if isinstance(value, str) else [each.format_map(values) for each in value]


def _values(config: LauncherConfig) -> dict[str, str]:
    """What the templates of resources are filled with. `*` as account is the account that has the policy."""
    region = config.aws.region
    anywhere = "*" if config.publish.regions else region  # where images are copied to
    partition = boto3.Session().get_partition_for_region(region)
    keys = f"arn:{partition}:kms:{anywhere}:*:key/"
    key, alias = _key(config.image.kms_key, keys)
    object_key, object_alias = _key(config.s3.kms_key, keys)
    return {
        "anywhere": anywhere,
        "suffix": "amazonaws.com.cn" if partition == "aws-cn" else "amazonaws.com",
        "keys": keys,
        "kms_key": key,
        "object_key": object_key,
        "object_alias": object_alias,
        "region": region,
        "role": "*",  # a profile does not tell the name of its role
        "iam": f"arn:{partition}:iam::*:",
        "alias": alias,
        "ec2": f"arn:{partition}:ec2:{region}:*:",
        "ec2_any": f"arn:{partition}:ec2:{anywhere}::",
        "elb": f"arn:{partition}:elasticloadbalancing:{region}:*:",
        "scaling": f"arn:{partition}:autoscaling:{region}:*:",
        "launch": config.launch.name,
        "s3": f"arn:{partition}:s3:::",
        "bucket": config.s3.bucket,
        "prefix": config.s3.prefix,
        "fleet": config.fleet.queue,
        "fleet_bucket": config.fleet.bucket or config.s3.bucket,
        "fleet_prefix": config.fleet.prefix,
        "cloudwatch": f"arn:{partition}:cloudwatch:{region}:*:",
        "sqs": f"arn:{partition}:sqs:{region}:*:",
        "published_parameter": f"arn:{partition}:ssm:{anywhere}:*:parameter{config.publish.ssm_parameter}",
        "source_parameter": f"arn:{partition}:ssm:{region}:*:parameter/{config.source.ssm_parameter.lstrip('/')}",
    }


def _key(named: str, keys: str) -> tuple[str, str]:
    """What a key is as a resource of a policy, where every key begins with `keys`, and its alias, if it goes by one.

    IAM knows keys by their ids only: https://docs.aws.amazon.com/kms/latest/developerguide/alias-authorization.html
    """
    if "alias/" in named:
        return f"{keys}*", named[named.index("alias/") :]
    return (named if named.startswith("arn:") else f"{keys}{named}"), ""
