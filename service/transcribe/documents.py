"""Decodes documents into typed values. An error is one line: the key, what it must be, and what it is."""

import re
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

T = TypeVar("T")
MESSAGE = re.compile(r"(?P<problem>.*?)(?: - at `(?P<path>\$.*)`)?", re.DOTALL)
FIELD = re.compile(r"Object (?:contains|missing required) (?P<kind>unknown|field)[^`]*`(?P<name>.*)`")
EXPECTED = re.compile(r"Expected (?P<expected>`[^`]+`.*?)(?:, got `\w+`)?")
NOUNS = {"int": "a whole number", "float": "a number", "str": "a string", "bool": "true or false"}
NOUNS |= {"array": "a list", "object": "a mapping", "path": "an absolute path"}


def decode(document: object, kind: type[T]) -> T:
    """`document`, as read from JSON or YAML, as a `kind`. Nothing is coerced: true is not 1. Raises ValueError."""
    try:
        return msgspec.convert(document, kind, dec_hook=_absolute_path)
    except msgspec.ValidationError as error:
        raise ValueError(_explain(str(error), document, kind)) from None


def _absolute_path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str) and value.startswith("/"):
        return Path(value)
    raise ValueError("Expected `path`")


def _explain(message: str, document: object, kind: type) -> str:
    found = MESSAGE.fullmatch(message)
    assert found
    problem, path = found["problem"], (found["path"] or "$")[1:].lstrip(".")
    if field := FIELD.fullmatch(problem):
        prefix = f"{path}." if path else ""
        return f"{'unknown' if field['kind'] == 'unknown' else 'missing'} key: {prefix}{field['name']}"
    if problem.startswith("Invalid enum value"):
        expected = f"one of {', '.join(_choices(kind, path))}"
    elif match := EXPECTED.fullmatch(problem):
        expected = re.sub(r"`([^`]+)`", lambda word: NOUNS.get(word[1], word[1]), match["expected"])
    else:
        return problem  # a check of the type itself, which names the key
    return f"{path or 'the document'} must be {expected}{_value(document, path)}"


def _choices(kind: Any, path: str) -> tuple[str, ...]:
    for name in path.split("."):
        kind = get_type_hints(kind)[name]
    return get_args(kind)


def _value(document: Any, path: str) -> str:
    """The offending value, unless it lies in a mapping with free keys, whose path msgspec does not name."""
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+|\.\.\.)\]", path):
        if index == "...":
            return ""
        document = document[int(index) if index else name]
    return f", not {document!r}"
