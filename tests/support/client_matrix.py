"""What the last major versions of OpenAI's clients can send, read from their own types, and what must become of it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import javascript, javascript_types

ROOT = Path(__file__).resolve().parents[2]
CLIENTS, CACHE = ROOT / "tests" / "clients", ROOT / ".cache" / "clients"
LOCKS = sorted(CLIENTS.glob("openai-*.lock"))
NODE = "node"
NAMES = [*(lock.stem for lock in LOCKS), NODE]
LONG = os.environ.get("DRILLS") == "long"
SECONDS = 900  # the longest that all requests may take
KINDS = {  # of an answer of Python's client, by route and format; the others are texts
    ("transcriptions", "json"): "Transcription",
    ("transcriptions", "verbose_json"): "TranscriptionVerbose",
    ("transcriptions", "diarized_json"): "TranscriptionDiarized",
    ("translations", "json"): "Translation",
    ("translations", "verbose_json"): "TranslationVerbose",
}
Values = dict[str, list[Any]]  # by field
Request = tuple[str, dict[str, Any]]  # route and fields
SAMPLES: dict[str, Any] = {  # of what may be any text or number
    "language": "fi",
    "languages": ["fi", "en"],
    "prompt": "Kära lyssnare",
    "keywords": ["Ärendet", "KBLab"],
    "temperature": 0.4,
    "known_speaker_names": ["Åsa", "Bo"],
    "known_speaker_references": ["data:audio/wav;base64,UklGRg==", "data:audio/wav;base64,UklGRkE="],
    "threshold": 0.6,
    "prefix_padding_ms": 200,
    "silence_duration_ms": 400,
}
PAIR = ("known_speaker_names", "known_speaker_references")  # neither without the other


@dataclass
class Client:
    """One of the clients: its program, and the fields that its types have."""

    name: str
    program: list[str]
    fields: dict[str, Values] = field(default_factory=dict)

    @property
    def is_python(self) -> bool:
        return self.name != NODE

    def send(self, url: str, sent: list[Request], *more: str) -> list[dict[str, Any]]:
        """What becomes of the requests. `more`: the recording that they send; otherwise each sends bytes of its own."""
        lines = "".join(f"{json.dumps([number, *request])}\n" for number, request in enumerate(sent))
        command = [*self.program, f"{url}/v1", *more]
        done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads(line) for line in done.stdout.splitlines()]


def client(name: str) -> Client:
    """The client of that name, in an environment of its own."""
    if name == NODE:
        folder, node = javascript.installed(), shutil.which("node")
        assert node
        program = [node, str(folder / "client.mjs")]
        return Client(name, program, javascript_types.fields_of(folder / "node_modules" / "openai"))
    venv = CACHE / name
    making = [sys.executable, str(ROOT / "salt" / "lockedvenv.py"), "sync", str(venv), str(CLIENTS / f"{name}.lock")]
    done = subprocess.run(making, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    program = [str(venv / "bin" / "python"), str(CLIENTS / "client.py")]
    return Client(
        name, program, json.loads(subprocess.run([*program, "fields"], capture_output=True, check=True).stdout)
    )


def filled(name: str, value: Any, samples: Mapping[str, Any]) -> Any:
    """The value with a sample where the types say no more than that it is a text or a number."""
    if isinstance(value, dict):
        return {member: filled(member, inner, samples) for member, inner in value.items()}
    if value in ("?", ["?"]):
        assert name in samples, f"{name} is new in this client: does the service know it? Then give it a sample here."
        return samples[name]
    return value


def requests(one: Client, samples: Mapping[str, Any] = SAMPLES) -> list[Request]:
    """Each format; each value of each field, and each model as a stream, with one that the clients take in turn and, if
    that must be refused, with one that works. With `DRILLS=long` each value with each format and without one."""
    turn = NAMES.index(one.name)
    found = ((route, _of_route(route, known, samples, turn)) for route, known in one.fields.items())
    return [(route, fields) for route, several in found for fields in several]


def _of_route(route: str, known: Values, samples: Mapping[str, Any], turn: int) -> Iterator[dict[str, Any]]:
    fields = {
        name: [filled(name, value, samples) for value in values if value != "?" or len(values) == 1]
        for name, values in known.items()
    }
    formats: list[dict[str, Any]] = [{}, *({"response_format": wanted} for wanted in fields.pop("response_format"))]
    alone: list[dict[str, Any]] = [{name: value} for name, values in fields.items() for value in values]
    if set(PAIR) <= set(fields):
        alone.append({name: fields[name][0] for name in PAIR})
    if "stream" in fields:
        alone += [{"model": model, "stream": True} for model in fields["model"]]
    yield from formats
    for number, more in enumerate(alone, turn):
        every = [{**formats[(number + place) % len(formats)], **more} for place in range(len(formats))]
        works = [place for place, one in enumerate(every) if not refused(route, one)]
        yield from every if LONG else (one for place, one in enumerate(every) if place in (0, *works[:1]))


def refused(route: str, fields: dict[str, Any]) -> str | None:
    """The field that a 400 must name; None for a request that works."""
    wanted = fields.get("response_format", "json")
    rules = {
        "model": route == "translations" and str(fields.get("model")).endswith("diarize"),
        "known_speaker_references[]": "known_speaker_names" in fields and "known_speaker_references" not in fields,
        "known_speaker_names[]": "known_speaker_references" in fields and "known_speaker_names" not in fields,
        "timestamp_granularities[]": "timestamp_granularities" in fields and wanted != "verbose_json",
        "include[]": "include" in fields and wanted != "json",
        "stream": bool(fields.get("stream")) and wanted in ("srt", "vtt"),
    }
    return next((name for name, is_so in rules.items() if is_so), None)
