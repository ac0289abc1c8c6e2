"""S3 tells the fleet's queue of recordings that are put under `in/`."""

import json
from typing import Any

from baker.aws.client import SETTLING_SECONDS, aws_errors
from baker.context import BakeContext
from baker.errors import AwsError
from baker.fleet.cloud import FleetCloud

NAME = "transcribe-fleet"  # of our part in the queue's policy and in the bucket's configuration
UNKNOWN = "InvalidArgument"  # what S3 says as long as it may not send to the queue


def listen(context: BakeContext, fleet: FleetCloud) -> None:
    """Have S3 tell the queue, if it does not yet. What others have set up for the queue and the bucket stays."""
    sqs, url = context.clients.other("sqs"), fleet.queues.usual.url
    with aws_errors("GetQueueAttributes"):
        told = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn", "Policy"])["Attributes"]
    queue, known = told["QueueArn"], json.loads(told.get("Policy") or "{}")
    wanted = policy(known, queue, fleet.bucket.name)
    if wanted != known:
        with aws_errors("SetQueueAttributes"):
            sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(wanted)})
    _notify(context, fleet, queue)


def policy(known: dict[str, Any], queue: str, bucket: str) -> dict[str, Any]:
    """The queue's policy, which lets S3 send what happens in this bucket, and nothing else of ours."""
    partition, account = queue.split(":")[1], queue.split(":")[4]
    ours = {
        "Sid": NAME,
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue,
        "Condition": {
            "ArnEquals": {"aws:SourceArn": f"arn:{partition}:s3:::{bucket}"},
            "StringEquals": {"aws:SourceAccount": account},
        },
    }
    others = [each for each in known.get("Statement", []) if each.get("Sid") != NAME]
    return {"Version": "2012-10-17", **known, "Statement": [*others, ours]}


def _notify(context: BakeContext, fleet: FleetCloud, queue: str) -> None:
    s3, bucket = context.clients.s3, fleet.bucket.name
    with aws_errors("GetBucketNotificationConfiguration"):
        known: dict[str, Any] = dict(s3.get_bucket_notification_configuration(Bucket=bucket))
    known.pop("ResponseMetadata", None)
    ours = {
        "Id": f"{NAME}-{fleet.layout.prefix}",
        "QueueArn": queue,
        "Events": ["s3:ObjectCreated:*"],
        "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": fleet.layout.drops}]}},
    }
    present = known.get("QueueConfigurations", [])
    if any(_same(each, ours) for each in present):
        return
    others = [each for each in present if each.get("Id") != ours["Id"]]
    wanted: Any = {**known, "QueueConfigurations": [*others, ours]}
    for pause in (*SETTLING_SECONDS, 0.0):  # until all of AWS knows the queue's policy
        try:
            with aws_errors("PutBucketNotificationConfiguration"):
                s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=wanted)
            return
        except AwsError as error:
            if error.code != UNKNOWN or not pause:
                raise
        context.sleep(pause)


def _same(found: dict[str, Any], ours: dict[str, Any]) -> bool:
    """Whether S3 has this configuration; it writes the names of rules with a capital."""
    rules = {
        (rule["Name"].lower(), rule["Value"]) for rule in found.get("Filter", {}).get("Key", {}).get("FilterRules", [])
    }
    mine = {(rule["Name"], rule["Value"]) for rule in ours["Filter"]["Key"]["FilterRules"]}
    return (found.get("Id"), found.get("QueueArn"), found.get("Events"), rules) == (
        ours["Id"], ours["QueueArn"], ours["Events"], mine,
    )  # fmt: skip
