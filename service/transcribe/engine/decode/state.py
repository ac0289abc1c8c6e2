"""The state of chunks while they are decoded."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from transcribe.engine.chunks import Chunk
from transcribe.types import SAMPLE_RATE, DecodeOptions, Segment

TEMPERATURE_STEP = 0.2
MAX_TEMPERATURE = 1.0


@dataclass(eq=False)
class Task:
    """A chunk on its way: what is still to be heard, and what was said so far."""

    chunk: Chunk
    offset: int = 0  # samples that are already transcribed
    language: str | None = None
    whole_window: bool = False  # hear it with silence up to 30 s, as the model was trained
    segments: list[Segment] = field(default_factory=list)

    @property
    def audio(self) -> npt.NDArray[np.float32]:
        return self.chunk.audio[self.offset :]

    @property
    def options(self) -> DecodeOptions:
        return self.chunk.options

    @property
    def seconds(self) -> float:
        return len(self.audio) / SAMPLE_RATE


@dataclass(frozen=True)
class Attempt:
    """A text that the model gave at a temperature, and how far it can be trusted: more is better."""

    trust: tuple[bool, float]
    temperature: float
    tokens: list[int]
    logprobs: list[float]


@dataclass(eq=False)
class Row:
    """A window of a task in one row of the decoder's batch."""

    task: Task
    prefix: list[int]  # prompt and opening
    temperature: float
    no_speech_prob: float = 0.0
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    complete: bool = False  # the model ended the text itself
    best: Attempt | None = None  # of the attempts so far, none of which was good

    @property
    def length(self) -> int:
        """Tokens that the decoder has seen or is about to see."""
        return len(self.prefix) + len(self.tokens)

    def remember(self, trust: tuple[bool, float]) -> None:
        """Keeps the present attempt if it is the best so far."""
        if self.best is None or trust > self.best.trust:
            self.best = Attempt(trust, self.temperature, self.tokens, self.logprobs)

    def settle(self) -> None:
        """Goes back to the best attempt: the last one is the warmest, and often the wildest."""
        if self.best is not None:
            self.temperature, self.tokens, self.logprobs = self.best.temperature, self.best.tokens, self.best.logprobs

    def warmer(self) -> bool:
        """Starts over at the next temperature; false when there is none."""
        if self.temperature >= MAX_TEMPERATURE:
            return False
        self.temperature = min(round(self.temperature + TEMPERATURE_STEP, 3), MAX_TEMPERATURE)
        self.tokens, self.logprobs = [], []
        return True
