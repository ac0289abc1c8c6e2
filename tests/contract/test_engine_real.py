"""The engine with a real model on real recordings."""

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import transformers
from localcloud.hub.models import model_dir
from numpy.typing import NDArray
from support import graph_memory
from support.torch_kernels import TorchKernels
from torch import Tensor
from transcribe.engine import Chunk, ChunkResult, Engine, EngineError
from transcribe.engine.cuda import graphs, trial
from transcribe.engine.cuda.graphs import Capture, Replay
from transcribe.engine.decode.scheduler import Scheduler
from transcribe.engine.model import whisper
from transcribe.engine.model.whisper import Model
from transcribe.types import SAMPLE_RATE, DecodeOptions

AUDIO = Path(__file__).resolve().parents[1] / "audio"
ENGLISH = DecodeOptions(language="en")

pytestmark = pytest.mark.model


def clips() -> list[NDArray[np.float32]]:
    parts = [soundfile.read(path, dtype="float32")[0] for path in sorted(AUDIO.glob("*.flac"))]
    return [*parts, np.concatenate(parts)]


def load(name: str = "whisper-base", dtype: str = "float32", cache: Path | None = None) -> Engine:
    return Engine.load(model_dir(name), device="cpu", dtype=dtype, max_chunks=4, cache_dir=cache)


def text(result: ChunkResult) -> str:
    return "".join(segment.text for segment in result.segments).strip()


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load()


def load_recorded(name: str) -> Engine:
    """With the decoder's steps as a GPU has them: over static buffers, recorded; here, that is repeated."""
    with torch.inference_mode():
        loaded, _ = whisper.load(model_dir(name), device="cpu", dtype="float32")
        scheduler = Scheduler(loaded, 4)
        graphs.record(scheduler.batch, Replay(scheduler.batch, lambda step, _: step))
    return Engine(scheduler, device="cpu", torch_dtype="torch.float32", facts={"word_times": False})


