"""Puts a job into the bucket and the queue. It may be broken off anywhere: the same call again goes on."""

from collections.abc import Callable

import msgspec

from transcribe.fleet import states
from transcribe.fleet.bucket import Bucket
from transcribe.fleet.documents import Message, Request, State
from transcribe.fleet.layout import Layout
from transcribe.fleet.queues import Queues


def submit(
    bucket: Bucket, queues: Queues, layout: Layout, request: Request, store_audio: Callable[[str], None]
) -> State | None:
    """Submits the job; returns the state of one that had been already, None if it is sent now. `store_audio` puts the
    recording at the key that it is given.

    First the recording, then what is to be done with it, then the state, then the message. The state says last that the
    message was sent: a job whose message may be missing is sent again, and a second message does no harm.
    """
    found = states.read(bucket, layout, request.job)
    if found and found[0].sent:
        return found[0]
    if found is None:
        key = layout.audio(request.job)
        if bucket.size(key) != request.bytes or not request.bytes:
            store_audio(key)
        bucket.put(layout.request(request.job), request.encoded())
        bucket.put_new(layout.state(request.job), _first(request).encoded())
    send(queues, request)
    states.change(bucket, layout, request.job, lambda state: msgspec.structs.replace(state, sent=True))
    return None


def send(queues: Queues, request: Request) -> str:
    """Sends the job's message, and nothing else; returns the message's id."""
    message = Message(job=request.job, seconds=request.seconds)
    return queues.of(priority=request.priority).send(message.encoded(), request.owner)


def _first(request: Request) -> State:
    return State(
        job=request.job,
        owner=request.owner,
        seconds=request.seconds,
        name=request.name,
        priority=request.priority,
        created=request.created,
    )
