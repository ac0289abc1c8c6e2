"""Cuts a stream of audio into chunks of at most 30 s, at the silences that part it best.

Whisper hears a window as a whole, so a chunk is one unbroken stretch of the recording: short pauses stay in it, and a
time in the recording is the chunk's start plus the time within. Only silence longer than GAP is left out; every frame
of speech lies in exactly one chunk.
"""

import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from transcribe.audio import cores
from transcribe.audio.level import Leveller
from transcribe.types import MAX_CHUNK_SECONDS, SAMPLE_RATE

FRAME = 512  # samples that the detector judges at a time
FRAME_SECONDS = FRAME / SAMPLE_RATE
ENTER, LEAVE = 0.5, 0.35  # speech begins above the one and ends below the other: Silero's own choice


def _frames(seconds: float) -> int:
    return int(seconds / FRAME_SECONDS)


GAP = _frames(2.0)  # longer silence parts chunks whatever their length
PAD = _frames(0.4)  # kept around speech: onsets are softer than what the detector hears
SHORTEST = _frames(12.0)  # where the search for a cut begins
TAIL = _frames(6.0)  # what a cut leaves at least: a lone word is heard worse than a sentence
LOOKAHEAD = _frames(10.0)  # how much is heard beyond a full window before it is cut
SOON = 60.0  # seconds of a recording that are judged as they come, for the first chunk's sake
TOGETHER = 4  # of the leveller's blocks that are judged at once later


class VadError(Exception):
    """The speech detector cannot be loaded; the message is one line."""


class Detector(Protocol):
    """What `vad.VadStream` is: speech probabilities, one a frame, of what was pushed so far."""

    def push(self, block: NDArray[np.float32]) -> NDArray[np.float32]: ...
    def flush(self) -> NDArray[np.float32]: ...


class Vad(Protocol):
    """What `vad.Vad` is: makes a detector for each recording."""

    def stream(self) -> Detector: ...


@dataclass(frozen=True)
class VadOptions:
    """How speech is told from silence: the detector's probability at which it begins and below which it ends, the
    frames kept around it, and how short (in frames) a silence is none."""

    enter: float = ENTER
    leave: float = LEAVE
    pad: int = PAD
    pause: int = 0

    @classmethod
    def of(cls, asked: Mapping[str, float] | None) -> "VadOptions":
        """By the figures of OpenAI's server_vad: `threshold`, `prefix_padding_ms`, `silence_duration_ms`, those that
        were given."""
        asked = asked or {}
        enter = asked.get("threshold", ENTER)
        pad = _frames(asked["prefix_padding_ms"] / 1000) if "prefix_padding_ms" in asked else PAD
        pause = _frames(asked.get("silence_duration_ms", 0.0) / 1000)
        return cls(enter, min(max(enter - (ENTER - LEAVE), 0.01), enter), pad, pause)


@dataclass(frozen=True)
class AudioChunk:
    """A chunk of the recording: `start` in seconds, mono 16 kHz float32 samples, and where there is speech; and the
    channel, from 0, where each is heard by itself."""

    start: float
    audio: NDArray[np.float32]
    speech: tuple[tuple[float, float], ...]  # (start, end) in seconds from the recording's start, in order
    channel: int | None = None

    @property
    def end(self) -> float:
        """In seconds from the recording's start."""
        return self.start + len(self.audio) / SAMPLE_RATE

    @property
    def speech_seconds(self) -> float:
        """How much of it is speech."""
        return sum(end - start for start, end in self.speech)


@dataclass(frozen=True)
class Cut:
    """Frames `first` to `end` become a chunk, and the search goes on at `resume`."""

    first: int
    end: int
    resume: int


