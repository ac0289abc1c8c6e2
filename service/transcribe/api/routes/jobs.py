"""/v1/jobs: transcriptions that outlive their request."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from flask import Blueprint, Response, jsonify, request

from transcribe.api import webhooks
from transcribe.api.context import AppContext, context, key_id, reads_text
from transcribe.api.elsewhere import UNREADABLE_CODE, FleetClient
from transcribe.api.errors import ApiError, bad_request, from_job
from transcribe.api.fields import Fields
from transcribe.api.job_records import record_of
from transcribe.api.params import LARGEST_PAGE, TASKS, Params, parse, read
from transcribe.api.responses import name_ignored, record_header, result_of, transcript_of, write_result
from transcribe.api.submission import submit
from transcribe.api.subtitle_fields import result_options
from transcribe.api.upload import form
from transcribe.api.waiting import raise_if_failed
from transcribe.formats import FILE_WRITERS, JSON_WRITERS, TEXT_WRITERS, segment_body, words_body
from transcribe.jobs import uploads
from transcribe.jobs.models import Job
from transcribe.types import Segment, Transcript

blueprint = Blueprint("jobs", __name__, url_prefix="/v1/jobs")

JOB_ID = re.compile(r"[0-9a-f]{32}")
FORMATS = {"txt": "text"} | {name: name for name in (*TEXT_WRITERS, *FILE_WRITERS, *JSON_WRITERS)}
DEFAULT_PAGE = 20
NO_FLEET_RECORD = "A job of a fleet has no signed record yet."


@blueprint.post("")
def create() -> Response:
    """Takes a recording; from the 202 on, its job survives any crash."""
    shared = context()
    shared.refuse_while_draining()
    with shared.storing_slot():
        fields = read(form(request), request.args)
        task = fields.choice("task", TASKS, shared.config.model.task)
        params = parse(fields, shared.offer, task=task)
        if params.stream:
            raise bad_request("Jobs are not streamed; ask for their segments instead.", "stream", "unsupported_value")
        if params.record and shared.fleet:
            raise bad_request(NO_FLEET_RECORD, "record", "unsupported_parameter")
        callback = fields.one("callback_url") or ""
        webhooks.check(shared.config, callback)
        options = replace(params.options, words=True)  # whichever format is asked for later may need them
        job = submit(replace(params, options=options, callback=callback), detached=True)
    alone = shared.fleet is None
    response = jsonify(job_body(shared, job, here=alone, correctable=alone))
    response.status_code, response.headers["Location"] = 202, f"{request.script_root}/v1/jobs/{job.id}"
    return name_ignored(response, params)


@blueprint.get("")
@reads_text  # a hundred reports of what was left out are as much
def listing() -> Response:
    """The key's jobs, newest first; `after` is the last id of the page before."""
    shared = context()
    limit = _whole("limit", DEFAULT_PAGE, 1, LARGEST_PAGE)
    after = request.args.get("after")
    before = owned(after).job.created if after else None
    found = shared.store.jobs(key_id(), limit=limit + 1, before=before)
    held = {ticket.job for ticket in shared.store.tickets.all()} if shared.fleet else ()
    data = [job_body(shared, job, correctable=job.id not in held) for job in found[:limit]]
    return jsonify({"object": "list", "data": data, "has_more": len(found) > limit})


@blueprint.get("/<job_id>")
def show(job_id: str) -> Response:
    """The job's state and progress."""
    return _shown(job_id)


@blueprint.get("/<job_id>/segments")
@reads_text
def segments(job_id: str) -> Response:
    """The text so far with its times, from the segment after `after`, at most `limit` segments; more may follow until
    the status says done."""
    shared, mine = context(), owned(job_id, text=True)  # the status before the text: what says done has all of it
    after, limit = _whole("after", -1, -1, 2**31), _whole("limit", 2**31, 1, 2**31)
    if mine.segments is None:
        found = _as_asked(shared, mine.job, shared.store.segments(mine.job.id, after, limit))
    else:
        found = [segment for segment in mine.segments if segment.id > after][:limit]
    data = [{**segment_body(segment), "words": words_body(segment)} for segment in found]
    return jsonify({"object": "list", "data": data, "job": _body(mine)})


