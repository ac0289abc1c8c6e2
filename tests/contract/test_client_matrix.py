"""Everything that the last major versions of OpenAI's clients can send works, or is a 400 that names the field. Each
version runs in an environment of its own; what it can send is read from its own types."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import javascript, javascript_types
from support.api_server_fixture import Api, running
from support.fake_worker import FACTS

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
CLIENTS, CACHE = ROOT / "tests" / "clients", ROOT / ".cache" / "clients"
KINDS = {"verbose_json": "TranscriptionVerbose", "diarized_json": "TranscriptionDiarized", "json": "Transcription"}
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
VOICES = {name: SAMPLES[name] for name in ("known_speaker_names", "known_speaker_references")}
# What says the same as nothing, the default's own name.
DEFAULTS: dict[str, tuple[Any, ...]] = {
    "response_format": ("json",),
    "stream": (None, False),
    "chunking_strategy": (None, "auto"),
    "timestamp_granularities": (["segment"],),
}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with running(tmp_path) as found:
        yield found


def filled(name: str, value: Any) -> Any:
    """The value with a sample where the types say no more than that it is a text or a number."""
    if isinstance(value, dict):
        return {member: filled(member, inner) for member, inner in value.items()}
    if value in ("?", ["?"]):
        assert name in SAMPLES, f"{name} is new in this client: does the service know it? Then give it a sample here."
        return SAMPLES[name]
    return value


def requests(transcription: Values, translation: Values) -> list[Request]:
    """Each value of each field alone, and with each format in JSON; each model with each format, as a stream or not."""
    transcription, translation = (
        {name: [filled(name, v) for v in values if v != "?" or len(values) == 1] for name, values in fields.items()}
        for fields in (transcription, translation)
    )
    voices = [VOICES] if set(VOICES) <= set(transcription) else []
    found: list[dict[str, Any]] = [{}, *voices]
    for wanted in [{"response_format": name} for name in transcription.pop("response_format")]:
        found += [wanted, *({**wanted, **both} for both in voices)]
        found += [{**wanted, "model": model, "stream": True} for model in transcription["model"]]
        names = transcription if wanted["response_format"].endswith("json") else ("model", "stream")
        found += [{**wanted, name: value} for name in names for value in transcription[name]]
    translations = [{name: value} for name, values in translation.items() for value in values]
    return [("transcriptions", fields) for fields in found] + [("translations", fields) for fields in translations]


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


def check(api: Api, sent: list[Request], command: list[str], *, python: bool) -> None:
    """Sends the requests; each answer is right, and each field that was not refused made a difference."""
    lines = "".join(f"{json.dumps([number, *request])}\n" for number, request in enumerate(sent))
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    jobs = {job.suffix: job for job in api.worker.seen}
    plain: dict[str | None, Any] = {}
    for number, ((route, fields), answer) in enumerate(zip(sent, answers, strict=True)):
        if field := refused(route, fields):
            assert (answer["status"], answer["param"]) == (400, field), (fields, answer)
            continue
        assert answer["status"] == 200, (fields, answer)
        assert answer["x-transcribe-warnings"] is None, (fields, answer)
        assert answer["x-transcribe-model"] == f"{FACTS['model']}@{FACTS['revision']}"
        job, wanted = jobs[f".c{number}"], fields.get("response_format")
        effect = job.options, job.request, answer["shown"]
        others = [name for name in fields if name != "response_format"]
        if route == "translations" or not others:
            plain.setdefault(wanted, effect)
            if python and route == "transcriptions":
                assert answer["kind"] == KINDS.get(wanted or "json", "str")
        elif not any(_says_nothing(fields, name) for name in others):
            assert effect != plain[wanted], f"{fields} was ignored"


def _says_nothing(fields: dict[str, Any], name: str) -> bool:
    """Whether the field's value is its default, or one that the format has said already."""
    if name == "model":
        return "diarize" not in fields[name] or fields.get("response_format") == "diarized_json"
    return fields[name] in DEFAULTS.get(name, ())


@pytest.mark.parametrize("lock", sorted(CLIENTS.glob("openai-*.lock")), ids=lambda lock: lock.stem)
def test_python(api: Api, lock: Path) -> None:
    venv = CACHE / lock.stem
    making = [sys.executable, str(ROOT / "salt" / "lockedvenv.py"), "sync", str(venv), str(lock)]
    done = subprocess.run(making, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    program = [str(venv / "bin" / "python"), str(CLIENTS / "client.py")]
    fields = json.loads(subprocess.run([*program, "fields"], capture_output=True, check=True).stdout)
    check(api, requests(**{name[:-1]: fields[name] for name in fields}), [*program, f"{api.url}/v1"], python=True)


def test_node(api: Api) -> None:
    folder, node = javascript.installed(), shutil.which("node")
    assert node
    fields = javascript_types.fields_of(folder / "node_modules" / "openai")
    sent = requests(**{name[:-1]: fields[name] for name in fields})
    check(api, sent, [node, str(folder / "client.mjs"), f"{api.url}/v1"], python=False)
