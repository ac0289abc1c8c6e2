"""What a request says about corrections: names for speakers, and texts for segments."""

import re
from collections.abc import Mapping, Sequence
from typing import NoReturn

import msgspec
from flask import Request

from transcribe.api.errors import CODES, ApiError, bad_request
from transcribe.speakers.names import LONGEST_NAME, has_control, on_one_line, usable
from transcribe.types import Segment

LONGEST_TEXT = 10_000  # characters of a segment
LARGEST_BODY = 1024 * 1024  # bytes of a request
PLACE = re.compile(r"\$\.(\w+)|unknown field `([^`]*)`")
SHOWN = 40  # characters of a client's own text in a message


class Changes(msgspec.Struct, forbid_unknown_fields=True):
    """A request's body; None takes a correction back."""

    speakers: dict[str, str | None] = {}
    segments: dict[str, str | None] = {}


def read(request: Request) -> Changes:
    """The request's body. Raises ApiError."""
    if request.mimetype != "application/json":
        raise ApiError(415, "Send corrections as application/json.", code=CODES[415])
    if (request.content_length or 0) > LARGEST_BODY:
        message = f"Send at most {LARGEST_BODY} bytes of corrections at once."
        raise ApiError(413, message, code=CODES[413])
    try:
        return msgspec.json.decode(request.get_data(cache=False), type=Changes)
    except msgspec.ValidationError as error:
        _refuse(str(error))
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise bad_request("The body is not valid JSON.", code="invalid_json") from None


def _refuse(found: str) -> NoReturn:
    """Says which field is wrong, from what msgspec says."""
    match = PLACE.search(found)
    if match is None:
        raise bad_request("The body must be an object with speakers, segments or both.", code="invalid_value")
    if name := match[2]:
        raise bad_request(
            f"There is no field {name[:SHOWN]}; there are speakers and segments.", name[:SHOWN], "unknown_parameter"
        )
    message = f"{match[1]} must be an object; its values are texts, or null for what the machine wrote."
    raise bad_request(message, match[1], "invalid_value")


def names(wanted: Mapping[str, str | None], heard: Sequence[Segment]) -> dict[str, str | None]:
    """The new names, each on one line, None where it is the machine's own. Raises ApiError."""
    known = {segment.speaker for segment in heard}
    found: dict[str, str | None] = {}
    for speaker, given in wanted.items():
        field = f"speakers.{speaker[:SHOWN]}"
        if speaker not in known:
            raise bad_request(f"There is no speaker {speaker[:SHOWN]} in this job.", field, "invalid_value")
        name = speaker if given is None else on_one_line(given)
        if not usable([name]):
            message = f"{field} must have 1 to {LONGEST_NAME} characters, none of them a control character."
            raise bad_request(message, field, "invalid_value")
        found[speaker] = None if name == speaker else name
    return found


def texts(wanted: Mapping[str, str | None], heard: Sequence[Segment]) -> dict[int, str | None]:
    """The new texts, each on one line, None where it is the machine's own. Raises ApiError."""
    known = {str(segment.id): segment for segment in heard}
    found: dict[int, str | None] = {}
    for number, given in wanted.items():
        field = f"segments.{number[:SHOWN]}"
        segment = known.get(number)
        if segment is None:
            raise bad_request(f"There is no segment {number[:SHOWN]} in this job.", field, "invalid_value")
        own = " ".join(segment.text.split())
        text = own if given is None else " ".join(given.split())
        if len(text) > LONGEST_TEXT or has_control(text):
            message = f"{field} must have at most {LONGEST_TEXT} characters, none of them a control character."
            raise bad_request(message, field, "invalid_value")
        found[segment.id] = None if text == own else text
    return found