@blueprint.get("/<job_id>/result")
@reads_text
def result(job_id: str) -> Response:
    """The finished job's text in any format."""
    shared, mine = context(), owned(job_id, text=True)
    job = mine.job
    default = job.request.get("response_format", "json")
    response_format = FORMATS.get((request.args.get("format") or default).strip().lower())
    if response_format is None:
        raise bad_request(f"format must be one of {', '.join(FORMATS)}.", "format", "invalid_value")
    done = raise_if_failed(job)
    params = Params(
        done.options,
        response_format,
        granularities=("segment", "word") if done.options.words else ("segment",),
        logprobs=bool(done.request.get("logprobs")),
        subtitles=result_options(request.args, response_format, done.request),
        record=bool(done.request.get("record")) and mine.fleet is None,
    )
    found = _as_asked(shared, done, shared.store.segments(done.id)) if mine.segments is None else mine.segments
    answer = result_of(shared, done, params, found)
    if response_format == "diarized_json" and not _told_apart(done, answer.transcript):
        message = "Speakers were not told apart in this job; send the recording again with speakers=true."
        raise bad_request(message, "format", "invalid_value")
    if "word" not in done.request.get("granularities", ()) and not all(one.words for one in answer.transcript.segments):
        answer = replace(answer, granularities=("segment",))  # words that nobody asked for are all there, or none
    response = write_result(answer, response_format, _record(shared, done) if params.record else None)
    response.headers.update(record_header(done, params))
    return response


def _as_asked(shared: AppContext, job: Job, found: Sequence[Segment]) -> Sequence[Segment]:
    """The job's segments with what was corrected in them, unless the URL asks for the original."""
    original = Fields(request.args, ("original",)).boolean("original")
    return found if original or not job.over else shared.store.corrections.get(job.id).apply(found)


def _told_apart(job: Job, transcript: Transcript) -> bool:
    asked = job.options.speakers is not None or job.options.channels == "separate"
    return asked or any(segment.speaker for segment in transcript.segments)


@blueprint.get("/<job_id>/record")
@reads_text
def record(job_id: str) -> Response:
    """The signed record of the finished job."""
    shared, mine = context(), owned(job_id)
    if mine.fleet:
        raise ApiError(404, NO_FLEET_RECORD, "id", "no_record")
    job = mine.job
    return jsonify(_record(shared, raise_if_failed(job)))


def _record(shared: AppContext, done: Job) -> dict[str, str]:
    heard, corrections = transcript_of(shared, done), shared.store.corrections.get(done.id)
    return record_of(shared.provenance, done, heard, corrections)


@blueprint.post("/<job_id>/cancel")
def cancel(job_id: str) -> Response:
    """Cancels the job if it is not over yet."""
    shared, mine = context(), owned(job_id)
    ended = mine.fleet.cancel(job_id) if mine.fleet else False  # the fleet's word counts
    here = shared.store.cancel(job_id)
    if not (ended if mine.fleet else here):
        raise ApiError(409, "The job is already over.", code="job_over")
    uploads.remove(shared.config.temp, job_id)
    return _shown(job_id)


@blueprint.delete("/<job_id>")
def delete(job_id: str) -> Response:
    """Removes the job, its audio and its text, at once."""
    shared = context()
    try:
        fleet = owned(job_id).fleet
    except ApiError as error:
        if error.code != UNREADABLE_CODE or not shared.fleet:
            raise
        fleet = shared.fleet
        if fleet.owner(job_id) != key_id():
            raise _no_such_job() from None
    if fleet:
        fleet.remove(job_id)
    shared.store.delete(job_id)
    uploads.remove(shared.config.temp, job_id)
    return jsonify({"id": job_id, "object": "transcription.job", "deleted": True})