@cache
def generated(name: str) -> list[list[int]]:
    """The tokens that transformers' own generate says of each clip."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    theirs = transformers.WhisperForConditionalGeneration.from_pretrained(model_dir(name), dtype=torch.float32)
    extract = transformers.WhisperFeatureExtractor.from_pretrained(model_dir(name))
    spoken = {"language": "en", "task": "transcribe"} if name == "whisper-base" else {}
    found = []
    for audio in clips():
        mel = extract(audio, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        whole = theirs.generate(mel, return_timestamps=True, force_unique_generate_call=True, **spoken)[0].tolist()
        said = whole[whole.index(theirs.generation_config.no_timestamps_token_id + 1) :]
        found.append([token for token in said if token != theirs.generation_config.eos_token_id])
    return found


@pytest.mark.parametrize(
    ("name", "way"), [("whisper-base", load), ("whisper-tiny.en", load), ("whisper-base", load_recorded)]
)
def test_float32_says_token_for_token_what_generate_says(
    name: str, way: Callable[[str], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transcribe.engine.decode.scheduler.frames_for", lambda _: 3000)  # as generate hears it
    results = way(name).transcribe([Chunk(i, audio, ENGLISH) for i, audio in enumerate(clips())])
    ours = [[token for segment in result.segments for token in segment.tokens] for result in results]
    assert ours == generated(name)


def lying(step: Callable[[], None], changed: Sequence[Tensor]) -> Callable[[], None]:
    """Replays something else than it recorded."""

    def replay() -> None:
        step()
        changed[0].add_(1)

    return replay


def way_of(model: Model, capture: Capture) -> dict[str, trial.Way]:
    return {"torch": (model, lambda batch: Replay(batch, capture))}


def breaking(step: Callable[[], None], changed: Sequence[Tensor]) -> Callable[[], None]:
    raise RuntimeError("CUDA error: operation not permitted\nwhen stream is capturing")


@torch.inference_mode()
@pytest.mark.parametrize(
    ("capture", "agreement", "error"),
    [
        (lambda step, _: step, 1.0, ""),
        (lying, 0.0, ""),
        (breaking, None, "RuntimeError: CUDA error: operation not permitted when stream is capturing"),
    ],
)
def test_steps_are_recorded_only_if_that_works_and_says_the_same(
    capture: Capture, agreement: float | None, error: str, tmp_path: Path
) -> None:
    loaded, chosen = whisper.load(model_dir("whisper-tiny.en"), device="cpu", dtype="float32", folder=tmp_path)
    told = trial.verdict(chosen, tmp_path, way_of(loaded, capture), "a card")
    assert (told.get("agreement"), told["error"]) == (agreement, error)
    assert agreement == 1.0 or not told["recorded"]
    _, again = whisper.load(model_dir("whisper-tiny.en"), device="cpu", dtype="float32", folder=tmp_path)
    assert again["steps"] == told
    if error:
        return
    assert (
        trial.verdict(again, tmp_path, way_of(loaded, breaking), "a card") == told
    )  # the next start does not try again
    assert trial.verdict(again, tmp_path, way_of(loaded, breaking), "another card")["error"]


@torch.inference_mode()
def test_the_first_way_that_is_right_is_taken_and_the_others_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loaded, chosen = whisper.load(model_dir("whisper-tiny.en"), device="cpu", dtype="float32", folder=tmp_path)
    ways = {
        "wrong": way_of(loaded, lying)["torch"],
        "right": (loaded, graphs.recorder(TorchKernels())),
        "broken": way_of(loaded, breaking)["torch"],
    }
    with pytest.MonkeyPatch.context() as patch:
        graph_memory.emulate(patch)
        patch.setattr(trial, "_timed", timed(trial._timed))
        patch.setattr(trial, "STEPS", 2)
        patch.setattr(trial, "ROWS", 2)
        told = trial.verdict(chosen, tmp_path, ways)
    assert (told["recorded"], told["way"], list(told["rejected"])) == (True, "right", ["wrong"])
    assert caplog.messages.count("steps_rejected") == 1


def timed(measure: Callable[..., None]) -> Callable[..., None]:
    """As `measure`, but plain steps took longer: what emulates kernels is slow."""
    turns = itertools.cycle((10.0, 1.0))

    def call(batch: object, step: Callable[[], object], times: list[float]) -> None:
        measure(batch, step, times)
        times[-1] = next(turns)

    return call


class Killed(BaseException):
    """As if the process had ended."""


@torch.inference_mode()
def test_a_trial_that_failed_is_tried_again_but_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(step: Callable[[], None], changed: Sequence[Tensor]) -> Callable[[], None]:
        raise Killed

    def start(capture: Capture) -> dict[str, object]:
        _, chosen = whisper.load(model_dir("whisper-tiny.en"), device="cpu", dtype="float32", folder=tmp_path)
        return trial.verdict(chosen, tmp_path, way_of(loaded, capture))

    loaded, _ = whisper.load(model_dir("whisper-tiny.en"), device="cpu", dtype="float32", folder=tmp_path)
    with pytest.raises(Killed):
        start(kill)
    assert "not permitted" in str(start(breaking)["error"])
    with pytest.raises(Killed):
        start(kill)
    assert start(kill)["error"] == trial.UNFINISHED  # three were enough
    (tmp_path / "boot_id").write_text("another boot")
    monkeypatch.setattr(trial, "BOOT", tmp_path / "boot_id")
    assert start(lambda step, _: step)["error"] == ""


def test_int8_is_prepared_once_and_says_the_same(tmp_path: Path, engine: Engine) -> None:
    first = load(dtype="int8", cache=tmp_path)
    second = load(dtype="int8", cache=tmp_path)
    assert first.facts["prepared"]
    assert second.facts["precision"]["encoder"] == "int8"
    (prepared,) = tmp_path.rglob("*.safetensors")
    assert prepared.stat().st_mode & 0o004  # the bake writes it, the service reads it
    chunks = [Chunk(0, clips()[-1], ENGLISH)]
    exact, one, two = (text(each.transcribe(chunks)[0]) for each in (engine, first, second))
    assert one == two
    assert len(set(one.split()) ^ set(exact.split())) <= 4


def test_a_damaged_preparation_is_made_again(tmp_path: Path) -> None:
    load("whisper-tiny.en", "int8", tmp_path)
    (prepared,) = tmp_path.rglob("*.safetensors")
    prepared.write_bytes(prepared.read_bytes()[:1000])
    assert text(load("whisper-tiny.en", "int8", tmp_path).transcribe([Chunk(0, clips()[0], ENGLISH)])[0])


def test_words_are_monotonic_and_make_up_the_text(engine: Engine) -> None:
    assert engine.word_times
    (result,) = engine.transcribe([Chunk(0, clips()[-1], DecodeOptions(language="en", words=True))])
    for segment in result.segments:
        assert segment.words
        times = [time for word in segment.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert segment.start <= times[0] <= times[-1] <= segment.end
        assert "".join(word.word for word in segment.words).strip() == segment.text.strip()


def test_language_is_heard_and_rows_do_not_disturb_each_other(engine: Engine) -> None:
    audio = clips()[0]
    alone = engine.transcribe([Chunk("a", audio, ENGLISH)])[0]
    mixed = engine.transcribe(
        [
            Chunk("a", audio, ENGLISH),
            Chunk("b", clips()[1], DecodeOptions(language="sv")),
            Chunk("c", audio, DecodeOptions(language=None, prompt="Sense and Sensibility", hotwords="Dashwood")),
        ]
    )
    assert len(mixed[0].segments) == len(alone.segments)
    for beside, single in zip(mixed[0].segments, alone.segments, strict=True):
        # The size of a batch decides in which order a processor adds, and so the last digits.
        assert beside.avg_logprob == pytest.approx(single.avg_logprob, abs=1e-4)
        assert beside.no_speech_prob == pytest.approx(single.no_speech_prob, abs=1e-4)
        assert replace(beside, avg_logprob=single.avg_logprob, no_speech_prob=single.no_speech_prob) == single
    assert mixed[2].language == "en"


def test_what_goes_ahead_is_done_first_and_changes_no_text(engine: Engine) -> None:
    """Before a row that is being decoded, and between the layers of a window that is being encoded."""
    options = DecodeOptions(language="en", words=True)
    sounds = {"begun": clips()[-1][: 12 * SAMPLE_RATE], "half heard": clips()[-1], "ahead": clips()[1]}
    alone = {key: engine.transcribe([Chunk(key, sound, options)])[0] for key, sound in sounds.items()}
    engine.add(Chunk("begun", sounds["begun"], options))
    while engine.waiting:
        engine.step()
    engine.add(Chunk("half heard", sounds["half heard"], options))
    engine.step()
    engine.add(Chunk("ahead", sounds["ahead"], options, ahead=True))
    found: list[ChunkResult] = []
    while not found:
        found += engine.step()
    assert (found[0].key, engine.waiting) == ("ahead", 1)  # the other was not encoded meanwhile
    while len(found) < len(sounds):
        found += engine.step()
    for result in found:
        assert text(result) == text(alone[str(result.key)])
        words, expected = ([w for s in one.segments for w in s.words or ()] for one in (result, alone[str(result.key)]))
        assert [(word.word, word.start, word.end) for word in words] == [(w.word, w.start, w.end) for w in expected]


def test_the_language_is_one_of_the_candidates(engine: Engine) -> None:
    heard = [
        engine.transcribe([Chunk(0, clips()[0], DecodeOptions(language=None, candidates=candidates))])[0].language
        for candidates in (("sv", "da"), ("sv", "en"), ("xx",))
    ]
    assert heard[0] in ("sv", "da")
    assert heard[1:] == ["en", "en"]


def test_an_english_model_refuses_what_it_would_only_get_wrong() -> None:
    english = load("whisper-tiny.en")
    for options in (DecodeOptions(language="sv"), DecodeOptions(language="en", task="translate")):
        with pytest.raises(EngineError, match=r"'sv'|cannot translate"):
            english.add(Chunk(0, clips()[0], options))


def test_silence_ends_and_nothing_is_invented_with_confidence(engine: Engine) -> None:
    (result,) = engine.transcribe([Chunk(0, np.zeros(5 * SAMPLE_RATE, np.float32), ENGLISH)])
    assert all(segment.no_speech_prob > 0.3 or segment.avg_logprob < -0.5 for segment in result.segments)


def test_a_text_that_goes_round_is_heard_again_before_it_has_filled_its_window(engine: Engine) -> None:
    """Long before its figures say that it is doubtful. A prompt makes the model do it."""
    looping = DecodeOptions(language="en", prompt="married a more amiable " * 40)
    engine.add(Chunk(0, clips()[1][: int(4.2 * SAMPLE_RATE)], looping))
    steps = 0
    while not (results := engine.step()):
        steps += 1
    assert text(results[0]).startswith("unless to be rather cold-hearted and rather selfish")
    assert text(results[0]).count("married") == 1
    assert steps < 25  # of a layer of its hearings or of eight tokens; more than 26 if it went on to 120 tokens


@pytest.mark.parametrize("keys", [("stay", "go"), ("go", "stay")])
def test_a_chunk_discarded_in_the_middle_of_its_text_gives_no_result(engine: Engine, keys: tuple[str, str]) -> None:
    """Whether it is the batch's last row, or the last one has to take its place."""
    for key in keys:
        engine.add(Chunk(key, clips()[0], ENGLISH))
    while engine.waiting:
        assert engine.step() == []
    results = engine.step()
    assert results == []
    engine.discard("go")
    for _ in range(200):
        results += engine.step()
    assert [result.key for result in results] == ["stay"]
    assert text(results[0]) == text(engine.transcribe([Chunk(0, clips()[0], ENGLISH)])[0])
    assert engine.room() == 4


def test_what_the_model_cannot_do_is_refused_in_one_line(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="does not know the language 'xx'"):
        engine.add(Chunk(0, clips()[0], DecodeOptions(language="xx")))
    with pytest.raises(EngineError, match="there is no model in"):
        Engine.load(tmp_path / "none", device="cpu", dtype="auto", max_chunks=1, cache_dir=None)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(EngineError, match="not a Whisper"):
        Engine.load(tmp_path, device="cpu", dtype="auto", max_chunks=1, cache_dir=None)


def test_what_is_listened_to_shares_the_engine_with_what_is_decoded(engine: Engine) -> None:
    alone = engine.transcribe([Chunk(0, clips()[-1], ENGLISH)])
    either = DecodeOptions(language=None, candidates=("sv", "en"))
    spans = [Chunk(number, clip, either, listen=True) for number, clip in enumerate(clips()[:3])]
    listened = engine.transcribe([spans[0], Chunk(9, clips()[-1], ENGLISH), *spans[1:]])
    assert text(listened.pop(1)) == text(alone[0])
    assert [result.language for result in listened] == ["en"] * 3
    assert all(not result.segments and result.heard["en"] > result.heard["sv"] for result in listened)
