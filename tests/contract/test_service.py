"""Both real processes and a small real model: the official client, a worker that is killed."""

import difflib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
from support.whole_service import READY_SECONDS, Service, serving

pytestmark = pytest.mark.model

AUDIO = Path(__file__).resolve().parents[1] / "audio"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("service"), batch__max_chunks=4) as found:
        yield found


def sentences() -> dict[str, str]:
    """The recordings beside this test and what is said in them."""
    rows = (line.split("\t") for line in (AUDIO / "transcripts.tsv").read_text().splitlines())
    return {row[0]: row[-1] for row in rows if (AUDIO / row[0]).is_file()}


def similarity(transcript: str, said: str) -> float:
    """How similar the words are, from 0 to 1."""
    plain = ["".join(c for c in text.lower() if c.isalnum() or c == " ").split() for text in (transcript, said)]
    return difflib.SequenceMatcher(None, plain[0], plain[1]).ratio()


def test_human_speech_is_understood(service: Service) -> None:
    name, said = next(iter(sentences().items()))
    with service.client() as client:
        found: Any = client.audio.transcriptions.create(
            file=AUDIO / name,
            model="whisper-1",
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
        )
    assert similarity(found.text, said) > 0.7, (found.text, said)
    assert found.language == "english"
    times = [moment for word in found.words for moment in (word.start, word.end)]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= found.duration
    assert found.coverage["speech_seconds"] > 0


def test_a_stream_ends_with_the_whole(service: Service) -> None:
    name, said = list(sentences().items())[1]
    with service.client() as client:
        events = list(client.audio.transcriptions.create(file=AUDIO / name, model="whisper-1", stream=True))
    *deltas, done = events
    assert "".join(event.delta for event in deltas) == done.text  # type: ignore[union-attr]
    assert similarity(done.text, said) > 0.7  # type: ignore[union-attr]


def test_what_is_no_audio_is_a_400(service: Service) -> None:
    with service.client() as client:
        for content in (b"this is no sound", b"RIFF\x00\x00\x00\x00WAVE", os.urandom(5000)):
            with pytest.raises(openai.BadRequestError) as caught:
                client.audio.transcriptions.create(file=("a.wav", content), model="whisper-1")
            assert caught.value.body, "OpenAI's error object"


def test_a_killed_worker_costs_nobody_their_answer(service: Service, tmp_path: Path) -> None:
    names = list(sentences()) * 3  # a minute: long enough for the worker to be killed while it hears it
    said = " ".join(sentences()[name] for name in names)
    sounds = [soundfile.read(AUDIO / name) for name in names]
    soundfile.write(tmp_path / "minute.wav", np.concatenate([sound for sound, _ in sounds]), sounds[0][1])
    transcripts: list[str] = []

    def ask() -> None:
        with service.client() as client:
            file = tmp_path / "minute.wav"
            transcripts.append(client.audio.transcriptions.create(file=file, model="whisper-1").text)

    thread = threading.Thread(target=ask)
    thread.start()
    while not service.get("/health")["queue"]["jobs_running"]:
        assert thread.is_alive()
        time.sleep(0.01)
    assert service.stop("worker", signal.SIGKILL) == -signal.SIGKILL
    assert service.get("/health")["queue"]["jobs_running"] == 1
    service.start("worker")
    thread.join(READY_SECONDS)
    assert transcripts
    assert similarity(transcripts[0], said) > 0.7
    assert service.get("/v1/jobs?limit=1")["data"][0]["attempts"] == 2
