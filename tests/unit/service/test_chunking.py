"""Cutting: whatever is said and however it comes in, no speech is lost, no chunk is too long, and all are in order."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.fake_vad import Loudness
from transcribe.audio.chunking import ENTER, FRAME, FRAME_SECONDS, GAP, LOOKAHEAD, PAD, AudioChunk, Chunker, VadOptions
from transcribe.types import MAX_CHUNK_SECONDS, SAMPLE_RATE


def recording(parts: list[tuple[bool, float]]) -> NDArray[np.float32]:
    """Alternating speech (a tone of magnitude 0.9) and silence of so many seconds."""
    signal = [np.full(int(seconds * SAMPLE_RATE), 0.9 if speech else 0.0, np.float32) for speech, seconds in parts]
    whole = np.concatenate([*signal, np.zeros(0, np.float32)])
    whole[::2] *= -1.0
    return whole


def cut(
    audio: NDArray[np.float32],
    *,
    block: int = 16_000,
    longest: float = MAX_CHUNK_SECONDS,
    asked: dict[str, float] | None = None,
) -> list[AudioChunk]:
    chunker = Chunker(Loudness(), longest=longest, options=VadOptions.of(asked))
    chunks = [chunk for at in range(0, len(audio), block) for chunk in chunker.push(audio[at : at + block])]
    return chunks + list(chunker.flush())


def labels(audio: NDArray[np.float32]) -> NDArray[np.bool_]:
    detector = Loudness()
    found: NDArray[np.bool_] = np.concatenate([detector.push(audio), detector.flush()]) > ENTER
    return found


PARTS = st.lists(
    st.tuples(st.booleans(), st.one_of(st.floats(0.01, 1.0), st.floats(0.5, 6.0), st.floats(5.0, 70.0))), max_size=12
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(parts=PARTS, block=st.integers(400, 200_000), longest=st.sampled_from([8.0, 20.0, MAX_CHUNK_SECONDS]))
def test_no_speech_is_lost_and_no_chunk_is_too_long(
    parts: list[tuple[bool, float]], block: int, longest: float
) -> None:
    audio = recording(parts)
    chunks = cut(audio, block=block, longest=longest)
    heard = np.zeros(len(audio) + FRAME, np.int8)
    for chunk in chunks:
        assert 0 < len(chunk.audio) <= longest * SAMPLE_RATE
        start = round(chunk.start * SAMPLE_RATE)
        assert start == pytest.approx(chunk.start * SAMPLE_RATE, abs=0.01)
        np.testing.assert_allclose(chunk.audio, audio[start : start + len(chunk.audio)], atol=1e-6)
        heard[start : start + len(chunk.audio)] += 1
    spoken = np.repeat(labels(audio), FRAME)[: len(audio)]
    assert (heard[: len(audio)][spoken] == 1).all()
    assert all(left.end <= right.start + 1e-6 for left, right in pairwise(chunks))
    assert sum(chunk.speech_seconds for chunk in chunks) >= labels(audio).sum() * FRAME_SECONDS - 1e-6


@settings(max_examples=40, deadline=None)
@given(parts=PARTS, blocks=st.tuples(st.integers(400, 200_000), st.integers(400, 200_000)))
def test_speech_spans_lie_inside_their_piece(parts: list[tuple[bool, float]], blocks: tuple[int, int]) -> None:
    for chunk in cut(recording(parts), block=blocks[0]):
        assert chunk.speech
        for start, end in chunk.speech:
            assert chunk.start - 1e-6 <= start < end <= chunk.end + FRAME_SECONDS


def test_silence_gives_nothing() -> None:
    assert cut(np.zeros(100 * SAMPLE_RATE, np.float32)) == []
    assert cut(np.zeros(0, np.float32)) == []


@pytest.mark.parametrize("asked", [None, {"prefix_padding_ms": 5000.0}])
@pytest.mark.parametrize("block", [1_000, 256_000, 10_000_000])
def test_how_much_comes_at_once_makes_no_difference(block: int, asked: dict[str, float] | None) -> None:
    audio = recording([(False, 3.0), (True, 41.0), (False, 2.5), (True, 33.0), (False, 9.0), (True, 9.0)])
    expected, found = cut(audio, asked=asked), cut(audio, block=block, asked=asked)
    assert [(chunk.start, chunk.end, chunk.speech) for chunk in found] == [
        (chunk.start, chunk.end, chunk.speech) for chunk in expected
    ]
    assert all(np.array_equal(one.audio, other.audio) for one, other in zip(found, expected, strict=True))


def test_speech_keeps_a_margin_on_both_sides() -> None:
    (chunk,) = cut(recording([(False, 5.0), (True, 3.0), (False, 5.0)]))
    assert chunk.start == pytest.approx(5.0 - PAD * FRAME_SECONDS, abs=FRAME_SECONDS)
    assert chunk.end == pytest.approx(8.0 + PAD * FRAME_SECONDS, abs=2 * FRAME_SECONDS)


def test_a_short_pause_stays_in_and_a_long_one_parts() -> None:
    short, long = GAP * FRAME_SECONDS - 0.2, GAP * FRAME_SECONDS + 0.2
    assert len(cut(recording([(True, 3.0), (False, short), (True, 3.0)]))) == 1
    assert len(cut(recording([(True, 3.0), (False, long), (True, 3.0)]))) == 2


def test_long_speech_is_cut_in_its_longest_pause() -> None:
    first, second = cut(recording([(True, 14.0), (False, 0.8), (True, 12.0), (False, 0.3), (True, 12.0)]))
    assert first.end == pytest.approx(14.4, abs=0.1)
    assert second.start == pytest.approx(14.4, abs=0.1)


def test_speech_without_a_pause_is_cut_where_it_is_weakest() -> None:
    audio = recording([(True, 50.0)])
    audio[22 * SAMPLE_RATE : 22 * SAMPLE_RATE + 3000] *= 0.7
    first, _ = cut(audio)
    assert first.end == pytest.approx(22.1, abs=0.15)


def test_memory_does_not_grow_with_the_recording() -> None:
    chunker = Chunker(Loudness())
    most = 0
    for second in range(600):
        loud = 0.9 if second % 7 else 0.0
        list(chunker.push(np.full(SAMPLE_RATE, loud, np.float32)))
        most = max(most, len(chunker._audio))
    assert most <= (MAX_CHUNK_SECONDS + LOOKAHEAD * FRAME_SECONDS + 10) * SAMPLE_RATE


SENTENCES = [(False, 5.0), (True, 9.0), (False, 0.5), (True, 9.0), (False, 5.0)]


def test_a_client_decides_what_is_speech() -> None:
    assert cut(recording(SENTENCES), asked={"threshold": 0.95}) == []
    (chunk,) = cut(recording(SENTENCES), asked={"threshold": 0.6})
    assert len(chunk.speech) == 2


@pytest.mark.parametrize("milliseconds", [0.0, 1000.0])
def test_a_client_decides_how_much_is_kept_before_speech(milliseconds: float) -> None:
    (chunk,) = cut(recording(SENTENCES), asked={"prefix_padding_ms": milliseconds})
    assert chunk.speech[0][0] - chunk.start == pytest.approx(milliseconds / 1000, abs=FRAME_SECONDS)


def test_a_client_decides_which_silence_parts_speech() -> None:
    (chunk,) = cut(recording(SENTENCES), asked={"silence_duration_ms": 700.0})
    ((start, end),) = chunk.speech
    assert end - start == pytest.approx(18.5, abs=2 * FRAME_SECONDS)


@settings(max_examples=50, deadline=None)
@given(
    parts=PARTS,
    asked=st.fixed_dictionaries({"prefix_padding_ms": st.floats(0, 5000), "silence_duration_ms": st.floats(0, 30_000)}),
)
def test_no_figure_of_a_client_makes_a_chunk_too_long(parts: list[tuple[bool, float]], asked: dict[str, float]) -> None:
    chunks = cut(recording(parts), asked=asked)
    assert all(len(chunk.audio) <= MAX_CHUNK_SECONDS * SAMPLE_RATE for chunk in chunks)
    assert all(left.end <= right.start + 1e-6 for left, right in pairwise(chunks))
