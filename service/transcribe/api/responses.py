"""A finished job in the format that its client asked for, whole or as a stream of events."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flask import Response, request

from transcribe import formats
from transcribe.api.context import AppContext
from transcribe.api.errors import from_exception
from transcribe.api.job_records import record_of
from transcribe.api.params import Params
from transcribe.api.waiting import raise_if_failed
from transcribe.formats import TranscriptionResult
from transcribe.jobs.models import Job
from transcribe.types import Segment, Transcript

WARNINGS_HEADER = "X-Transcribe-Warnings"
MODEL_HEADER = "X-Transcribe-Model"  # the one that ran, whatever name the client sent
RECORD_HEADER = "X-Transcribe-Record"  # where the signed record is
MAX_HEADER = 1000  # characters: proxies refuse long headers
PING_SECONDS = 10.0  # so that no proxy thinks a silent stream is dead


def result_of(
    shared: AppContext, job: Job, params: Params, segments: Sequence[Segment] | None = None
) -> TranscriptionResult:
    """The finished job's result; its `segments` are in the store unless they are given."""
    return TranscriptionResult(
        transcript_of(shared, job, segments),
        job.options.task,
        params.granularities,
        params.logprobs,
        job.coverage or {},
        shared.model_in_use,
        params.subtitles,
    )


def transcript_of(shared: AppContext, job: Job, segments: Sequence[Segment] | None = None) -> Transcript:
    """The finished job's text; its `segments` are in the store unless they are given."""
    translated = job.options.task == "translate"
    language = "en" if translated else job.language or job.options.language or ""
    text = shared.store.segments(job.id) if segments is None else segments
    return Transcript(language, job.length, tuple(text))


def answer_to(shared: AppContext, job: Job, params: Params) -> Response:
    """The finished job as its request wants it, with the signed record if it was asked for."""
    answer = result_of(shared, job, params)
    record = record_of(shared.provenance, job, answer.transcript) if params.record else None
    response = write_result(answer, params.response_format, record)
    response.headers.update(record_header(job, params))
    return response


def record_header(job: Job, params: Params) -> dict[str, str]:
    """Where the signed record is, if it was asked for."""
    return {RECORD_HEADER: f"{request.script_root}/v1/jobs/{job.id}/record"} if params.record else {}


def write_result(
    answer: TranscriptionResult, response_format: str, record: Mapping[str, str] | None = None
) -> Response:
    """The answer as an HTTP response; JSON has room for the record."""
    if response_format in formats.TEXT_WRITERS:
        mimetype, write = formats.TEXT_WRITERS[response_format]
        response = Response(write(answer), content_type=mimetype)
    elif response_format in formats.FILE_WRITERS:
        mimetype, pack = formats.FILE_WRITERS[response_format]
        response = Response(pack(answer), content_type=mimetype)
    else:
        body = formats.JSON_WRITERS[response_format](answer) | ({"record": record} if record else {})
        response = Response(json.dumps(body, ensure_ascii=False), mimetype="application/json")
    response.headers[MODEL_HEADER] = answer.model
    if warnings := [*formats.warnings(answer), *formats.hurried(answer, response_format)]:  # not all have another place
        response.headers[WARNINGS_HEADER] = " ".join(warnings)[:MAX_HEADER].encode("ascii", "replace").decode()
    return response


def name_ignored(response: Response, params: Params) -> Response:
    """Adds a warning for fields that the request had in vain."""
    if params.ignored:
        found = ", ".join(params.ignored)
        warning = f"Fields that this server does not know were ignored: {found}."
        warnings = " ".join(filter(None, (response.headers.get(WARNINGS_HEADER), warning)))
        printable = "".join(c if " " <= c <= "~" else "?" for c in warnings)
        response.headers[WARNINGS_HEADER] = printable[:MAX_HEADER]
    return response


class Deltas:
    """Cuts the text into pieces which, put together, are exactly the stripped whole."""

    def __init__(self) -> None:
        self._sent = ""
        self._held = ""  # white space that is only part of the text if something follows

    def add(self, text: str) -> str:
        """The next piece; '' if there is none yet."""
        text = self._held + text
        if not self._sent:
            text = text.lstrip()
        piece = text.rstrip()
        self._held = text[len(piece) :]
        self._sent += piece
        return piece

    def rest(self, whole: str) -> str:
        """What is missing of the whole text; '' if it does not begin with the pieces."""
        return whole.removeprefix(self._sent) if whole.startswith(self._sent) else ""


def events(shared: AppContext, first: Job, updates: Iterator[Job], params: Params) -> Iterator[bytes]:
    """OpenAI's stream: deltas while the audio is being worked on, then the whole. Failures are events too.

    Who spoke is known when the whole recording was heard; the segments are cut anew then. So with speakers, segments
    come at the end, and only text that has none comes before, unless the channels are the speakers.
    """
    deltas, last, quiet = Deltas(), -1, time.monotonic()
    job, progress = first, -1.0
    recut = params.options.speakers is not None and params.options.channels != "separate"
    waits = recut and params.response_format in ("verbose_json", "diarized_json")
    try:
        while not job.over:
            if job.progress != progress and not waits:
                progress = job.progress
                segments = shared.store.segments(job.id, after=last)
                if recut and _is_over(shared, job):  # these may be the new ones
                    segments = []
                last = segments[-1].id if segments else last
                yield from _pieces(segments, deltas, params)
                quiet = time.monotonic() if segments else quiet
            if time.monotonic() - quiet > PING_SECONDS:
                quiet = time.monotonic()
                yield b": ping\n\n"
            job = next(updates)
        answer = result_of(shared, raise_if_failed(job), params)
        if not recut or waits:
            yield from _pieces([one for one in answer.transcript.segments if one.id > last], deltas, params)
        elif rest := deltas.rest(answer.transcript.text):
            yield _event({"type": "transcript.text.delta", "delta": rest})
        record = {"record": record_of(shared.provenance, job, answer.transcript)} if params.record else {}
        yield _event(_done(answer, params) | record)
    except Exception as error:
        yield _event(from_exception(error).body())


def _is_over(shared: AppContext, job: Job) -> bool:
    latest = shared.store.get(job.id)
    return latest is None or latest.over


def _pieces(segments: Sequence[Segment], deltas: Deltas, params: Params) -> Iterator[bytes]:
    for segment in segments:
        if params.response_format == "verbose_json":
            times = {"id": str(segment.id), "start": segment.start, "end": segment.end, "text": segment.text}
            speaker = {"speaker": segment.speaker} if segment.speaker else {}
            yield _event({"type": "transcript.text.segment", **times, **speaker})
        diarized = formats.diarized_segment(segment) if params.response_format == "diarized_json" else None
        if piece := deltas.add(segment.text):
            event: dict[str, Any] = {"type": "transcript.text.delta", "delta": piece}
            event |= {"segment_id": diarized["id"]} if diarized else {}
            event |= {"logprobs": formats.logprobs((segment,))} if params.logprobs else {}
            yield _event(event)
        if diarized:
            yield _event(diarized)


def _done(answer: TranscriptionResult, params: Params) -> dict[str, Any]:
    body = formats.JSON_WRITERS.get(params.response_format, formats.json)(answer)
    return {"type": "transcript.text.done", **body}


def _event(body: dict[str, Any]) -> bytes:
    return b"data: %s\n\n" % json.dumps(body, ensure_ascii=False).encode()
