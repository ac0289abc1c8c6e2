"""What goes into the engine and what comes out. Imports nothing heavy."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from transcribe.types import DecodeOptions, Segment


class EngineError(Exception):
    """One line for the user. `broken` means that the device context is lost and the process must be restarted."""

    def __init__(self, message: str, *, broken: bool = False) -> None:
        super().__init__(message)
        self.broken = broken


@dataclass(frozen=True, eq=False)
class Chunk:
    """At most 30 s of 16 kHz mono float32 audio, decoded with its own options. `key` names it in the results."""

    key: object
    audio: npt.NDArray[np.float32]
    options: DecodeOptions


@dataclass(frozen=True)
class ChunkResult:
    """The text of a chunk. Times count from the chunk's start, segment ids from 0.

    `language` is the one asked for, or the one detected. `avg_logprob`, `compression_ratio` and `no_speech_prob` are
    those of the segment's window, as in OpenAI's Whisper; `seek` is that window's start within the chunk.
    """

    key: object
    language: str
    segments: tuple[Segment, ...]
