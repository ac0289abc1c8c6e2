"""Lets SQS deliver fairly, as AWS does with messages that have groups: moto delivers the oldest first.

AWS holds an owner's messages back whose share of those in flight is large. How large is not documented: here it is who
has the fewest in flight, and of several the one who waits the longest.
"""

from collections import Counter
from itertools import count
from typing import Any

from moto.sqs.models import Message, Queue

MESSAGES: Any = Queue.messages
RECEIVED = Message.mark_received
TURNS = count(1)
TURN: dict[str | None, int] = {}  # when a group had its last message


def act() -> None:
    """From now on, in all of moto's queues."""
    Queue.messages = property(_messages)
    Message.mark_received = _mark_received


def _messages(queue: Queue) -> list[Message]:
    waiting: list[Message] = MESSAGES.fget(queue)
    if queue.fifo_queue:
        return waiting
    held = Counter(message.group_id for message in list(queue._messages) if not message.visible)
    return sorted(waiting, key=lambda message: (held[message.group_id], TURN.get(message.group_id, 0)))


def _mark_received(message: Message, visibility_timeout: int | None = None) -> None:
    TURN[message.group_id] = next(TURNS)
    RECEIVED(message, visibility_timeout)
