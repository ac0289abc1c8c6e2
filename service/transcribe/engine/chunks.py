"""What goes into the engine and what comes out. Imports nothing heavy."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from transcribe.types import DecodeOptions, Segment

BRIEF_SECONDS = 8.0  # a chunk this short may go before others: it is done in a moment


class EngineError(Exception):
    """One line for the user. `broken` means that the device context is lost and the process must be restarted."""

    def __init__(self, message: str, *, broken: bool = False) -> None:
        super().__init__(message)
        self.broken = broken


@dataclass(frozen=True, eq=False)
class Chunk:
    """At most 30 s of 16 kHz mono float32 audio, decoded with its own options. `key` names it in the results. Of a
    chunk that is only to `listen` to, the language is wanted and no text. One that goes `ahead` is done before all
    others that do not."""

    key: object
    audio: npt.NDArray[np.float32]
    options: DecodeOptions
    listen: bool = False
    ahead: bool = False


@dataclass(frozen=True)
class ChunkResult:
    """The text of a chunk. Times count from the chunk's start, segment ids from 0.

    `language` is the one asked for, or the one detected. `avg_logprob`, `compression_ratio` and `no_speech_prob` are
    those of the segment's window, as in OpenAI's Whisper; `seek` is that window's start within the chunk. `heard` has
    the natural logarithm of each possible language's probability, for a chunk that was listened to.
    """

    key: object
    language: str
    segments: tuple[Segment, ...] = ()
    heard: Mapping[str, float] = field(default_factory=dict)
