"""Text that is too short for its speech: a sentence that is said several times in a window, the model may write once.

It does so where the pauses are short and the words the same, or a far voice repeats a near one. Heard each by itself,
the stretches between the pauses have no such likeness in their window. So they are decoded again, and what comes of
them is kept if it is clearly more, and no guess.
"""

from collections.abc import Sequence

from transcribe.audio.chunking import AudioChunk
from transcribe.engine import ChunkResult
from transcribe.types import Segment
from transcribe.worker.hallucinations import GUESSED_FLAT, overlap

SLOWEST = 9.0  # bytes a second of speech: people say 12 to 20; in bytes, since a Chinese character is a syllable
LEAST_SPEECH = 4.0  # seconds under one segment
SENTENCE = 20  # bytes: less may be a sign of noise, of which more must not be made
CLEARLY_MORE = 1.4  # times the text


def is_sparse(result: ChunkResult, chunk: AudioChunk) -> bool:
    """Whether one of the segments has too little text for the speech that it covers."""
    return any(_is_sparse(segment, chunk) for segment in result.segments)


def _is_sparse(segment: Segment, chunk: AudioChunk) -> bool:
    spoken = overlap(chunk.speech, chunk.start + segment.start, chunk.start + segment.end)
    size = _size([segment])
    return size >= SENTENCE and spoken >= LEAST_SPEECH and size < SLOWEST * spoken and _sure([segment])


def is_fuller(result: ChunkResult, than: ChunkResult) -> bool:
    """Whether the result has clearly more text, all of it sure."""
    return _sure(result.segments) and _size(result.segments) >= CLEARLY_MORE * _size(than.segments)


def _sure(segments: Sequence[Segment]) -> bool:
    return all(segment.avg_logprob >= GUESSED_FLAT for segment in segments)


def _size(segments: Sequence[Segment]) -> int:
    return sum(len(segment.text.strip().encode()) for segment in segments)
