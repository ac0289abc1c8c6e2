"""Reads and checks the form fields of a request. A field that cannot be used is refused by name."""

from dataclasses import dataclass
from typing import Any

from werkzeug.datastructures import MultiDict

from ..config import ServiceConfig
from ..languages import to_code
from ..subtitles import READABLE, SubtitleOptions
from ..types import DecodeOptions, SpeakerOptions
from . import hearing, speakers, subtitle_fields
from .errors import ApiError, bad_request
from .fields import NOTHING, Fields, number

FORMATS = ("json", "text", "srt", "verbose_json", "vtt", "diarized_json")
STREAMABLE = ("json", "text", "verbose_json", "diarized_json")
TASKS = ("transcribe", "translate")
LARGEST_PAGE = 100  # jobs in one listing
GRANULARITIES = ("word", "segment")
PROMPT_END = 32_768  # characters; the model sees the last 223 tokens, none of which is longer than 128
MOST_KEYWORDS = 100
LONGEST_KEYWORD = 200
SERVER_VAD = {"threshold": 1.0, "prefix_padding_ms": 5000.0, "silence_duration_ms": 30_000.0}  # each with its highest
KNOWN = (
    *("file", "model", "language", "languages", "prompt", "keywords", "hotwords", "response_format", "temperature"),
    *("timestamp_granularities", "include", "stream", "chunking_strategy", "task", "callback_url", *speakers.FIELDS),
    *hearing.FIELDS,
    *(*subtitle_fields.NAMES, "record"),
)


@dataclass(frozen=True)
class Params:
    """What one request asks for. `chunking` is what the client says about finding speech, or None;
    `ignored` are fields that nobody knows."""

    options: DecodeOptions
    response_format: str = "json"
    granularities: tuple[str, ...] = ("segment",)
    stream: bool = False
    logprobs: bool = False
    chunking: dict[str, float] | None = None
    callback: str = ""
    ignored: tuple[str, ...] = ()
    subtitles: SubtitleOptions = READABLE
    record: bool = False

    def request(self) -> dict[str, Any]:
        """What the job stores besides the decoding options."""
        return {
            "response_format": self.response_format,
            "granularities": list(self.granularities),
            "logprobs": self.logprobs,
            "chunking": self.chunking,
            "record": self.record,
            **subtitle_fields.stored(self.subtitles),
        }


@dataclass(frozen=True)
class Offer:
    """What this server has for requests: the names of its model, and whether its worker can tell speakers apart."""

    config: ServiceConfig
    models: set[str]
    tells_speakers_apart: bool


def read(form: MultiDict[str, str], url: MultiDict[str, str]) -> Fields:
    """The form's fields, in any spelling. `url` has the parameters of the request's URL: a field among them would be
    ignored. Raises ApiError for one."""
    meant = Fields(url, KNOWN)
    if name := next(filter(meant.given, KNOWN), ""):
        raise bad_request(f"Send {name} in the form: fields are not read from the URL.", name, "unsupported_parameter")
    return Fields(form, KNOWN)


def parse(fields: Fields, offer: Offer, *, task: str) -> Params:
    """Reads the fields of a transcription, translation or job. Raises ApiError."""
    check_model(fields.one("model"), offer.models)
    response_format = fields.choice("response_format", FORMATS, "json")
    told_apart = _speakers(fields, offer, response_format, task)
    granularities = _granularities(fields, response_format)
    logprobs = _logprobs(fields, response_format)
    stream = fields.boolean("stream")
    if stream and response_format not in STREAMABLE:
        raise bad_request(f"response_format {response_format} cannot be streamed.", "stream", "unsupported_value")
    candidates = _candidates(fields)
    multilingual = hearing.multilingual(fields, candidates)
    options = DecodeOptions(
        language=None if multilingual else _language(fields, offer.config.model.language),
        candidates=candidates,
        multilingual=multilingual,
        task=task,
        prompt=fields.text("prompt")[-PROMPT_END:],
        hotwords=_hotwords(fields),
        temperature=fields.number("temperature", 0.0, 1.0, default=0.0),
        words=logprobs or "word" in granularities or response_format in subtitle_fields.SUBTITLES,
        speakers=told_apart,
        **hearing.parse(fields),
    )
    return Params(
        options=options,
        response_format=response_format,
        granularities=granularities,
        stream=stream,
        logprobs=logprobs,
        chunking=_chunking(fields),
        ignored=fields.unknown,
        subtitles=subtitle_fields.subtitle_options(fields, response_format),
        record=fields.boolean("record"),
    )


def parse_request(fields: Fields, offer: Offer, *, task: str) -> Params:
    """The same for a request that waits: its URL is its task, and nobody calls back."""
    if fields.choice("task", TASKS, task) != task:
        other = "translations" if task == "transcribe" else "transcriptions"
        raise bad_request(f"This URL cannot do that; use /v1/audio/{other}.", "task", "unsupported_value")
    if fields.given("callback_url"):
        raise bad_request("Only jobs (POST /v1/jobs) call back.", "callback_url", "unsupported_parameter")
    return parse(fields, offer, task=task)


