"""The command line without a model: what it makes of options that belong together."""

import json
import wave
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import transcribe_optimized
from support.fake_vad import FakeVad
from support.worker_fixture import FakeEngine, ServiceFixture
from transcribe import cli
from transcribe.audio.vad import Vad
from transcribe.engine import Chunk, ChunkResult, Engine
from transcribe.model_cache.cache_info import CacheInfo
from transcribe.types import SAMPLE_RATE
from transcribe.worker import main as startup
from transcribe.worker.main import LoadedModel


class Alone(FakeEngine):
    """Without the job's name in the keys, as the command line has them."""

    def add(self, chunk: Chunk) -> None:
        super().add(replace(chunk, key=("job", 1, *cast(tuple[int, ...], chunk.key))))

    def step(self) -> list[ChunkResult]:
        return [replace(found, key=cast(tuple[object, ...], found.key)[2:]) for found in super().step()]


@pytest.fixture
def stereo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recording with a voice on each channel, and a machine without a model for speakers."""
    loaded = LoadedModel(cast(Engine, Alone()), cast(Vad, FakeVad()), cast(CacheInfo, None))
    monkeypatch.setattr(startup, "load", lambda _: loaded)
    path = tmp_path / "two.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        noise = np.random.default_rng(1).normal(0.0, 9000.0, (4 * SAMPLE_RATE, 2)).clip(-32_767, 32_767)
        file.writeframes(noise.astype("<i2").tobytes())
    return path


@pytest.mark.parametrize("asking", [["--speakers"], ["--format", "diarized_json"]])
def test_channels_are_the_speakers_where_there_is_no_model_for_them(
    service: ServiceFixture, stereo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], asking: list[str]
) -> None:
    wanted = ["--format", "diarized_json", *asking, "--channels", "separate", "--output", str(tmp_path / "out")]
    assert cli.run(service.config, transcribe_optimized.parse([str(stereo), *wanted])) == 0
    (written,) = (tmp_path / "out").iterdir()
    assert {one["speaker"] for one in json.loads(written.read_text())["segments"]} == {"channel 1", "channel 2"}
    assert "its own speaker" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "blamed"), [(["--audio-stream", "7"], "--audio-stream: "), (["--speakers"], "--speakers: ")]
)
def test_what_cannot_be_done_is_said_of_the_option(
    service: ServiceFixture, stereo: Path, capsys: pytest.CaptureFixture[str], more: list[str], blamed: str
) -> None:
    assert cli.run(service.config, transcribe_optimized.parse([str(stereo), *more])) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"transcribe_optimized: {blamed}")
