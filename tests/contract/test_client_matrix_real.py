"""The same requests of OpenAI's clients to both programs and a real model, as tools/serve.py runs them: every format of
every answer says what was said."""

import base64
import difflib
import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
import soxr
from support import client_matrix
from support.client_matrix import KINDS, SAMPLES, refused
from support.speaker_models import DEFAULT, real_model
from support.whole_service import Service, serving
from transcribe.types import SAMPLE_RATE

pytestmark = [pytest.mark.model, pytest.mark.sampled]
AUDIO = Path(__file__).resolve().parents[1] / "audio"
CLIP, SAID = AUDIO / "austen-0890.flac", "unless to be rather cold-hearted and rather selfish is to be ill-disposed."
LENGTH = 5.3  # seconds
ALIKE = 0.7  # of the words, at least: one sample is taken at random


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root = tmp_path_factory.mktemp("matrix")
    voices = real_model()
    shutil.copytree(voices, root / "models" / "speakers" / voices.name)
    with serving(root, "whisper-base", speakers__model=DEFAULT) as found:
        yield found


def data_url(clip: Path, pitch: float) -> str:
    """A recording as a WAV in base64, played faster by `pitch`, which makes it another voice."""
    file = io.BytesIO()
    sound = soxr.resample(soundfile.read(clip, dtype="float32")[0], pitch * SAMPLE_RATE, SAMPLE_RATE)
    soundfile.write(file, sound, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return f"data:audio/wav;base64,{base64.b64encode(file.getvalue()).decode()}"


@pytest.mark.parametrize("name", client_matrix.NAMES)
def test_every_answer_says_what_was_said(service: Service, name: str) -> None:
    references = [data_url(AUDIO / "austen-0920.flac", 1.0), data_url(AUDIO / "austen-0920.flac", 1.25)]
    samples = {**SAMPLES, "language": "en", "languages": ["en", "sv"], "prompt": "A novel.", "temperature": 0.1}
    client = client_matrix.client(name)
    sent = client_matrix.requests(client, {**samples, "known_speaker_references": references})
    answers = client.send(f"http://127.0.0.1:{service.port}", sent, str(CLIP))
    for (route, fields), answer in zip(sent, answers, strict=True):
        told = {one: value for one, value in fields.items() if one != "known_speaker_references"}, answer
        if field := refused(route, fields):
            assert (answer["status"], answer["param"]) == (400, field), told
            continue
        assert answer["status"] == 200, told
        wanted, shown = fields.get("response_format", "json"), answer["shown"]
        if fields.get("stream"):
            assert joined(shown, wanted) == shown[-1]["text"], told
            shown = shown[-1]
        elif client.is_python:
            assert answer["kind"] == KINDS.get((route, wanted), "str"), told
        assert alike(spoken(shown, wanted)) > ALIKE, told
        check_fields(fields, wanted, shown)


def joined(events: list[dict[str, Any]], wanted: str) -> str:
    """The text of a stream's events but the last."""
    if wanted == "verbose_json":
        assert any(event["type"] == "transcript.text.segment" for event in events)
    return "".join(event.get("delta", "") for event in events)


def spoken(shown: Any, wanted: str) -> str:
    """The words of an answer, whatever its form."""
    if not isinstance(shown, str):
        return str(shown["text"])
    lines = shown.removeprefix("WEBVTT").splitlines()
    if wanted in ("srt", "vtt"):
        times = [line for line in lines if "-->" in line]
        assert times, shown
        lines = [line for line in lines if line not in times and not line.isdigit()]
        ends = [float(re.split(r"[:,.]", line.split(" --> ")[1])[-2]) for line in times]
        assert ends == sorted(ends)
        assert ends[-1] <= LENGTH + 1
    names = r"^(?:<v [^>]*>|(?:A|Åsa|Bo): )"
    return " ".join(re.sub(names, "", line) for line in lines)


def alike(text: str) -> float:
    """How much the words are those that were said, from 0 to 1."""
    heard, said = (re.findall(r"\w+", one.lower()) for one in (text, SAID))
    return difflib.SequenceMatcher(None, heard, said).ratio()


def check_fields(fields: dict[str, Any], wanted: str, shown: Any) -> None:
    """What the fields ask for beside the text is there."""
    asks = "known_speaker_names" in fields or "diarize" in fields.get("model", "") or wanted == "diarized_json"
    if asks and isinstance(shown, dict):
        name = "Åsa" if "known_speaker_names" in fields else "A"
        assert {one["speaker"] for one in shown["segments"]} == {name}, fields
    if asks and isinstance(shown, str):
        assert ("Åsa" if "known_speaker_names" in fields else "A") in shown.replace("A novel", ""), fields
    if wanted == "verbose_json":
        granularities = fields.get("timestamp_granularities", ["segment"])
        pieces = shown["words" if granularities == ["word"] else "segments"]
        times = [moment for piece in pieces for moment in (piece["start"], piece["end"])]
        assert times == sorted(times)
        assert 0 <= times[0] < times[-1] <= shown["duration"] + 0.01
        assert shown["duration"] == pytest.approx(LENGTH, abs=0.01)
        assert shown["language"] == "english"
    if "include" in fields:
        assert alike("".join(one["token"] for one in shown["logprobs"])) > ALIKE
        assert all(one["logprob"] <= 0 for one in shown["logprobs"])
    if "languages" in fields and wanted == "json":
        assert shown["languages"] == [{"code": "en"}]
