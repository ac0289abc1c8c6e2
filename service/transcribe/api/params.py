"""Reads and checks the form fields of a request. A field that cannot be used is refused by name."""

import math
import re
from dataclasses import dataclass
from typing import Any

from werkzeug.datastructures import MultiDict

from ..config import ServiceConfig
from ..languages import to_code
from ..types import DecodeOptions
from .errors import ApiError, bad_request

Form = MultiDict[str, str]

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
STREAMABLE = ("json", "text", "verbose_json")
LARGEST_PAGE = 100  # jobs in one listing
GRANULARITIES = ("word", "segment")
LONGEST_PROMPT = 8192  # characters; the model hears about the last 220 tokens
MOST_KEYWORDS = 100
LONGEST_KEYWORD = 200
SERVER_VAD = {"threshold": 1.0, "prefix_padding_ms": 5000.0, "silence_duration_ms": 30_000.0}  # each with its highest
CHUNKING_FIELD = re.compile(r"chunking_strategy\[(\w+)\]")
UNSUPPORTED = ("known_speaker_names[]", "known_speaker_references[]")


@dataclass(frozen=True)
class Params:
    """What one request asks for. `chunking` is what the client says about finding speech, or None."""

    options: DecodeOptions
    response_format: str = "json"
    granularities: tuple[str, ...] = ("segment",)
    stream: bool = False
    logprobs: bool = False
    chunking: dict[str, float] | None = None
    callback: str = ""

    def request(self) -> dict[str, Any]:
        """What the job stores besides the decoding options."""
        return {
            "response_format": self.response_format,
            "granularities": list(self.granularities),
            "logprobs": self.logprobs,
            "chunking": self.chunking,
        }


def parse(form: Form, config: ServiceConfig, *, models: set[str], task: str) -> Params:
    """Reads the fields of a transcription, translation or job. Raises ApiError."""
    check_model(_one(form, "model"), models)
    for name in UNSUPPORTED:
        if form.getlist(name):
            raise bad_request("This server does not tell speakers apart.", name, "unsupported_parameter")
    response_format = _choice(form, "response_format", FORMATS, "json")
    granularities = _granularities(form, response_format)
    logprobs = _logprobs(form, response_format)
    stream = _boolean(form, "stream")
    if stream and response_format not in STREAMABLE:
        raise bad_request(f"response_format {response_format} cannot be streamed.", "stream", "unsupported_value")
    options = DecodeOptions(
        language=_language(form, config.model.language),
        candidates=_candidates(form),
        task=task,
        prompt=_prompt(form),
        hotwords=_keywords(form),
        temperature=_number(form, "temperature", 0.0, 1.0, default=0.0),
        words=logprobs or "word" in granularities,
    )
    return Params(
        options=options,
        response_format=response_format,
        granularities=granularities,
        stream=stream,
        logprobs=logprobs,
        chunking=_chunking(form),
    )


def parse_translation(form: Form, config: ServiceConfig, *, models: set[str]) -> Params:
    """The same for a translation, which knows neither stream nor granularities; the spoken language is optional."""
    for name in ("stream", "timestamp_granularities[]", "include[]"):
        if form.get(name) not in (None, "", "false"):
            raise bad_request(f"Translations do not know {name}.", name, "unsupported_parameter")
    return parse(form, config, models=models, task="translate")


def check_model(name: str | None, models: set[str]) -> None:
    """Raises ApiError unless the model is one of ours."""
    if not name:
        raise bad_request("You must provide a model parameter.", "model", "missing_required_parameter")
    if name not in models:
        message = "The model that you named does not exist here; GET /v1/models lists those that do."
        raise ApiError(404, message, "model", "model_not_found")


def _one(form: Form, name: str) -> str | None:
    """The field, or None if it is absent or empty."""
    return form.get(name) or None


def _choice(form: Form, name: str, choices: tuple[str, ...], default: str) -> str:
    value = _one(form, name) or default
    if value == "diarized_json":
        raise bad_request("This server does not tell speakers apart.", name, "unsupported_value")
    if value not in choices:
        raise bad_request(f"{name} must be one of {', '.join(choices)}.", name, "invalid_value")
    return value


