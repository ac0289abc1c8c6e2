"""A sentence that is said several times in one window is written as often, and nothing else is decoded again."""

import numpy as np
import pytest
from transcribe.audio.chunking import AudioChunk
from transcribe.engine import Chunk, ChunkResult
from transcribe.types import SAMPLE_RATE, DecodeOptions, Segment, Word
from transcribe.worker.pieces import Pieces

SENTENCE = " Had he married a more amiable woman, he might have been made still more respectable."
CHINESE = " 他若娶了一位更和善的女子，或許會更受人敬重，也更為可親。"
EACH, PAUSE, TIMES = 5.5, 1.0, 3
BEGAN = 60.0  # of the chunk, in seconds of the recording
SPEECH = tuple((BEGAN + at * (EACH + PAUSE), BEGAN + at * (EACH + PAUSE) + EACH) for at in range(TIMES))
WHOLE = AudioChunk(BEGAN, np.zeros(int((TIMES * (EACH + PAUSE) - PAUSE) * SAMPLE_RATE), np.float32), SPEECH)


def said(seconds: float, text: str = SENTENCE, sure: float = -0.3) -> tuple[Segment, ...]:
    word = Word(text, 0.5, 1.0, 0.9)
    return (Segment(0, 0, 0.0, seconds, text, (1,), 0.0, sure, 1.2, 0.01, words=(word,)),)


def first(chunk: AudioChunk, segments: tuple[Segment, ...]) -> tuple[Pieces, list[Chunk], ChunkResult | None]:
    """What follows from the result of a chunk."""
    pieces = Pieces(DecodeOptions(language=None, words=True), {})
    (piece,) = pieces.begin(7, chunk, "en")
    return pieces, *pieces.take(ChunkResult(piece.key, "en", segments))


def second(pieces: Pieces, following: list[Chunk], *, text: str = SENTENCE, sure: float = -0.3) -> ChunkResult:
    """The chunk's result, once what follows is decoded."""
    results = [
        pieces.take(ChunkResult(piece.key, "en", said(len(piece.audio) / SAMPLE_RATE, text, sure)))
        for piece in following
    ]
    assert all(more == [] for more, _ in results)
    *early, (_, found) = results
    assert all(whole is None for _, whole in early)
    assert found is not None
    return found


def test_what_was_written_once_is_heard_again_by_its_pauses() -> None:
    pieces, following, found = first(WHOLE, said(18.5))
    assert found is None
    assert [round(len(piece.audio) / SAMPLE_RATE, 2) for piece in following] == [6.0, 6.5, 6.0]
    assert {piece.options.language for piece in following} == {"en"}
    whole = second(pieces, following)
    assert (whole.key, whole.language) == (7, "en")
    assert [(segment.id, segment.start, segment.text) for segment in whole.segments] == [
        (0, 0.0, SENTENCE),
        (1, 6.0, SENTENCE),
        (2, 12.5, SENTENCE),
    ]
    assert [word.start for segment in whole.segments for word in segment.words or ()] == [0.5, 6.5, 13.0]


def test_what_is_heard_again_stays_unless_it_is_more_and_sure() -> None:
    for text, sure in ((SENTENCE[:30], -0.3), (SENTENCE, -0.9)):
        pieces, following, _ = first(WHOLE, said(18.5))
        assert second(pieces, following, text=text, sure=sure).segments == said(18.5)


@pytest.mark.parametrize(
    ("seconds", "text", "sure"),
    [
        (5.5, SENTENCE, -0.3),  # as it is said
        (18.5, 3 * SENTENCE, -0.3),
        (11.5, CHINESE + CHINESE, -0.3),  # few characters, and as many syllables
        (18.5, " Thank you.", -0.3),
        (18.5, SENTENCE, -0.9),  # a guess over noise
    ],
)
def test_text_that_fits_its_speech_is_final(seconds: float, text: str, sure: float) -> None:
    _, following, found = first(WHOLE, said(seconds, text, sure))
    assert following == []
    assert found is not None
    assert found.segments == said(seconds, text, sure)


def test_speech_without_pauses_is_not_cut() -> None:
    unbroken = AudioChunk(BEGAN, WHOLE.audio, ((BEGAN, WHOLE.end),))
    assert first(unbroken, said(18.5))[1] == []
