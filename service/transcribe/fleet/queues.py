"""Queues of SQS: what is sent comes at least once, in any order, and again unless it is deleted in time."""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from transcribe.fleet.bucket import code_of
from transcribe.fleet.layout import dead_letter_queue, priority_queue

TRIES = 3  # deliveries, until a message is given up
ANYONE = "anyone"  # the group of messages that have no owner
KEPT_SECONDS = 14 * 24 * 3600  # the longest that SQS keeps a message
LOST = frozenset(
    {
        "ReceiptHandleIsInvalid",
        "InvalidParameterValue",
        "MessageNotInflight",
        "AWS.SimpleQueueService.MessageNotInflight",
    }
)
NO_QUEUE = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"})
COUNT = "ApproximateReceiveCount"
GROUP = re.compile(r"[!-~]{1,128}")
WAITING = "ApproximateNumberOfMessages"


@dataclass(frozen=True)
class Delivery:
    """A message as it came. `count` is how often it has come, this time included; `receipt` is what it is held by."""

    queue: str
    id: str
    receipt: str
    body: bytes
    count: int


class Queue:
    """One queue, by its URL. Every method raises what botocore raises."""

    def __init__(self, sqs: Any, url: str) -> None:
        self._sqs = sqs
        self.url = url

    def send(self, body: bytes, owner: str) -> str:
        """Puts a message into the queue, among its owner's; returns its id."""
        sent = self._sqs.send_message(QueueUrl=self.url, MessageBody=body.decode(), MessageGroupId=group_of(owner))
        return str(sent["MessageId"])

    def receive(self, *, hold: int, wait: int) -> Delivery | None:
        """Takes a message for `hold` seconds, after waiting for one for up to `wait` seconds."""
        return next(iter(self.receive_some(1, hold=hold, wait=wait)), None)

    def receive_some(self, most: int, *, hold: int, wait: int) -> list[Delivery]:
        """The same for up to `most` messages, 10 at most."""
        found = self._sqs.receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=most,
            WaitTimeSeconds=wait,
            VisibilityTimeout=hold,
            MessageSystemAttributeNames=[COUNT],
        ).get("Messages", [])
        return [
            Delivery(
                queue=self.url,
                id=message["MessageId"],
                receipt=message["ReceiptHandle"],
                body=message["Body"].encode(),
                count=int(message.get("Attributes", {}).get(COUNT, 1)),
            )
            for message in found
        ]

    def waiting(self) -> int:
        """How many messages wait to be received, roughly."""
        told = self._sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=[WAITING])["Attributes"]
        return int(told[WAITING])

    def hold(self, receipt: str, seconds: int) -> bool:
        """Keeps a message for so many seconds from now, 0 to give it back; False if it is no longer ours to keep."""
        try:
            self._sqs.change_message_visibility(QueueUrl=self.url, ReceiptHandle=receipt, VisibilityTimeout=seconds)
        except ClientError as error:
            if code_of(error) in LOST:
                return False
            raise
        return True

    def delete(self, receipt: str) -> None:
        """Removes a message for good. One that is held by somebody else by now may come again."""
        try:
            self._sqs.delete_message(QueueUrl=self.url, ReceiptHandle=receipt)
        except ClientError as error:
            if code_of(error) not in LOST:
                raise

    def remove(self) -> None:
        """Removes the queue with all that is in it; one that is not there counts as removed."""
        try:
            self._sqs.delete_queue(QueueUrl=self.url)
        except ClientError as error:
            if code_of(error) not in NO_QUEUE:
                raise


def group_of(owner: str) -> str:
    """The group of an owner's messages. SQS takes no spaces in its name, nor other letters than ASCII's."""
    if not owner:
        return ANYONE
    return owner if GROUP.fullmatch(owner) else hashlib.sha256(owner.encode()).hexdigest()


@dataclass(frozen=True)
class Queues:
    """The queues of one fleet: the one that is looked into first, the usual one, and that of what was given up."""

    priority: Queue
    usual: Queue
    dead: Queue

    def of(self, *, priority: bool) -> Queue:
        """Where a job's message belongs."""
        return self.priority if priority else self.usual

    def remove(self) -> None:
        """Removes all three."""
        for queue in (self.priority, self.usual, self.dead):
            queue.remove()

    def by_url(self, url: str) -> Queue:
        """The queue that a message came from."""
        return self.priority if url == self.priority.url else self.usual


def find(sqs: Any, name: str) -> Queues | None:
    """The queues of the fleet, or None if they are not there."""
    try:
        urls = [
            sqs.get_queue_url(QueueName=each)["QueueUrl"]
            for each in (priority_queue(name), name, dead_letter_queue(name))
        ]
    except ClientError as error:
        if code_of(error) in NO_QUEUE:
            return None
        raise
    return Queues(*(Queue(sqs, url) for url in urls))


def make(sqs: Any, name: str, tags: dict[str, str], tries: int = TRIES) -> Queues:
    """Creates the queues of the fleet where they are not there yet. A message is given up after so many `tries`."""
    kept = {"MessageRetentionPeriod": str(KEPT_SECONDS), "SqsManagedSseEnabled": "true"}
    dead = sqs.create_queue(QueueName=dead_letter_queue(name), Attributes=kept, tags=tags)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": tries})
    urls = [
        sqs.create_queue(QueueName=each, Attributes={**kept, "RedrivePolicy": redrive}, tags=tags)["QueueUrl"]
        for each in (priority_queue(name), name)
    ]
    return Queues(Queue(sqs, urls[0]), Queue(sqs, urls[1]), Queue(sqs, dead))
