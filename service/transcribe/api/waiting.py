"""Waits for a job on behalf of a client: until the job is over, the client disconnects, or the server stops."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flask import request

from transcribe.api.context import AppContext
from transcribe.api.errors import ApiError, busy, from_job
from transcribe.api.job_watcher import Follower
from transcribe.jobs.models import Job

LOOK_SECONDS = 0.25  # how often a waiting request checks that its client is still connected


def disconnection_check() -> Callable[[], bool]:
    """A function that tells whether the current request's client has closed the connection, if the server can know."""
    found: Callable[[], bool] = request.environ.get("waitress.client_disconnected", lambda: False)
    return found


def changes(shared: AppContext, job: Job, follower: Follower, left: Callable[[], bool]) -> Iterator[Job]:
    """The job whenever it changed, and at least every LOOK_SECONDS; ends after it is over.

    Raises ApiError when the job was deleted, the client has left or the server stops.
    """
    current: Job | None = job
    while True:
        if current is None:
            raise ApiError(404, "The job was deleted.", code="job_deleted")
        yield current
        if current.over:
            return
        if left():
            raise ApiError(499, "The client closed the connection.", code="client_closed_request")
        if shared.closing.is_set():
            raise busy(503, "The server is restarting; try again soon.", "restarting", seconds=5)
        if follower.wait(LOOK_SECONDS):
            current = shared.store.get(job.id)


@contextmanager
def follow_job(shared: AppContext, job: Job) -> Iterator[Follower]:
    """Keeps the job alive while this client waits for it."""
    follower = shared.watcher.follow(job)
    try:
        yield follower
    finally:
        shared.watcher.leave(job.id)


def wait_for_result(shared: AppContext, job: Job, follower: Follower) -> Job:
    """The finished job. Raises ApiError if it failed, was cancelled, or as `changes` does."""
    [last] = deque(changes(shared, job, follower, disconnection_check()), maxlen=1)  # hours must not pile up
    return raise_if_failed(last)


def raise_if_failed(job: Job) -> Job:
    """The job if it went well. Raises ApiError with the reason it did not."""
    if job.error:
        raise from_job(job.error)
    if job.status == "cancelled":
        raise ApiError(409, "The job was cancelled.", code="job_cancelled")
    if not job.over:
        raise ApiError(409, "The job is not finished.", code="job_not_finished")
    return job
