"""What launch sets up for a fleet besides its machines."""

import json
from dataclasses import replace

import pytest
from baker.config import FleetSection
from baker.fleet.cloud import make_queues
from baker.fleet.drops import listen
from support.fake_cloud import BUCKET, Cloud
from support.made_images import client
from transcribe.fleet import drops
from transcribe.fleet.queues import Queue

pytestmark = pytest.mark.slow


def test_launch_has_s3_tell_the_queue_and_leaves_what_others_have_set_up(cloud: Cloud) -> None:
    config = replace(cloud.context.config, fleet=FleetSection(queue="speech"))
    context = replace(cloud.context, config=config)
    sqs, s3 = client(cloud, "sqs", config.aws.region), cloud.s3
    others = sqs.create_queue(QueueName="others")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=others, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    theirs = {"Id": "theirs", "QueueArn": arn, "Events": ["s3:ObjectRemoved:*"]}
    s3.put_bucket_notification_configuration(Bucket=BUCKET, NotificationConfiguration={"QueueConfigurations": [theirs]})
    fleet = make_queues(context)
    queue = Queue(sqs, fleet.queues.usual.url)  # not the launcher's, who takes no messages
    url = fleet.queues.usual.url
    mine = {"Sid": "mine", "Effect": "Allow", "Principal": "*", "Action": "sqs:ReceiveMessage", "Resource": "*"}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps({"Statement": [mine]})})
    events = []
    for _ in range(2):
        listen(context, fleet)
        while found := queue.receive(hold=60, wait=0):
            events.append(json.loads(found.body)["Event"])
            queue.delete(found.receipt)
    assert events == ["s3:TestEvent"], "the second time there is nothing to do"
    told = s3.get_bucket_notification_configuration(Bucket=BUCKET)["QueueConfigurations"]
    assert [each["QueueArn"].rpartition(":")[2] for each in told] == ["others", "speech"]
    policy = json.loads(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])["Attributes"]["Policy"])
    kept, ours = policy["Statement"]
    assert kept == mine
    assert (ours["Principal"], ours["Action"]) == ({"Service": "s3.amazonaws.com"}, "sqs:SendMessage")
    assert ours["Condition"]["ArnEquals"] == {"aws:SourceArn": f"arn:aws:s3:::{BUCKET}"}
    cloud.s3.put_object(Bucket=BUCKET, Key="transcribe-fleet/in/anna/one.wav", Body=b"sound")
    [drop] = drops.read(queue.receive(hold=60, wait=0).body) or []  # type: ignore[union-attr]
    assert (drop.bucket, drop.key, drop.size) == (BUCKET, "transcribe-fleet/in/anna/one.wav", 5)
    cloud.s3.put_object(Bucket=BUCKET, Key="transcribe-fleet/jobs/x/audio", Body=b"sound")
    assert queue.receive(hold=60, wait=0) is None