def _boolean(form: Form, name: str) -> bool:
    value = (_one(form, name) or "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise bad_request(f"{name} must be true or false.", name, "invalid_value")
    return value in ("true", "1")


def _number(form: Form, name: str, low: float, high: float, *, default: float) -> float:
    try:
        value = float(_one(form, name) or default)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise bad_request(f"{name} must be a number from {low:g} to {high:g}.", name, "invalid_value")
    return value


def _language(form: Form, default: str) -> str | None:
    candidates = _candidates(form)
    asked = _one(form, "language")
    if asked is None:
        return (default or None) if not candidates else candidates[0] if len(candidates) == 1 else None
    return None if asked.strip().lower() == "auto" else _code(asked, "language")


def _candidates(form: Form) -> tuple[str, ...]:
    """The languages that the recording may be in: the model hears which."""
    return tuple(_code(value, "languages[]") for value in form.getlist("languages[]") if value)


def _code(asked: str, param: str) -> str:
    code = to_code(asked)
    if code is None:
        message = "A language is an ISO 639-1 code such as sv, a name such as Swedish, a locale such as sv-SE, or auto."
        raise bad_request(message, param, "invalid_language_format")
    return code


def _prompt(form: Form) -> str:
    prompt = form.get("prompt", "")
    if len(prompt) > LONGEST_PROMPT:
        raise bad_request(f"prompt may have at most {LONGEST_PROMPT} characters.", "prompt", "string_above_max_length")
    return prompt


def _keywords(form: Form) -> str:
    words = [word.strip() for word in form.getlist("keywords[]") if word.strip()]
    if hotwords := form.get("hotwords", "").strip():
        words.append(hotwords)
    if len(words) > MOST_KEYWORDS or any(len(word) > LONGEST_KEYWORD for word in words):
        message = f"keywords[] may hold at most {MOST_KEYWORDS} entries of at most {LONGEST_KEYWORD} characters."
        raise bad_request(message, "keywords[]", "invalid_value")
    return ", ".join(words)


def _granularities(form: Form, response_format: str) -> tuple[str, ...]:
    name = "timestamp_granularities[]"
    asked = [value for value in (*form.getlist(name), *form.getlist("timestamp_granularities")) if value]
    if not asked:
        return ("segment",)
    if any(value not in GRANULARITIES for value in asked):
        raise bad_request(f"{name} must be word or segment.", name, "invalid_value")
    if response_format != "verbose_json":
        raise bad_request(f"{name} needs response_format verbose_json.", name, "invalid_value")
    return tuple(value for value in GRANULARITIES if value in asked)


def _logprobs(form: Form, response_format: str) -> bool:
    asked = [value for value in (*form.getlist("include[]"), *form.getlist("include")) if value]
    if any(value != "logprobs" for value in asked):
        raise bad_request("include[] may only hold logprobs.", "include[]", "invalid_value")
    if asked and response_format != "json":
        raise bad_request("include[]=logprobs needs response_format json.", "include[]", "invalid_value")
    return bool(asked)


def _chunking(form: Form) -> dict[str, float] | None:
    """`auto`, or server_vad with its figures."""
    given = {
        match[1]: name for name in form if (match := CHUNKING_FIELD.fullmatch(name or ""))
    }  # a part may lack its name
    whole = _one(form, "chunking_strategy")
    if whole not in (None, "auto"):
        raise bad_request(
            "chunking_strategy must be auto or a server_vad object.", "chunking_strategy", "invalid_value"
        )
    if not given:
        return None
    if form.get(given.pop("type", "")) != "server_vad" or set(given) - set(SERVER_VAD):
        message = f"chunking_strategy must have type server_vad and may have {', '.join(SERVER_VAD)}."
        raise bad_request(message, "chunking_strategy", "invalid_value")
    return {
        key: _number(form, f"chunking_strategy[{key}]", 0, SERVER_VAD[key], default=0)
        for key in SERVER_VAD
        if key in given
    }
