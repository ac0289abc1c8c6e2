"""What a request says about speakers: whether to tell them apart, how many there are, and whose voices are known."""

from transcribe.api.errors import bad_request
from transcribe.api.fields import Fields
from transcribe.api.references import FIELD as REFERENCES
from transcribe.api.references import PARAM as REFERENCES_PARAM
from transcribe.speakers.names import LONGEST_NAME, MOST_SPEAKERS, on_one_line, usable
from transcribe.types import SpeakerOptions

SWITCHES = ("speakers", "diarize")
NAMES = "known_speaker_names"
LISTS = (NAMES, REFERENCES)
FIELDS = (*SWITCHES, "min_speakers", "max_speakers", *LISTS)


def asking(fields: Fields) -> str:
    """The first field that asks for speakers, as clients spell it; '' if none does. Raises ApiError."""
    for name in FIELDS:
        if fields.given(name) and (name not in SWITCHES or fields.boolean(name)):
            return f"{name}[]" if name in LISTS else name
    return ""


def details(fields: Fields) -> bool:
    """Whether the request says more of its speakers than that they are to be told apart."""
    return any(fields.given(name) for name in FIELDS if name not in SWITCHES)


def parse(fields: Fields, *, implied: str, able: bool) -> SpeakerOptions | None:
    """The options, or None if speakers are not to be told apart. `implied` names the field that asks for them by its
    value, response_format or model ('' if none does); `able` says whether this server can. Raises ApiError."""
    asked = asking(fields) or implied
    off = next((name for name in SWITCHES if fields.given(name) and not fields.boolean(name)), None)
    if off and asked not in ("", "model"):
        raise bad_request(f"{off} is false, and {asked} asks for speakers.", off, "invalid_value")
    if off or not asked:
        return None
    if not able:
        message = "This server cannot tell speakers apart: its worker has no model for that."
        raise bad_request(message, asked, "unsupported_parameter")
    low, high = (fields.whole(name, 1, MOST_SPEAKERS) for name in ("min_speakers", "max_speakers"))
    names = _names(fields)
    if low and high and low > high:
        raise bad_request("min_speakers is more than max_speakers.", "min_speakers", "invalid_value")
    if high and high < len(names):
        raise bad_request(f"max_speakers is less than the {len(names)} known ones.", "max_speakers", "invalid_value")
    return SpeakerOptions(low, high, names)


def _names(fields: Fields) -> tuple[str, ...]:
    """The known speakers' names, one for each reference recording."""
    names = [on_one_line(name) for name in fields.whole_texts(NAMES)]
    recordings = len(fields.many(REFERENCES))
    if not usable(names):
        message = f"{NAMES}[] must be different names of at most {LONGEST_NAME} characters, without control characters."
        raise bad_request(message, f"{NAMES}[]", "invalid_value")
    if len(names) != recordings:
        message = f"Send one of {REFERENCES_PARAM} for each of {NAMES}[]: there are {recordings} for {len(names)}."
        raise bad_request(message, REFERENCES_PARAM if names else f"{NAMES}[]", "invalid_value")
    return tuple(names)
