"""POST /v1/audio/transcriptions and /v1/audio/translations: the request waits, the worker works."""

import time
from collections.abc import Callable
from contextlib import ExitStack

from flask import Blueprint, Response, request

from transcribe.api.context import AppContext, context
from transcribe.api.errors import busy
from transcribe.api.fields import Fields
from transcribe.api.job_watcher import Follower
from transcribe.api.params import Params, parse_request, parse_translation, read
from transcribe.api.responses import MODEL_HEADER, answer_to, events, name_ignored, record_header
from transcribe.api.submission import submit
from transcribe.api.upload import form
from transcribe.api.waiting import changes, disconnection_check, follow_job, raise_if_failed, wait_for_result
from transcribe.jobs.models import Job

blueprint = Blueprint("audio", __name__, url_prefix="/v1/audio")

FIRST_SECONDS = 10.0  # how long a stream holds its headers back, so that a bad file is a 400 and not an event


@blueprint.post("/transcriptions")
def transcriptions() -> Response:
    """The recording's words."""
    return _answer(lambda fields, shared: parse_request(fields, shared.offer, task="transcribe"))


@blueprint.post("/translations")
def translations() -> Response:
    """The recording's words, in English."""
    return _answer(lambda fields, shared: parse_translation(fields, shared.offer))


def _answer(parse: Callable[[Fields, AppContext], Params]) -> Response:
    shared = context()
    shared.refuse_while_draining()
    with ExitStack() as stack:
        stack.enter_context(shared.waiting_slot())
        params = parse(read(form(request), request.args), shared)
        refuse_without_worker(shared)
        job = submit(params, detached=False)
        follower = stack.enter_context(follow_job(shared, job))
        if not params.stream:
            done = wait_for_result(shared, job, follower)
            return name_ignored(answer_to(shared, done, params), params)
        response = name_ignored(_streamed(shared, job, follower, params), params)
        response.call_on_close(stack.pop_all().close)  # the slot is held until the stream ends
        return response


def _streamed(shared: AppContext, job: Job, follower: Follower, params: Params) -> Response:
    """Answers when there is text, or the job is over, or after FIRST_SECONDS."""
    began, first = time.monotonic(), job
    updates = changes(shared, job, follower, disconnection_check())
    for first in updates:
        if first.over or first.progress or time.monotonic() - began > FIRST_SECONDS:
            break
    if first.over:
        raise_if_failed(first)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", MODEL_HEADER: shared.model_in_use}
    headers |= record_header(job, params)
    return Response(events(shared, first, updates, params), content_type="text/event-stream", headers=headers)


def refuse_without_worker(shared: AppContext) -> None:
    """Raises ApiError if nobody would work on a waiting request; jobs are taken all the same, for later."""
    state = shared.watcher.snapshot.worker_state
    if state in ("broken", "absent"):
        raise busy(503, f"The transcription process is {state}; try again later.", "worker_unavailable", seconds=30)
