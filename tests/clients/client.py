"""One version of OpenAI's Python client, in an environment with it. `client.py fields` prints the fields of its
requests and their values, by route, as its own types have them, "?" for what may be any text or number. `client.py
BASE_URL [RECORDING]` sends requests, [number, route, fields] on each line of standard input, and prints a line for each
with what became of it.

The file of request N is called clip.cN, so that the server's side can be found. It is the recording, or else no two are
the same.
"""

import json
import sys
import typing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
from openai.types.audio import transcription_create_params, translation_create_params

WORKERS = 8


def values(hint: Any) -> list[Any]:
    """The values that the type allows."""
    arguments = typing.get_args(hint)
    if hasattr(hint, "__total__"):  # a TypedDict, of typing or typing_extensions
        return [{member: values(kind)[0] for member, kind in typing.get_type_hints(hint).items()}]
    if typing.get_origin(hint) is typing.Literal:
        return list(arguments)
    if hint is type(None):
        return [None]
    if typing.get_origin(hint) is typing.Union:
        return [value for kind in arguments for value in values(kind)]
    if arguments:  # a list
        return [[value] for value in values(arguments[0])]
    return ["?"]


def fields_of(*kinds: Any) -> dict[str, list[Any]]:
    """The fields of these types, without the file."""
    found: dict[str, list[Any]] = {}
    for kind in kinds:
        for name, hint in typing.get_type_hints(kind).items():
            found[name] = [*found.get(name, []), *(value for value in values(hint) if value not in found.get(name, []))]
    del found["file"]
    return found


def send(client: openai.OpenAI, number: int, route: str, fields: dict[str, Any]) -> dict[str, Any]:
    """What became of one request."""
    content = Path(sys.argv[2]).read_bytes() if len(sys.argv) > 2 else b"RIFF everything %d" % number
    sent = {"file": (f"clip.c{number}", content), "model": "whisper-1", **fields}
    try:
        answer = getattr(client.audio, route).with_raw_response.create(**sent)
        found = answer.parse()
        if fields.get("stream"):
            shown: Any = [event.to_dict() for event in found]
        else:
            shown = found if isinstance(found, str) else found.to_dict()
    except openai.APIStatusError as error:
        return {"status": error.status_code, "param": error.param, "message": str(error)}
    headers = {name: answer.headers.get(name) for name in ("x-transcribe-model", "x-transcribe-warnings")}
    return {"status": 200, "kind": type(found).__name__, "shown": shown, **headers}


def main() -> None:
    """Prints the fields, or sends what is asked, some at a time."""
    if sys.argv[1] == "fields":
        module = transcription_create_params
        both = module.TranscriptionCreateParamsNonStreaming, module.TranscriptionCreateParamsStreaming
        translation = fields_of(translation_create_params.TranslationCreateParams)
        print(json.dumps({"transcriptions": fields_of(*both), "translations": translation}))
        return
    client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
    with ThreadPoolExecutor(WORKERS) as pool:
        for found in pool.map(lambda line: send(client, *json.loads(line)), sys.stdin):
            print(json.dumps(found))


if __name__ == "__main__":
    main()
