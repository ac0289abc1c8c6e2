"""The data that requests and answers are made of, as schemas of OpenAPI 3.1."""

from collections.abc import Callable
from typing import Any

from transcribe.api import corrections, hearing, params, references, speakers, subtitle_fields
from transcribe.formats import FILE_WRITERS, JSON_WRITERS, TEXT_WRITERS
from transcribe.speakers import names
from transcribe.subtitles import READABLE, rules

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
INTEGER: Schema = {"type": "integer"}
BOOLEAN: Schema = {"type": "boolean"}
RESULT_FORMATS = ["txt", *TEXT_WRITERS, *FILE_WRITERS, *JSON_WRITERS]


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
TEXT_FORMATS = tuple(name for name in params.FORMATS if name != "diarized_json")
COMMON: dict[str, Schema] = {
    "file": FILE,
    "model": {
        **STRING,
        "description": "The model's id or another of its names: see GET /v1/models. The header X-Transcribe-Model says"
        " which model ran.",
        "examples": ["whisper-1"],
    },
    "language": {**STRING, "description": "The spoken language: sv, Swedish or sv-SE; auto to detect it."},
    "languages[]": array(STRING, description="The model finds out which of these it is."),
    "prompt": {
        **STRING,
        "description": "Text that went before, for style and names. Its last 223 tokens count.",
    },
    "response_format": {"type": "string", "enum": list(TEXT_FORMATS), "default": "json"},
    "temperature": {**NUMBER, "minimum": 0, "maximum": 1, "default": 0},
    "keywords[]": array({**STRING, "maxLength": params.LONGEST_KEYWORD}, maxItems=params.MOST_KEYWORDS),
    "hotwords": {**STRING, "description": "The same as keywords, on one line, with commas between them."},
    "chunking_strategy": {"type": "string", "enum": ["auto"]},
    **hearing.SCHEMAS,
}
TIMED: dict[str, Schema] = {
    "timestamp_granularities[]": array({"type": "string", "enum": list(params.GRANULARITIES)}),
    "include[]": array({"type": "string", "enum": ["logprobs"]}),
}
COUNT: Schema = {"type": "integer", "minimum": 1, "maximum": names.MOST_SPEAKERS}
SPEAKERS: dict[str, Schema] = {
    "response_format": {
        "type": "string",
        "enum": list(params.FORMATS),
        "default": "json",
        "description": "diarized_json tells speakers apart.",
    },
    "speakers": {**BOOLEAN, "description": "Tell speakers apart, in any format. diarize is the same field."},
    "diarize": BOOLEAN,
    "min_speakers": {**COUNT, "description": "At least so many speak. Asks for speakers."},
    "max_speakers": {**COUNT, "description": "At most so many speak. Asks for speakers."},
    f"{speakers.NAMES}[]": array(
        {**STRING, "minLength": 1, "maxLength": names.LONGEST_NAME},
        maxItems=names.MOST_KNOWN,
        description="Names for the voices of known_speaker_references[], in the same order. Asks for speakers.",
    ),
    references.PARAM: array(
        {**STRING, "pattern": "^data:[^,]*;base64,"},
        maxItems=names.MOST_KNOWN,
        description=f"A recording of each known voice, 2 to 10 s, as a data URL; at most {references.LARGEST} bytes.",
    ),
}
SUBTITLES: dict[str, Schema] = {
    "max_line_width": {
        **INTEGER,
        "minimum": rules.NARROWEST,
        "maximum": rules.WIDEST,
        "default": READABLE.max_line_width,
        "description": "Characters in a line of srt and vtt; wide ones, such as Chinese, count as two.",
    },
    "max_line_count": {
        **INTEGER,
        "minimum": 1,
        "maximum": rules.MOST_LINES,
        "default": READABLE.max_line_count,
        "description": "Lines in a subtitle.",
    },
    "max_cps": {
        **NUMBER,
        "minimum": rules.SLOWEST,
        "maximum": rules.FASTEST,
        "default": READABLE.max_cps,
        "description": "Characters that are read in a second.",
    },
    "highlight_words": {**BOOLEAN, "default": False, "description": "The time of each word, in vtt."},
    "subtitles": {
        "type": "string",
        "enum": list(subtitle_fields.KINDS),
        "default": "readable",
        "description": "raw: each segment is a subtitle.",
    },
}
REQUIRED = ("file", "model")
PAIR = (f"{speakers.NAMES}[]", references.PARAM)  # neither without the other


def _form(properties: dict[str, Schema]) -> Schema:
    asked = {"record": {**BOOLEAN, "default": False, "description": "Add the signed record of the result."}}
    pairs = {"dependentRequired": {PAIR[0]: [PAIR[1]], PAIR[1]: [PAIR[0]]}} if PAIR[0] in properties else {}
    return {"type": "object", "properties": {**properties, **SUBTITLES, **asked}, "required": list(REQUIRED), **pairs}


