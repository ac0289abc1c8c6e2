"""/v1/jobs/{job_id}/corrections: what people put right in a finished job's text."""

from flask import Blueprint, Response, jsonify, request

from transcribe.api.context import context, reads_text
from transcribe.api.corrections import names, read, texts
from transcribe.api.errors import ApiError, bad_request
from transcribe.api.routes.jobs import owned
from transcribe.api.waiting import raise_if_failed
from transcribe.jobs.corrections import MOST_CHARACTERS, TooManyCorrectionsError
from transcribe.jobs.models import Job

blueprint = Blueprint("corrections", __name__, url_prefix="/v1/jobs")


@blueprint.get("/<job_id>/corrections")
@reads_text
def show(job_id: str) -> Response:
    """What was corrected so far."""
    return _shown(_correctable(job_id))


@blueprint.patch("/<job_id>/corrections")
@reads_text
def change(job_id: str) -> Response:
    """Corrects names and texts, and takes corrections back; what is not named stays."""
    shared, job = context(), _correctable(job_id)
    changes = read(request)
    heard = shared.store.segments(job.id)
    try:
        shared.store.corrections.change(job.id, names(changes.speakers, heard), texts(changes.segments, heard))
    except TooManyCorrectionsError:
        message = f"A job's corrections may have at most {MOST_CHARACTERS} characters in all."
        raise bad_request(message, "segments", "invalid_value") from None
    return _shown(job)


def _correctable(job_id: str) -> Job:
    """The client's job, which is done. Raises ApiError."""
    mine = owned(job_id)
    if mine.fleet:
        raise ApiError(409, "A job of a fleet cannot be corrected yet.", "id", "not_correctable")
    return raise_if_failed(mine.job)


def _shown(job: Job) -> Response:
    found = context().store.corrections.get(job.id)
    body = {"speakers": found.speakers, "segments": {str(number): text for number, text in found.segments.items()}}
    return jsonify({"object": "transcription.corrections", "job": job.id, **body})
