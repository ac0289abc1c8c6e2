"""The bodies that the API reads and writes, as JSON Schema for /openapi.json."""

from typing import Any

from transcribe.api import params
from transcribe.formats import JSON_WRITERS, TEXT_WRITERS

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
INTEGER: Schema = {"type": "integer"}
BOOLEAN: Schema = {"type": "boolean"}
RESULT_FORMATS = ["txt", *TEXT_WRITERS, *JSON_WRITERS]


def array(items: Schema, **more: Any) -> Schema:
    """A list of these."""
    return {"type": "array", "items": items, **more}


def record(properties: dict[str, Schema], *, optional: tuple[str, ...] = (), **more: Any) -> Schema:
    """An object; every property is required unless it is named."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, **({"required": required} if required else {}), **more}


def nullable(schema: Schema) -> Schema:
    """This or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def ref(name: str) -> Schema:
    """One of the schemas below."""
    return {"$ref": f"#/components/schemas/{name}"}


FILE = {
    "type": "string",
    "minLength": 1,
    "contentMediaType": "application/octet-stream",
    "description": "The recording, in any format.",
}
COMMON: dict[str, Schema] = {
    "file": FILE,
    "model": {**STRING, "description": "whisper-1, or an id of GET /v1/models.", "examples": ["whisper-1"]},
    "language": {**STRING, "description": "The spoken language: sv, Swedish or sv-SE; auto to detect it."},
    "prompt": {
        **STRING,
        "maxLength": params.LONGEST_PROMPT,
        "description": "Text that went before, for style and names.",
    },
    "response_format": {"type": "string", "enum": list(params.FORMATS), "default": "json"},
    "temperature": {**NUMBER, "minimum": 0, "maximum": 1, "default": 0},
    "keywords[]": array({**STRING, "maxLength": params.LONGEST_KEYWORD}, maxItems=params.MOST_KEYWORDS),
    "hotwords": {**STRING, "maxLength": params.LONGEST_KEYWORD, "description": "The same as keywords, on one line."},
    "chunking_strategy": {"type": "string", "enum": ["auto"]},
}
TIMED: dict[str, Schema] = {
    "timestamp_granularities[]": array({"type": "string", "enum": list(params.GRANULARITIES)}),
    "include[]": array({"type": "string", "enum": ["logprobs"]}),
}
REQUIRED = ("file", "model")


def _form(properties: dict[str, Schema]) -> Schema:
    return {"type": "object", "properties": properties, "required": list(REQUIRED)}


USAGE = record({"type": {"const": "duration"}, "seconds": INTEGER})
SEGMENT = record(
    {
        "id": INTEGER,
        "seek": INTEGER,
        "start": NUMBER,
        "end": NUMBER,
        "text": STRING,
        "tokens": array(INTEGER),
        **dict.fromkeys(("temperature", "avg_logprob", "compression_ratio", "no_speech_prob"), NUMBER),
    }
)
WORD = record({"word": STRING, "start": NUMBER, "end": NUMBER})
ERROR = record({"message": STRING, "type": STRING, "param": nullable(STRING), "code": nullable(STRING)})
MOMENT = nullable({**INTEGER, "description": "Unix time"})
JOB = record(
    {
        "id": STRING,
        "object": {"const": "transcription.job"},
        "status": {"type": "string", "enum": ["queued", "running", "done", "failed", "cancelled"]},
        "created_at": INTEGER,
        "started_at": MOMENT,
        "finished_at": MOMENT,
        "expires_at": MOMENT,
        "task": {"type": "string", "enum": ["transcribe", "translate"]},
        "language": nullable(STRING),
        "model": STRING,
        "response_format": STRING,
        "attempts": INTEGER,
        "progress": record({"audio_seconds_done": NUMBER, "audio_seconds_total": nullable(NUMBER)}),
        "queue": nullable(record({"position": INTEGER, "estimated_seconds": NUMBER})),
        "coverage": nullable(ref("Coverage")),
        "error": nullable(ERROR),
    }
)
SCHEMAS: dict[str, Schema] = {
    "TranscriptionRequest": _form({**COMMON, **TIMED, "languages[]": array(STRING), "stream": BOOLEAN}),
    "TranslationRequest": _form(COMMON),
    "JobRequest": _form(
        {
            **COMMON,
            **TIMED,
            "task": {"type": "string", "enum": ["transcribe", "translate"]},
            "callback_url": {**STRING, "description": "Called when the job is over, if the server allows it."},
        }
    ),
    "Transcription": record(
        {
            "text": STRING,
            "usage": USAGE,
            "logprobs": array(record({"token": STRING, "logprob": NUMBER, "bytes": array(INTEGER)})),
            "warnings": array(STRING),
        },
        optional=("logprobs", "warnings"),
    ),
    "VerboseTranscription": record(
        {
            "task": STRING,
            "language": STRING,
            "duration": NUMBER,
            "text": STRING,
            "usage": USAGE,
            "coverage": ref("Coverage"),
            "segments": array(ref("Segment")),
            "words": array(ref("Word")),
            "warnings": array(STRING),
        },
        optional=("segments", "words", "warnings"),
    ),
    "Segment": SEGMENT,
    "Word": WORD,
    "Coverage": {"type": "object", "description": "What was heard as speech, what has text, what was dropped and why."},
    "Job": JOB,
    "JobList": record({"object": {"const": "list"}, "data": array(ref("Job")), "has_more": BOOLEAN}),
    "SegmentList": record(
        {
            "object": {"const": "list"},
            "data": array({"allOf": [ref("Segment"), record({"words": array(ref("Word"))})]}),
            "job": ref("Job"),
        }
    ),
    "DeletedJob": record({"id": STRING, "object": {"const": "transcription.job"}, "deleted": BOOLEAN}),
    "Model": record(
        {
            "id": STRING,
            "object": {"const": "model"},
            "created": INTEGER,
            "owned_by": STRING,
            "root": STRING,
            "revision": STRING,
            "source": {**STRING, "description": "Who published the weights"},
        }
    ),
    "ModelList": record({"object": {"const": "list"}, "data": array(ref("Model"))}),
    "Health": {"type": "object", "properties": {"status": STRING, "ready": BOOLEAN}, "required": ["status", "ready"]},
    "Ready": record({"ready": BOOLEAN, "reason": nullable(STRING)}),
    "Error": record({"error": ERROR}),
}