SPEAKER: Schema = {
    **STRING,
    "description": "A, B, … in the order in which they first speak, a known name, or channel 1, …",
}
OVERLAP: Schema = {"const": True, "description": "Another speaker, on another channel, speaks at the same time."}
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
        "speaker": SPEAKER,
        "channel": {**INTEGER, "description": "From 0, where each is heard by itself."},
        "language": {**STRING, "description": "ISO 639-1, where each part has its own."},
        "corrected": {"const": True, "description": "Where a person has changed the text."},
        "overlap": OVERLAP,
    },
    optional=("speaker", "channel", "language", "corrected", "overlap"),
)
WORD = record(
    {
        "word": STRING,
        "start": NUMBER,
        "end": NUMBER,
        "probability": NUMBER,
        "speaker": SPEAKER,
        "overlap": OVERLAP,
    },
    optional=("speaker", "overlap"),
)
DIARIZED = record(
    {
        "type": {"const": "transcript.text.segment"},
        "id": STRING,
        "start": NUMBER,
        "end": NUMBER,
        "text": STRING,
        "speaker": SPEAKER,
        "overlap": OVERLAP,
    },
    optional=("overlap",),
)
NAMES: Schema = {**STRING, "minLength": 1, "maxLength": names.LONGEST_NAME}


def _changes(value: Callable[[Schema], Schema]) -> dict[str, Schema]:
    """Corrections by the speaker's name that the machine gave, and by the segment's id."""
    return {
        "speakers": {"type": "object", "additionalProperties": value(NAMES)},
        "segments": {
            "type": "object",
            "additionalProperties": value({**STRING, "maxLength": corrections.LONGEST_TEXT}),
        },
    }


ERROR = record({"message": STRING, "type": STRING, "param": nullable(STRING), "code": nullable(STRING)})
MODEL_RUN: Schema = {**STRING, "description": "The model that ran, with its revision"}
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
        "correctable": {**BOOLEAN, "description": "Corrections of it are kept, once it is done"},
        "error": nullable(ERROR),
    }
)
SCHEMAS: dict[str, Schema] = {
    "Record": record(
        {
            "payload": {**STRING, "description": "The record, as the JSON text that is signed."},
            "public_key": {**STRING, "description": "Ed25519, base64."},
            "signature": {**STRING, "description": "Of the payload in UTF-8, base64."},
        }
    ),
    "CorrectionsRequest": record(
        _changes(nullable),
        optional=("speakers", "segments"),
        additionalProperties=False,
        description="null takes a correction back; what is not named stays.",
    ),
    "Corrections": record(
        {
            "object": {"const": "transcription.corrections"},
            "job": STRING,
            **_changes(lambda schema: schema),
        }
    ),
    "MachineKey": record({"object": {"const": "machine_key"}, "algorithm": {"const": "Ed25519"}, "public_key": STRING}),
    "TranscriptionRequest": _form({**COMMON, **TIMED, **SPEAKERS, "stream": BOOLEAN}),
    "TranslationRequest": _form(COMMON),
    "JobRequest": _form(
        {
            **COMMON,
            **TIMED,
            **SPEAKERS,
            "task": {"type": "string", "enum": ["transcribe", "translate"]},
            "callback_url": {**STRING, "description": "Called when the job is over, if the server allows it."},
        }
    ),
    "Transcription": record(
        {
            "text": STRING,
            "usage": USAGE,
            "languages": array(record({"code": STRING})),
            "logprobs": array(record({"token": STRING, "logprob": NUMBER, "bytes": array(INTEGER)})),
            "segments": array(ref("DiarizedSegment")),
            "warnings": array(STRING),
            "record": ref("Record"),
        },
        optional=("languages", "logprobs", "segments", "warnings", "record"),
    ),
    "DiarizedTranscription": record(
        {
            "task": {"const": "transcribe"},
            "duration": NUMBER,
            "text": STRING,
            "segments": array(ref("DiarizedSegment")),
            "usage": USAGE,
            "model": MODEL_RUN,
            "warnings": array(STRING),
            "record": ref("Record"),
        },
        optional=("warnings", "record"),
    ),
    "DiarizedSegment": DIARIZED,
    "VerboseTranscription": record(
        {
            "task": STRING,
            "language": STRING,
            "duration": NUMBER,
            "text": STRING,
            "usage": USAGE,
            "coverage": ref("Coverage"),
            "model": MODEL_RUN,
            "segments": array(ref("Segment")),
            "words": array(ref("Word")),
            "warnings": array(STRING),
            "record": ref("Record"),
        },
        optional=("segments", "words", "warnings", "record"),
    ),
    "Segment": SEGMENT,
    "Word": WORD,
    "Coverage": {
        "type": "object",
        "description": "Detected speech, how much of it has text, and what was dropped and why.",
    },
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
    "Health": {
        "type": "object",
        "properties": {
            "status": STRING,
            "ready": BOOLEAN,
            "speakers": {**BOOLEAN, "description": "Whether speakers can be told apart"},
            "device": nullable(STRING),
            "nvidia_devices": nullable(array(STRING)),
            "gpu": nullable({"type": "object"}),
            "engine": nullable({"type": "object"}),
        },
        "required": ["status", "ready"],
    },
    "Ready": record({"ready": BOOLEAN, "reason": nullable(STRING)}),
    "Error": record({"error": ERROR}),
}
