"""The command line without a model: what it makes of options that belong together."""

import base64
import errno
import hashlib
import json
import os
import wave
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import transcribe_optimized
from support.fake_vad import FakeVad
from support.voices import HIGH, LOW, PITCHES, WordEngine, turns
from support.worker_fixture import ServiceFixture
from transcribe import cli, records, verifying
from transcribe.audio.vad import Vad
from transcribe.engine import Chunk, ChunkResult, Engine
from transcribe.model_cache.cache_info import CacheInfo
from transcribe.speakers.network import SpeakerNetwork
from transcribe.types import SAMPLE_RATE
from transcribe.worker import main as startup
from transcribe.worker.main import LoadedModel


class Alone(WordEngine):
    """Without the job's name in the keys, as the command line has them."""

    def add(self, chunk: Chunk) -> None:
        super().add(replace(chunk, key=("job", 1, *cast(tuple[int, ...], chunk.key))))

    def step(self) -> list[ChunkResult]:
        return [replace(found, key=cast(tuple[object, ...], found.key)[2:]) for found in super().step()]


@pytest.fixture
def stereo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recording with a voice on each channel, and a machine without a model for speakers."""
    monkeypatch.setattr(startup, "load", lambda _: loaded())
    path = tmp_path / "two.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        noise = np.random.default_rng(1).normal(0.0, 9000.0, (4 * SAMPLE_RATE, 2)).clip(-32_767, 32_767)
        file.writeframes(noise.astype("<i2").tobytes())
    return path


def loaded(speakers: SpeakerNetwork | None = None) -> LoadedModel:
    info = cast(CacheInfo, SimpleNamespace(model_id="KBLab/kb-whisper-small", model_revision="0" * 40))
    return LoadedModel(cast(Engine, Alone()), cast(Vad, FakeVad()), info, speakers)


@pytest.fixture
def voices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recording of two voices, high and low, one of each alone, and a machine that tells them apart."""
    monkeypatch.setattr(startup, "load", lambda _: loaded(PITCHES))
    (tmp_path / "both.wav").write_bytes(turns(HIGH, LOW))
    (tmp_path / "low.wav").write_bytes(turns(LOW))
    (tmp_path / "short.wav").write_bytes(turns(LOW, seconds=0.5))
    (tmp_path / "silence.wav").write_bytes(turns(LOW, seconds=0.0, pause=3.0))
    (tmp_path / "no.wav").write_text("Dear Sir")
    return tmp_path


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
    ("more", "blamed"),
    [
        (["--audio-stream", "7"], "--audio-stream: "),
        (["--speakers"], "--speakers: "),
        (["--max-speakers", "2"], "--max-speakers: "),
        (["--format", "diarized_json"], "--format diarized_json: "),
    ],
)
def test_what_cannot_be_done_is_said_of_the_option(
    service: ServiceFixture, stereo: Path, capsys: pytest.CaptureFixture[str], more: list[str], blamed: str
) -> None:
    assert cli.run(service.config, transcribe_optimized.parse([str(stereo), *more])) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"transcribe_optimized: {blamed}")


def ran(service: ServiceFixture, *arguments: str | Path) -> int:
    return cli.run(service.config, transcribe_optimized.parse([str(one) for one in arguments]))


