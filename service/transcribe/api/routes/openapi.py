"""GET /openapi.json: OpenAPI 3.1, written by hand and compared with the running server by the tests."""

from typing import Any

from flask import Blueprint, Response, jsonify, request

from transcribe import docx
from transcribe.api import params
from transcribe.api.schemas import BOOLEAN, RESULT_FORMATS, SCHEMAS, STRING, SUBTITLES, Schema, ref

blueprint = Blueprint("openapi", __name__)

VERSION = "1.0.0"
JOB_PATH = "/v1/jobs/{job_id}"
ERRORS = {
    "400": "A field cannot be used",
    "401": "No valid API key",
    "403": "Not allowed from this host or origin",
    "404": "Not found",
    "409": "Not in the job's present state",
    "413": "Too large",
    "415": "Not multipart/form-data",
    "429": "Too much is waiting; Retry-After says when to come back",
    "500": "The server failed",
    "503": "The worker is not there, or the server restarts; Retry-After says when to come back",
    "507": "No room to store the upload",
}
TEXTS = ("text/plain", "application/x-subrip", "text/vtt", "text/tab-separated-values")


def _content(schema: Schema, *texts: str) -> dict[str, Any]:
    return {"application/json": {"schema": schema}, **{text: {"schema": STRING} for text in texts}}


def _operation(name: str, summary: str, answer: dict[str, Any], errors: str = "", **more: Any) -> dict[str, Any]:
    """`answer` is the content of the good answer; `errors` the possible error codes."""
    status = more.pop("status", "200")
    failed = {code: {"description": ERRORS[code], "content": _content(ref("Error"))} for code in errors.split()}
    return {
        "operationId": name,
        "summary": summary,
        "responses": {status: {"description": "Done", "content": answer, **more.pop("response", {})}, **failed},
        **more,
    }


def _upload(schema: str) -> dict[str, Any]:
    return {"required": True, "content": {"multipart/form-data": {"schema": ref(schema)}}}


def _query(name: str, schema: Schema, description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}


