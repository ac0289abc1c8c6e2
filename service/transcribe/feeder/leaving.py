"""The machine is to end: what fits is finished, the rest goes on elsewhere, from the text that there is."""

import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import msgspec

from transcribe import logs
from transcribe.feeder import checkpoints
from transcribe.feeder.finisher import Finisher
from transcribe.feeder.fleet import Fleet, trouble
from transcribe.feeder.holder import Holder
from transcribe.fleet import states, submission
from transcribe.fleet.documents import Request, State, decoded
from transcribe.jobs.tickets import Ticket

METADATA_VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT"  # botocore reads it as well
METADATA = "http://169.254.169.254"
LIFECYCLE = "autoscaling/target-lifecycle-state"  # of a machine in a group
SPOT_SECONDS = 90  # of the two minutes between a spot notice and the end; the rest is for handing jobs on
LOOK_SECONDS = 0.2


def notice() -> str:
    """Why AWS is about to end this machine, or ''. Raises OSError where there is no metadata service."""
    token = _token()
    if _metadata(token, "spot/instance-action"):
        return "spot"
    return "scale-in" if _metadata(token, LIFECYCLE) == "Terminated" else ""


def group_member() -> str:
    """The id of this machine while it serves in an Auto Scaling group, or ''. Raises OSError where there is no metadata
    service."""
    token = _token()
    return _metadata(token, "instance-id") if _metadata(token, LIFECYCLE) == "InService" else ""


def instance() -> str:
    """The id of this machine. Raises OSError where there is no metadata service."""
    return _metadata(_token(), "instance-id")


def _base() -> str:
    return os.environ.get(METADATA_VARIABLE, METADATA).rstrip("/")


def _token() -> str:
    asked = urllib.request.Request(f"{_base()}/latest/api/token", method="PUT")
    asked.add_header("X-aws-ec2-metadata-token-ttl-seconds", "60")
    with urllib.request.urlopen(asked, timeout=2) as answer:
        return str(answer.read().decode())


def _metadata(token: str, path: str) -> str:
    asked = urllib.request.Request(f"{_base()}/latest/meta-data/{path}", headers={"X-aws-ec2-metadata-token": token})
    try:
        with urllib.request.urlopen(asked, timeout=2) as answer:
            return str(answer.read().decode()).strip()
    except urllib.error.HTTPError as error:
        error.close()
        return ""


def leave(fleet: Fleet, seconds: float, stop_taking: Callable[[], None]) -> None:
    """Waits up to so many seconds for jobs to be done, and hands the rest on. `stop_taking` returns when nothing more
    comes."""
    finisher, holder, end = Finisher(fleet), Holder(fleet), time.monotonic() + seconds
    while fleet.store.tickets.all() and time.monotonic() < end:
        finisher.once()
        holder.once()
        time.sleep(LOOK_SECONDS)
    stop_taking()
    finisher.once()
    for ticket in fleet.store.tickets.all():
        with trouble("hand_on", ticket.job), fleet.guard:
            hand_on(fleet, ticket)


def hand_on(fleet: Fleet, ticket: Ticket) -> None:
    """Lets another machine go on with a job.

    It gets a new message before the present one is deleted. To give the present one back would count as a failed
    delivery, and three such are the end of a job; this one did nothing wrong.
    """
    if not ticket.receipt:
        return  # all but its callback is done, which the next start makes
    stored = fleet.bucket.read(fleet.layout.request(ticket.job))
    removed, elsewhere = stored is None, False
    if stored is not None:
        saved = checkpoints.save(fleet, ticket.job)

        def update(state: State) -> State:
            if state.over or state.machine != fleet.machine:
                return state
            return msgspec.structs.replace(state, status="queued", machine="", message="")

        state = states.change(fleet.bucket, fleet.layout, ticket.job, update)
        removed, elsewhere = state is None, bool(state and state.status == "running")
        if state and state.status == "queued":
            submission.send(fleet.queues, decoded(stored.data, Request))
        logs.event("job_handed_on", job=ticket.job, audio_seconds=saved)
    if removed:
        fleet.bucket.delete(fleet.layout.written(ticket.job))
    if not elsewhere:  # of the same message AWS may take an older receipt as well
        fleet.queues.by_url(ticket.queue).delete(ticket.receipt)
    fleet.store.tickets.withdraw(ticket.job)
