"""The state of chunks while they are decoded."""

from collections.abc import Generator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from transcribe.engine.chunks import Chunk
from transcribe.engine.decode.sampling import SamplerState
from transcribe.types import SAMPLE_RATE, DecodeOptions, Segment

TEMPERATURE_STEP = 0.2
MAX_TEMPERATURE = 1.0
RECENT = 8  # steps whose choices are kept on the device, so that they need not be fetched one by one


@dataclass(eq=False)
class DecodeRequest:
    """A chunk that is being decoded, window by window, and its segments so far."""

    chunk: Chunk
    offset: int = 0  # samples that are already transcribed
    language: str | None = None
    heard: dict[str, float] = field(default_factory=dict)  # of languages, the logarithms of their probabilities
    whole_window: bool = False  # pad with silence to 30 s, as in the model's training
    segments: list[Segment] = field(default_factory=list)
    encoding: Generator[None, None, Tensor] | None = None  # of its window, where that has begun and is not done

    @property
    def audio(self) -> npt.NDArray[np.float32]:
        return self.chunk.audio[self.offset :]

    @property
    def options(self) -> DecodeOptions:
        return self.chunk.options

    @property
    def seconds(self) -> float:
        return len(self.audio) / SAMPLE_RATE


@dataclass(frozen=True, eq=False)
class Attempt:
    """A text decoded at some temperature. The larger `trust`, the better."""

    trust: tuple[bool, float]
    temperature: float
    tokens: list[int]
    logprobs: list[float]
    attention: Tensor | None  # of its tokens, where words are wanted


@dataclass(eq=False)
class DecodeSequence:
    """A window of a request in one row of the decoder's batch."""

    request: DecodeRequest
    prefix: list[int]  # prompt and opening
    temperature: float
    no_speech_prob: float = 0.0
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    complete: bool = False  # the model ended the text itself
    best: Attempt | None = None  # of the attempts so far, none of which was good
    attention: Tensor | None = None  # of an earlier attempt that was returned to

    @property
    def length(self) -> int:
        """Tokens that the decoder has seen or is about to see."""
        return len(self.prefix) + len(self.tokens)

    def keep_best(self, trust: tuple[bool, float], attention: Tensor | None = None) -> None:
        """Keeps the current attempt if it is the best so far."""
        if self.best is None or trust > self.best.trust:
            self.best = Attempt(trust, self.temperature, self.tokens, self.logprobs, attention)

    def restore_best(self) -> None:
        """Returns to the best attempt: the last one had the highest temperature, and is often the worst."""
        if self.best is not None:
            self.temperature, self.tokens, self.logprobs = self.best.temperature, self.best.tokens, self.best.logprobs
            self.attention = self.best.attention

    def next_temperature(self) -> bool:
        """Starts over at the next temperature; false when there is none."""
        if self.temperature >= MAX_TEMPERATURE:
            return False
        self.temperature = min(round(self.temperature + TEMPERATURE_STEP, 3), MAX_TEMPERATURE)
        self.tokens, self.logprobs = [], []
        return True


@dataclass(frozen=True)
class Cursor:
    """What a step reads and updates for the rows of a batch, [rows] each."""

    tokens: Tensor  # int64: to be decoded next; after a step, what it chose
    lengths: Tensor  # int64: of the text before them
    logprobs: Tensor  # float32: of what was chosen last
    state: SamplerState
    recent: Tensor  # int32 [RECENT, 2, rows]: by the length before it, what was chosen, and its logprob's bits

    @classmethod
    def of(cls, rows: int, device: str) -> "Cursor":
        zeros = torch.zeros(2, rows, dtype=torch.int64, device=device)
        recent = torch.zeros(RECENT, 2, rows, dtype=torch.int32, device=device)
        return cls(zeros[0], zeros[1], torch.zeros(rows, device=device), SamplerState.of(rows, device), recent)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.tokens, self.lengths, self.logprobs, *self.state.tensors

    def move(self, source: int, target: int) -> None:
        for tensor in self.tensors:
            tensor[target] = tensor[source]