def parse_translation(fields: Fields, offer: Offer) -> Params:
    """The same for a translation, which knows neither stream nor granularities; the spoken language is optional."""
    for name in ("timestamp_granularities", "include"):
        if fields.given(name):
            raise bad_request(f"Translations do not know {name}[].", f"{name}[]", "unsupported_parameter")
    if fields.boolean("stream"):
        raise bad_request("Translations do not know stream.", "stream", "unsupported_parameter")
    return parse_request(fields, offer, task="translate")


def check_model(name: str | None, models: set[str]) -> None:
    """Raises ApiError unless the model is one of ours."""
    if not name:
        raise bad_request("You must provide a model parameter.", "model", "missing_required_parameter")
    if name not in models:
        message = "The model that you named does not exist here; GET /v1/models lists those that do."
        raise ApiError(404, message, "model", "model_not_found")


def _speakers(fields: Fields, offer: Offer, response_format: str, task: str) -> SpeakerOptions | None:
    """What is asked about speakers."""
    implied = "response_format" if response_format == "diarized_json" else ""
    if not implied and fields.one("model") in offer.config.model_names.speakers:
        implied = "model"
    by_channel = hearing.parse(fields)["channels"] == "separate" and not speakers.details(fields)
    found = speakers.parse(fields, implied=implied, able=offer.tells_speakers_apart or by_channel)
    if found and task == "translate":
        message = "Speakers can be told apart in a transcription only, not in a translation."
        raise bad_request(message, implied or speakers.asking(fields), "unsupported_parameter")
    return found


def _language(fields: Fields, default: str) -> str | None:
    candidates = _candidates(fields)
    asked = fields.one("language")
    if asked is None:
        return (default or None) if not candidates else candidates[0] if len(candidates) == 1 else None
    return None if asked.lower() in hearing.UNKNOWN_LANGUAGE else _code(asked, "language")


def _candidates(fields: Fields) -> tuple[str, ...]:
    """The languages that the recording may be in: the model hears which."""
    return tuple(dict.fromkeys(_code(value, "languages[]") for value in fields.many("languages")))


def _code(asked: str, param: str) -> str:
    code = to_code(asked)
    if code is None:
        message = (
            "A language is an ISO 639 code such as sv or swe, a name such as Swedish, a locale such as sv-SE, or auto."
        )
        raise bad_request(message, param, "invalid_language_format")
    return code


def _hotwords(fields: Fields) -> str:
    words: list[str] = []
    for name, param in (("keywords", "keywords[]"), ("hotwords", "hotwords")):
        found = fields.many(name)
        if len(found) > MOST_KEYWORDS or any(len(word) > LONGEST_KEYWORD for word in found):
            message = f"{param} may hold at most {MOST_KEYWORDS} entries of at most {LONGEST_KEYWORD} characters."
            raise bad_request(message, param, "invalid_value")
        words += found
    return ", ".join(words)


def _granularities(fields: Fields, response_format: str) -> tuple[str, ...]:
    name = "timestamp_granularities[]"
    asked = [value.lower() for value in fields.many("timestamp_granularities")]
    if not asked:
        return ("segment",)
    if any(value not in GRANULARITIES for value in asked):
        raise bad_request(f"{name} must be word or segment.", name, "invalid_value")
    if response_format != "verbose_json":
        raise bad_request(f"{name} needs response_format verbose_json.", name, "invalid_value")
    return tuple(value for value in GRANULARITIES if value in asked)


def _logprobs(fields: Fields, response_format: str) -> bool:
    asked = [value.lower() for value in fields.many("include")]
    if any(value != "logprobs" for value in asked):
        raise bad_request("include[] may only hold logprobs.", "include[]", "invalid_value")
    if asked and response_format != "json":
        raise bad_request("include[]=logprobs needs response_format json.", "include[]", "invalid_value")
    return bool(asked)


def _chunking(fields: Fields) -> dict[str, float] | None:
    """`auto`, or server_vad with its figures."""
    given = fields.members("chunking_strategy")
    if given is None:
        if (fields.one("chunking_strategy") or "auto").lower() != "auto":
            message = "chunking_strategy must be auto or a server_vad object."
            raise bad_request(message, "chunking_strategy", "invalid_value")
        return None
    kind = given.pop("type", "").strip().lower()
    if kind == "auto" and not given:
        return None
    if kind != "server_vad" or set(given) - set(SERVER_VAD):
        message = f"chunking_strategy must have type server_vad and may have {', '.join(SERVER_VAD)}."
        raise bad_request(message, "chunking_strategy", "invalid_value")
    return {
        key: number(f"chunking_strategy[{key}]", given[key], 0, highest)
        for key, highest in SERVER_VAD.items()
        if given.get(key, "").strip().lower() not in NOTHING
    }