MOST = _query("limit", {"type": "integer", "minimum": 1, "maximum": 2**31}, "Segments at most; all by default")
ORIGINAL = _query("original", BOOLEAN, "true: as the machine wrote it, without corrections")
JOB_ID = {"name": "job_id", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"}}
MODEL = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
RESULT = {"anyOf": [ref("VerboseTranscription"), ref("DiarizedTranscription"), ref("Transcription")]}
KEYED = "401 403 500"
WORKED = f"400 {KEYED} 404 409 413 415 429 503 507"
LISTED = f"400 {KEYED} 404 429"
NEXT = ("getJob", "deleteJob", "cancelJob", "listSegments", "getResult", "getRecord", "getCorrections")
CREATED = {
    "headers": {"Location": {"schema": STRING, "description": "The job"}},
    "links": {name: {"operationId": name, "parameters": {"job_id": "$response.body#/id"}} for name in NEXT},
}


def _audio() -> dict[str, Any]:
    return {
        "/v1/audio/transcriptions": {
            "post": _operation(
                "createTranscription",
                "The recording's words; with stream=true as server-sent events",
                {**_content(RESULT, *TEXTS), "text/event-stream": {}},
                WORKED,
                requestBody=_upload("TranscriptionRequest"),
            )
        },
        "/v1/audio/translations": {
            "post": _operation(
                "createTranslation",
                "The recording's words, in English",
                _content(RESULT, *TEXTS),
                WORKED,
                requestBody=_upload("TranslationRequest"),
            )
        },
        "/v1/models": {"get": _operation("listModels", "The models", _content(ref("ModelList")), KEYED)},
        "/v1/models/{model}": {
            "parameters": [MODEL],
            "get": _operation("getModel", "One model", _content(ref("Model")), f"400 404 {KEYED}"),
        },
    }


def _shaped() -> list[dict[str, Any]]:
    """How a result's subtitles are made; the defaults are the job's."""
    return [
        _query(name, {key: value for key, value in schema.items() if key != "default"}, "By default as for the job")
        for name, schema in SUBTITLES.items()
    ]


def _jobs() -> dict[str, Any]:
    limit = {"type": "integer", "minimum": 1, "maximum": params.LARGEST_PAGE, "default": 20}
    page = [_query("limit", limit, "Jobs a page"), _query("after", STRING, "The last id of the page before")]
    after = _query(
        "after", {"type": "integer", "minimum": -1, "maximum": 2**31, "default": -1}, "The last segment known"
    )
    wanted = _query("format", {"type": "string", "enum": RESULT_FORMATS}, "By default as the job was created")
    about = f"404 {KEYED}"
    return {
        "/v1/jobs": {
            "get": _operation("listJobs", "This key's jobs", _content(ref("JobList")), LISTED, parameters=page),
            "post": _operation(
                "createJob",
                "A transcription that outlives its request; durable from the 202 on",
                _content(ref("Job")),
                WORKED,
                status="202",
                response=CREATED,
                requestBody=_upload("JobRequest"),
            ),
        },
        JOB_PATH: {
            "parameters": [JOB_ID],
            "get": _operation("getJob", "State and progress", _content(ref("Job")), about),
            "delete": _operation("deleteJob", "Removes audio, text and job", _content(ref("DeletedJob")), about),
        },
        f"{JOB_PATH}/cancel": {
            "parameters": [JOB_ID],
            "post": _operation("cancelJob", "Cancels the job", _content(ref("Job")), f"409 {about}"),
        },
        f"{JOB_PATH}/segments": {
            "parameters": [JOB_ID, after, MOST, ORIGINAL],
            "get": _operation("listSegments", "The text so far", _content(ref("SegmentList")), LISTED),
        },
        f"{JOB_PATH}/result": {
            "parameters": [JOB_ID, wanted, ORIGINAL, *_shaped()],
            # a failed job answers with its own reason, which may be any error of a transcription
            "get": _operation("getResult", "The finished text", {**_content(RESULT, *TEXTS), docx.KIND: {}}, WORKED),
        },
    }


def _corrections() -> dict[str, Any]:
    content = _content(ref("Corrections"))
    body = {"required": True, "content": _content(ref("CorrectionsRequest"))}
    return {
        f"{JOB_PATH}/corrections": {
            "parameters": [JOB_ID],
            "get": _operation("getCorrections", "What was corrected in the text", content, WORKED),
            "patch": _operation("correctJob", "Corrects names and texts", content, WORKED, requestBody=body),
        }
    }


def _records() -> dict[str, Any]:
    return {
        f"{JOB_PATH}/record": {
            "parameters": [JOB_ID],
            "get": _operation("getRecord", "The signed record of the result", _content(ref("Record")), WORKED),
        },
        "/v1/machine-key": {
            "get": _operation("getMachineKey", "With what records are signed", _content(ref("MachineKey")), KEYED)
        },
    }


def _machine() -> dict[str, Any]:
    open_to_all: dict[str, Any] = {"security": []}
    health, ready = _content(ref("Health")), _content(ref("Ready"))
    metrics = {"text/plain": {"schema": STRING}}
    operations = {
        "/health": _operation("health", "Liveness, and the state of worker and queue", health, "403", **open_to_all),
        "/ready": _operation(
            "ready", "Readiness: whether a request would be worked on now", ready, "403", **open_to_all
        ),
        "/metrics": _operation("metrics", "Metrics for Prometheus", metrics, "403", **open_to_all),
    }
    operations["/ready"]["responses"]["503"] = {"description": "Not now, and why", "content": ready}
    return {path: {"get": operation} for path, operation in operations.items()}


def document() -> dict[str, Any]:
    """The whole description."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Speech to text",
            "version": VERSION,
            "description": "OpenAI's audio API, and jobs that outlive their requests.",
        },
        "security": [{"key": []}, {}],
        "paths": {**_audio(), **_jobs(), **_corrections(), **_records(), **_machine()},
        "components": {"schemas": SCHEMAS, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """The description of this API."""
    below = {"servers": [{"url": request.script_root}]} if request.script_root else {}
    return jsonify(document() | below)