@dataclass(frozen=True)
class Owned:
    """A client's job. `fleet`: where it may be changed, if it is the fleet's. `segments`: its text, if the job is not
    in this machine's store; empty unless it was asked for."""

    job: Job
    fleet: FleetClient | None = None
    segments: tuple[Segment, ...] | None = None

    @property
    def here(self) -> bool:
        """Whether this machine has the job in its store."""
        return self.segments is None


def owned(job_id: str, *, text: bool = False) -> Owned:
    """The job if it is the client's own; with its `text`, which takes a slot (`reads_text`), if it is not here. Raises
    ApiError 404 otherwise: other keys' jobs are not revealed."""
    shared = context()
    found = _find(shared, job_id, text=text) if JOB_ID.fullmatch(job_id) else None
    if found is None or found.job.key_id != key_id():
        raise _no_such_job()
    return found


def _no_such_job() -> ApiError:
    return ApiError(404, "There is no such job.", "id", "job_not_found")


def _find(shared: AppContext, job_id: str, *, text: bool) -> Owned | None:
    """The job, wherever in the fleet it is. Of one that is worked on here, this machine knows more than the others."""
    ticket, job = shared.store.tickets.get(job_id), shared.store.get(job_id)  # in this order: both may go in between
    if shared.fleet is None or (job and not ticket):
        return Owned(job) if job else None
    seen = shared.fleet.look(job_id, text=text)
    if seen is None or (text and seen.state.status == "done" and seen.outcome is None):  # as where its text has expired
        return None
    if seen.state.over:
        return Owned(seen.job(), shared.fleet, seen.outcome.segments if seen.outcome else ())
    if job and not job.over:
        return Owned(job, shared.fleet)
    # One that is over here has its result only when all of it is there; until then it shows the text that there is.
    return Owned(seen.job(), shared.fleet, tuple(shared.store.segments(job_id)) if job and text else ())


def job_body(shared: AppContext, job: Job, *, here: bool = True, correctable: bool = True) -> dict[str, Any]:
    """The job as clients see it. Moments are Unix times. Of a job that is not `here` but elsewhere in the fleet neither
    its place in the queue is known, nor when it is removed. `correctable`: corrections of it are kept, once it is done.
    """
    kept = shared.config.retention.results_hours * 3600
    return {
        "id": job.id,
        "object": "transcription.job",
        "status": job.status,
        "created_at": int(job.created),
        "started_at": int(job.started) if job.started else None,
        "finished_at": int(job.finished) if job.finished else None,
        "expires_at": int(job.finished + kept) if job.finished and here else None,
        "task": job.options.task,
        "language": job.language or job.options.language,
        "model": shared.config.model.id,
        "response_format": job.request.get("response_format", "json"),
        "attempts": job.attempts,
        "progress": {"audio_seconds_done": job.progress, "audio_seconds_total": job.duration},
        "queue": None if job.over or not here else _queue(shared, job),
        "coverage": job.coverage,
        "correctable": correctable,
        "error": from_job(job.error).body()["error"] if job.error else None,
    }


def _body(mine: Owned) -> dict[str, Any]:
    return job_body(context(), mine.job, here=mine.here, correctable=mine.fleet is None)


def _shown(job_id: str) -> Response:
    return jsonify(_body(owned(job_id)))


def _queue(shared: AppContext, job: Job) -> dict[str, Any]:
    """The job's position in the queue (0 when it runs), and the estimated seconds until it is done."""
    snapshot = shared.watcher.snapshot
    speed = snapshot.speed
    if job.status == "running":
        sharing = snapshot.queue.running or 1
        return {"position": 0, "estimated_seconds": round(job.left * sharing / speed, 1)}
    ahead = shared.store.ahead(job)
    return {"position": ahead.queued + 1, "estimated_seconds": round((ahead.seconds + job.left) / speed, 1)}


def _whole(name: str, default: int, low: int, high: int) -> int:
    text = ",".join(request.args.getlist(name)) or str(default)  # given twice, it is not a number
    value = int(text) if re.fullmatch(r"-?[0-9]{1,10}", text) else low - 1
    if not low <= value <= high:
        raise bad_request(f"{name} must be a whole number from {low} to {high}.", name, "invalid_value")
    return value
