"""Form fields in the spellings that clients use: `include[]`, `include[0]`, `include=["a"]`, `include=a,b` are one
list. A field that nobody knows is reported; one that is nearly known is refused, for it was meant."""

import difflib
import json
import math
import re
from collections.abc import Iterable
from typing import Any

from werkzeug.datastructures import MultiDict

from transcribe.api.errors import bad_request

NOTHING = ("", "null", "none", "undefined")  # what JavaScript and Python make of no value
YES, NO = ("true", "1", "yes", "on", "t", "y"), ("false", "0", "no", "off", "f", "n")  # on: a page's check box
INDEXED = re.compile(r"([^\[\].]+)(?:\[\d*\]|\.\d+)")
MEMBER = re.compile(r"([^\[\].]+)(?:\[(\w+)\]|\.(\w+))")
ALIKE = 0.9  # of difflib: a field so much like a known one is taken for a misspelling


class Fields:
    """The fields of one form. Names are given without brackets."""

    def __init__(self, form: MultiDict[str, str], known: Iterable[str]) -> None:
        self._values: dict[str, list[str]] = {}
        self._members: dict[str, dict[str, str]] = {}
        self._known = tuple(known)
        for spelled, value in form.items(multi=True):
            name = spelled.strip()
            if match := INDEXED.fullmatch(name):
                self._values.setdefault(match[1], []).append(value)
            elif (match := MEMBER.fullmatch(name)) and match[1] in self._known:
                self._members.setdefault(match[1], {})[match[2] or match[3]] = value
            else:
                self._values.setdefault(name, []).append(value)

    @property
    def unknown(self) -> tuple[str, ...]:
        """The fields that mean nothing here. Raises ApiError for a misspelled one."""
        found = [name for name in self._values if name not in self._known]
        if not found:
            return ()
        squashed = {_squashed(name): name for name in self._known}
        for name in found:
            if near := difflib.get_close_matches(_squashed(name), squashed, 1, ALIKE):
                message = f"There is no field {name}; did you mean {squashed[near[0]]}?"
                raise bad_request(message, name, "unknown_parameter")
        return tuple(found)

    def given(self, name: str) -> bool:
        """Whether the field says anything."""
        return bool(self._members.get(name) or self.many(name))

    def text(self, name: str) -> str:
        """The field as it was sent; '' if it is absent or says nothing. Raises ApiError if it was sent twice, in two
        ways."""
        values = {value.strip(): value for value in self._values.get(name, ())}
        found = [value for stripped, value in values.items() if stripped.lower() not in NOTHING]
        if len(found) > 1 or name in self._members:
            raise bad_request(f"{name} must have one value.", name, "invalid_value")
        return found[0] if found else ""

    def one(self, name: str) -> str | None:
        """The field without space around it; None if it is absent or says nothing."""
        return self.text(name).strip() or None

    def many(self, name: str) -> list[str]:
        """A list's entries, from any spelling. Raises ApiError for a list that cannot be read."""
        if name in self._members:
            raise bad_request(f"{name} must be a list.", f"{name}[]", "invalid_value")
        return [entry for value in self._values.get(name, ()) for entry in _entries(name, value, commas=True)]

    def whole_texts(self, name: str) -> list[str]:
        """The same for entries that may have a comma in them: `a,b` is one."""
        self.many(name)
        return [entry for value in self._values.get(name, ()) for entry in _entries(name, value, commas=False)]

    def members(self, name: str) -> dict[str, str] | None:
        """An object's members, from `name[member]` or JSON; None if there are none."""
        members = dict(self._members.get(name, {}))
        if (whole := self.text(name) if not members else "").lstrip().startswith("{"):
            members = {
                key: value if isinstance(value, str) else str(value) for key, value in _json(name, whole).items()
            }
        return members or None

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        """One of the choices, in any capitals. Raises ApiError for another."""
        value = (self.one(name) or default).lower().replace("-", "_")
        if value not in choices:
            raise bad_request(f"{name} must be one of {', '.join(choices)}.", name, "invalid_value")
        return value

    def boolean(self, name: str) -> bool:
        """True or false, false if it is absent. Raises ApiError for anything else."""
        value = (self.one(name) or "false").lower()
        if value not in (*YES, *NO):
            raise bad_request(f"{name} must be true or false.", name, "invalid_value")
        return value in YES

    def number(self, name: str, low: float, high: float, default: float) -> float:
        """A number in the range. Raises ApiError for anything else."""
        return number(name, self.one(name) or str(default), low, high)

    def whole(self, name: str, low: int, high: int) -> int | None:
        """A whole number in the range; None if it is absent. Raises ApiError for anything else."""
        text = self.one(name)
        if text is None:
            return None
        value = int(text) if re.fullmatch(r"[0-9]{1,9}", text) else low - 1
        if not low <= value <= high:
            raise bad_request(f"{name} must be a whole number from {low} to {high}.", name, "invalid_value")
        return value


def number(name: str, text: str, low: float, high: float) -> float:
    """The number that the text is. Raises ApiError unless it is in the range."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise bad_request(f"{name} must be a number from {low:g} to {high:g}.", name, "invalid_value")
    return value


def _entries(name: str, value: str, *, commas: bool) -> list[str]:
    if value.lstrip().startswith("["):
        found = _json(name, value)
        if not all(isinstance(entry, str) for entry in found):
            raise bad_request(f"{name} must be a list of texts.", f"{name}[]", "invalid_value")
    else:
        found = value.split(",") if commas else [value]
    return [entry.strip() for entry in found if entry.strip().lower() not in NOTHING]


def _json(name: str, value: str) -> Any:
    try:
        found = json.loads(value)
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # JSON can write half of a character, which nothing can store or send
        raise bad_request(f"{name} has text that is not valid Unicode.", name, "invalid_value") from None
    except (ValueError, RecursionError):
        raise bad_request(f"{name} is not valid JSON.", name, "invalid_value") from None
    return found


def _squashed(name: str) -> str:
    """The same for `responseFormat`, `response-format` and `response_format`."""
    return re.sub(r"[\W_]", "", name).lower()