class Samples:
    """What was heard and is not in a chunk yet: blocks, which are copied once, when a chunk is made of them."""

    def __init__(self) -> None:
        self._blocks: deque[NDArray[np.float32]] = deque()
        self._dropped = 0  # samples of the first block
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, block: NDArray[np.float32]) -> None:
        """Adds it at the end; it must not be changed any more."""
        self._blocks.append(block)
        self._length += len(block)

    def drop(self, count: int) -> None:
        """Forgets so many at the beginning, or all if there are fewer."""
        self._length = max(0, self._length - count)
        self._dropped += count
        while self._blocks and self._dropped >= len(self._blocks[0]):
            self._dropped -= len(self._blocks.popleft())
        if not self._blocks:
            self._dropped = 0

    def part(self, first: int, end: int) -> NDArray[np.float32]:
        """A copy of those from `first` to before `end`; shorter where there are no more."""
        found = [np.zeros(0, np.float32)]
        at = -self._dropped
        for block in self._blocks:
            found.append(block[max(first - at, 0) : max(end - at, 0)])
            at += len(block)
        return np.concatenate(found)


class Chunker:
    """Feed it blocks with `push` and end with `flush`; both give the chunks that are ready, in order.

    However long the recording is, it keeps little more than one window and LOOKAHEAD of it.
    """

    def __init__(
        self, detector: Detector, *, longest: float = MAX_CHUNK_SECONDS, options: VadOptions | None = None
    ) -> None:
        self._detector = detector
        self._options = options or VadOptions()
        self._window = _frames(longest)
        self._leveller = Leveller()
        self._waiting: list[NDArray[np.float32]] = []  # levelled blocks that are not judged yet
        # Those that are being judged, and what gives their scores.
        self._judging: tuple[list[NDArray[np.float32]], Callable[[], NDArray[np.float32]]] | None = None
        self._audio = Samples()
        self._speech = np.zeros(0, np.bool_)  # a label for each complete frame of _audio
        self._base = 0  # the frame of the recording that both begin with
        self._speaking = False
        self._samples = 0

    @property
    def seconds(self) -> float:
        """The length of what was pushed."""
        return self._samples / SAMPLE_RATE

    @property
    def floor(self) -> float:
        """No chunk that is still to come begins before this moment, in seconds."""
        return self._base * FRAME_SECONDS

    def push(self, block: NDArray[np.float32]) -> Iterator[AudioChunk]:
        """Takes the recording's next samples."""
        self._samples += len(block)
        self._waiting += self._leveller.push(block)
        soon = self.seconds < SOON
        if len(self._waiting) >= (1 if soon else TOGETHER):
            yield from self._judged(soon=soon)

    def flush(self) -> Iterator[AudioChunk]:
        """What is left at the end of the recording."""
        yield from self._judged(soon=True)
        for levelled in self._leveller.flush():  # one at most
            lacking = -(len(self._audio) + len(levelled)) % FRAME  # of the last frame, which is not judged by itself
            self._label(self._take(levelled, self._detector.push(np.pad(levelled, (0, lacking)))))
        self._label(self._detector.flush())
        yield from self._ready(last=True)

    def _judged(self, *, soon: bool) -> Iterator[AudioChunk]:
        """Has all that waits judged at once, which idle cores can share, and gives the chunks that are ready: unless it
        is to be soon, those by what was judged before, while the next sound is decoded and levelled."""
        yield from self._taken()
        if not (waiting := self._waiting):
            return
        self._waiting = []
        judge = functools.partial(self._detector.push, np.concatenate(waiting))
        self._judging = waiting, judge if soon else cores.beside(judge)
        if soon:
            yield from self._taken()

    def _taken(self) -> Iterator[AudioChunk]:
        """The chunks that are ready once what is being judged is: it is taken a block at a time, so that cuts do not
        depend on how much that was."""
        if self._judging is None:
            return
        (blocks, judged), self._judging = self._judging, None
        scores = judged()
        for levelled in blocks:
            scores = self._take(levelled, scores)
            yield from self._ready(last=False)

    def _take(self, levelled: NDArray[np.float32], scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Takes the next samples, and of the scores those of the frames that they complete. Returns the other ones."""
        self._audio.append(levelled)
        complete = len(self._audio) // FRAME - len(self._speech)
        self._label(scores[:complete])
        return scores[complete:]

    def _label(self, scores: NDArray[np.float32]) -> None:
        if not len(scores):
            return
        # A score between the two leaves things as they are: each frame goes by the last one that decides.
        decides = (scores > self._options.enter) | (scores <= self._options.leave)
        last = np.maximum.accumulate(np.where(decides, np.arange(len(scores)), -1))
        labels = np.where(last < 0, self._speaking, scores[last] > self._options.enter)
        self._speaking = bool(labels[-1])
        self._speech = np.concatenate([self._speech, labels])

    def _ready(self, *, last: bool) -> Iterator[AudioChunk]:
        while len(self._speech) and (cut := self._next_cut(last=last)):
            if cut.end > cut.first:
                yield self._chunk(cut.first, cut.end)
            self._audio.drop(cut.resume * FRAME)
            self._speech = self._speech[cut.resume :]
            self._base += cut.resume

    def _chunk(self, first: int, end: int) -> AudioChunk:
        audio = self._audio.part(first * FRAME, end * FRAME)  # the last frame may be short
        start = (self._base + first) * FRAME_SECONDS
        spans = _joined(_spans(self._speech[first:end]), self._options.pause)
        speech = ((start + left * FRAME_SECONDS, start + right * FRAME_SECONDS) for left, right in spans)
        return AudioChunk(start, audio, tuple(speech))

    def _next_cut(self, *, last: bool) -> Cut | None:
        """Where the next chunk lies; None if more must be heard first."""
        total, pad = len(self._speech), self._options.pad
        spans = _joined(_spans(self._speech), self._options.pause)
        if not spans:  # nothing said: keep what may be the onset of what comes
            keep = 0 if last else pad
            return Cut(0, 0, total - keep) if total > keep else None
        first = max(0, spans[0][0] - pad)
        pauses = [(left[1], right[0]) for left, right in itertools.pairwise(spans)]
        closing = next((start for start, end in pauses if end - start > GAP), None)
        if closing is None and (last or total - spans[-1][1] > GAP):
            closing = spans[-1][1]
        end = total if closing is None else min(total, closing + pad)
        if closing is not None and end - first <= self._window:
            return Cut(first, end, end)
        if closing is None and end - first <= self._window + LOOKAHEAD:
            return None
        return self._inside(first, end, pauses)

    def _inside(self, first: int, end: int, pauses: list[tuple[int, int]]) -> Cut:
        """The best cut through a stretch that is longer than a window: the longest pause.

        A fuller window is worth nothing against it: a bonus for late cuts cost 2 points of word error rate.
        """
        lower = first + min(SHORTEST, self._window // 2)
        upper = max(lower, min(first + self._window, end - TAIL))
        inside = [pause for pause in pauses if lower <= sum(pause) // 2 <= upper]
        if inside:
            start, stop = max(inside, key=lambda pause: (pause[1] - pause[0], pause))
            return Cut(first, min((start + stop) // 2, start + self._options.pad), (start + stop) // 2)
        at = self._quietest(lower, upper)
        return Cut(first, at, at)

    def _quietest(self, lower: int, upper: int) -> int:
        """Where the sound is weakest, for speech without a pause; the mean of 5 frames, so that it is between words."""
        frames = self._audio.part((lower - 2) * FRAME, (upper + 3) * FRAME).reshape(-1, FRAME)
        energy = np.convolve(np.square(frames).mean(1), np.ones(5), mode="valid")
        return lower + int(energy.argmin())


def _spans(speech: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The runs of True as (first, end)."""
    edges = np.flatnonzero(np.diff(speech.astype(np.int8), prepend=0, append=0))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]


def _joined(spans: list[tuple[int, int]], pause: int) -> list[tuple[int, int]]:
    """The runs, those that less than `pause` frames part as one."""
    joined: list[tuple[int, int]] = []
    for first, end in spans:
        if joined and first - joined[-1][1] < pause:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((first, end))
    return joined