def test_known_voices_have_their_names(
    service: ServiceFixture, voices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["--format", "srt"]
    assert ran(service, voices / "both.wav", "--known-speaker", f" Åsa\tLind ={voices / 'low.wav'}", *wanted) == 0
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == ["A", "Åsa Lind"]
    assert ran(service, voices / "both.wav", "--speakers", *wanted) == 0
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == ["A", "B"]


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--known-speaker", "Bo=short.wav"], 1, "--known-speaker Bo=short.wav: there is less than 1 s of speech"),
        (["--known-speaker", "Bo=silence.wav"], 1, "--known-speaker Bo=silence.wav: there is less than 1 s of speech"),
        (["--known-speaker", "Bo=no.wav"], 1, "--known-speaker Bo=no.wav: the file is not a recording"),
        (["--known-speaker", "Bo=none.wav"], 1, "--known-speaker Bo=none.wav: "),
        (["--known-speaker", "Bo=."], 1, "--known-speaker Bo=.: "),
        (["--known-speaker", "low.wav"], 2, "--known-speaker must be NAME=FILE"),
        (["--known-speaker", "=low.wav"], 2, "--known-speaker must be NAME=FILE"),
        (["--known-speaker", "Bo="], 2, "--known-speaker must be NAME=FILE"),
        (["--known-speaker", "Bo=low.wav"] * 2, 2, "--known-speaker must have different names"),
        (["--known-speaker", f"{'B' * 101}=low.wav"], 2, "--known-speaker must have different names"),
        (["--known-speaker", "B\0=low.wav"], 2, "--known-speaker must have different names"),
        ([f for n in range(11) for f in ("--known-speaker", f"{n}=low.wav")], 2, "--known-speaker may be given 10"),
        (["--known-speaker", "Bo=low.wav", "--task", "translate"], 2, "--known-speaker: speakers can be told apart"),
        (["--format", "diarized_json", "--task", "translate"], 2, "--format diarized_json: speakers can be told"),
        (["--min-speakers", "0"], 2, "--min-speakers must be a whole number"),
        (["--max-speakers", "51"], 2, "--max-speakers must be a whole number"),
        (["--min-speakers", "3", "--max-speakers", "2"], 2, "--min-speakers is more than --max-speakers"),
        (
            ["--max-speakers", "1", "--known-speaker", "A=low.wav", "--known-speaker", "B=low.wav"],
            2,
            "--max-speakers is less than the 2 known ones",
        ),
        (["--temperature", "nan"], 2, "--temperature must be"),
        (["--highlight_words", "--format", "srt"], 2, "--highlight_words needs"),
        (["--logprobs", "--format", "srt"], 2, "--logprobs needs"),
        (["--record", "none/record.json"], 2, "--record: none/record.json cannot be written"),
        (["--record", "."], 2, "--record: . cannot be written"),
        (["--record", "both.wav"], 2, "--record: both.wav is the recording"),
        (["--output", "low.wav"], 2, "--output: low.wav cannot be written to"),
        (["--output", "low.wav/below"], 2, "--output: low.wav/below cannot be written to"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(
    service: ServiceFixture,
    voices: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(voices)
    before = (voices / "both.wav").read_bytes()
    assert ran(service, "both.wav", *more) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"transcribe_optimized: {said}")
    assert (voices / "both.wav").read_bytes() == before


@pytest.mark.parametrize("more", [["--min-speakers", "2"], ["--max-speakers", "1"]])
def test_how_many_speak_may_be_said(
    service: ServiceFixture, voices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    assert ran(service, voices / "low.wav", *more, "--output", tmp_path / "out") == 0
    assert capsys.readouterr().out.startswith("A: ")


def test_the_record_is_good_and_says_who_signed(
    service: ServiceFixture, voices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = [tmp_path / "one.json", tmp_path / "two.json"]
    for number, record in enumerate(kept):
        assert ran(service, voices / "both.wav", "--speakers", "--record", record, "--output", tmp_path / "out") == 0
        key = records.MachineKey.at(service.config.results / "machine-key").public
        which = "the key" if number else "a new key,"
        assert f"the record is signed with {which} {key}, of {service.config.results / 'machine-key'}" in (
            capsys.readouterr().err
        )
    text = next((tmp_path / "out").glob("*.txt"))
    checked = [str(kept[0]), str(voices / "both.wav"), "--key", key, "--text", str(text)]
    assert verifying.run(checked) == 0
    assert "KBLab/kb-whisper-small@" in capsys.readouterr().out
    assert verifying.run([str(kept[0]), str(voices / "low.wav")]) == 1
    said: dict[str, Any] = json.loads(json.loads(kept[0].read_text())["payload"])
    content = (voices / "both.wav").read_bytes()
    assert said["audio"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert said["times"]["started"] <= said["times"]["finished"]
    assert said["coverage"]["speech_seconds"] > 0


def test_a_key_that_others_may_know_signs_nothing(
    service: ServiceFixture, voices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = service.config.results / "machine-key"
    file.write_bytes(base64.b64encode(bytes(24)))
    file.chmod(0o644)
    assert ran(service, voices / "both.wav", "--record", voices / "record.json") == 78
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"transcribe_optimized: --record: {file} is not this user's alone")
    assert not (voices / "record.json").exists()


def test_a_recording_that_changes_meanwhile_has_no_record(
    service: ServiceFixture, voices: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(_: object) -> LoadedModel:
        (voices / "both.wav").write_bytes(turns(LOW))
        return loaded()

    monkeypatch.setattr(startup, "load", load)
    assert ran(service, voices / "both.wav", "--record", voices / "record.json") == 1
    assert "was changed while it was heard" in capsys.readouterr().err
    assert not (voices / "record.json").exists()


def test_a_translation_is_in_english(service: ServiceFixture, voices: Path, tmp_path: Path) -> None:
    wanted = ["--format", "verbose_json", "--output", str(tmp_path / "out")]
    assert ran(service, voices / "low.wav", "--language", "sv", "--task", "translate", *wanted) == 0
    found = json.loads(next((tmp_path / "out").iterdir()).read_text())
    assert (found["language"], found["model"]) == ("english", f"KBLab/kb-whisper-small@{'0' * 40}")


def test_formats_may_be_spaced_and_named_twice(service: ServiceFixture, voices: Path, tmp_path: Path) -> None:
    assert ran(service, voices / "low.wav", "--format", "txt, srt,txt", "--output", tmp_path / "out") == 0
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".srt", ".txt"]


def test_a_place_for_results_is_looked_for_before_the_work(
    service: ServiceFixture, voices: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(startup, "load", lambda _: pytest.fail("the model was loaded"))
    assert ran(service, voices / "low.wav", "--output", voices / "low.wav") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_disk_that_fills_meanwhile_costs_no_text(
    service: ServiceFixture, voices: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cli, "write", full)
    assert ran(service, voices / "low.wav") == 70
    told = capsys.readouterr()
    assert told.out.strip().endswith("/0.")
    assert told.err == "transcribe_optimized: cannot write the result: [Errno 28] No space left on device\n"
