"""Any recording that people send → blocks of mono 16 kHz float32 on the recording's own clock.

0 s is the container's start: a late start and gaps are silence. What a file promises is compared with what one track
gave, and what is missing is said in `warnings`; refused is only what holds no sound that can be decoded. The output is
read as it comes, so that hours of audio cost no more memory than seconds.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transcribe.audio import frames, joined, length, mp3, ogg, wav
from transcribe.audio.clocks import clock_of
from transcribe.audio.errors import NOT_A_RECORDING, AudioError, Limits, foreign
from transcribe.audio.ffmpeg import Ffmpeg, Span
from transcribe.audio.heads import kind_of
from transcribe.audio.mixing import Mixer, Separator
from transcribe.audio.timeline import Timeline, caught_up
from transcribe.types import SAMPLE_RATE

__all__ = ["AudioError", "Decoder", "Limits", "decode"]

HEAD_BYTES = 4096
ASKED_FIRST_BYTES = 1 << 20  # of a larger file, ffprobe tells the length before it is decoded
LOSE_QUIETLY = (b"FORM", b".snd")  # AIFF, AU: ffmpeg says nothing where one is cut off
MOST_JOINED = 100  # recordings behind the first that are heard: the file is not trusted
SILENCE_SECONDS = 10  # silence is given in blocks of this length at most
MISSING_SECONDS, MISSING_SHARE = 0.5, 0.02  # less than was promised by more than both: something is missing
DAMAGED = "The file is cut off or damaged: some of its sound may be missing."
GUESSED_SECONDS = 1.0  # a format that ffmpeg only guesses must give so much, or be MP3 frames from end to end


def decode(path: Path, limits: Limits) -> Iterator[NDArray[np.float32]]:
    """Blocks of the recording, float32 in [-1, 1], mono, 16 kHz. Raises AudioError."""
    with Decoder(path, limits) as decoder:
        yield from decoder


class Decoder:
    """A recording that is being read: iterate over it for blocks, [samples] or, unless `mixed`, [samples, channels].
    Raises AudioError.

    `track` counts the sound tracks from 0. `promised` is the duration in seconds that the header gives for it, once
    known; `seconds` is what came so far, `tracks` the number of sound tracks. At the end, `missing` is what was
    promised and is not there, in seconds, and `warnings` says what the client should know, a sentence each.
    """

    def __init__(self, path: Path, limits: Limits, *, track: int = 0, mixed: bool = True) -> None:
        self.promised: float | None = None
        self._promise: float | None = None  # the same as the header has it, whether it can be believed or not
        self.seconds = 0.0
        self.missing = 0.0
        self.warnings: list[str] = []
        self._path = path
        self._limits = limits
        self._track = track
        self._mixed = mixed
        self._mixer = Mixer(SAMPLE_RATE) if mixed else Separator()
        self._plain: wav.PlainWav | None = None
        self._ffmpeg: Ffmpeg | None = None
        self._stack = ExitStack()
        self._timeline: Timeline | None = None
        self._loses_quietly = self._contained = False
        self._skipped = self._end = 0  # bytes before the first frame, and where another recording begins

    def __enter__(self) -> "Decoder":
        try:
            size = self._path.stat().st_size
            with self._path.open("rb") as file:
                head = file.read(HEAD_BYTES)
            self._loses_quietly = head.startswith(LOSE_QUIETLY)
            self._shortfall = wav.shortfall(self._path)
            self._plain = wav.plain(self._path)
            self._open_ended = length.open_ended(self._path)
            self._promise = self._plain.seconds if self._plain else length.by_header(head) or mp3.promised(self._path)
        except (FileNotFoundError, IsADirectoryError, PermissionError) as caught:  # others pass: the disk, memory
            raise AudioError(f"the recording cannot be read ({caught.strerror})") from None
        if size == 0:
            raise AudioError("the file is empty", code="empty_audio")
        if error := foreign(head):
            raise error
        if self._shortfall == 1:
            raise AudioError("the file is cut off: all of its sound is missing", code="audio_truncated")
        if self._promise is None and size > ASKED_FIRST_BYTES:
            self._promise = length.promise(self._path, self._limits, self._track).track
        self._believe()
        if self._plain is None:
            self._contained = kind_of(head) is not None
            self._skipped = 0 if self._contained else frames.before(self._path)
            self._end = joined.runs_on(self._path)
            span = Span(self._skipped, self._end)
            self._ffmpeg = self._stack.enter_context(Ffmpeg(self._path, self._limits, self._track, span))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def tracks(self) -> int:
        return self._ffmpeg.tracks if self._ffmpeg else 1

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        yield from self._counted(self._placed(self._ffmpeg, self._skipped) if self._ffmpeg else self._monophonic())
        if not self.seconds:
            raise AudioError("the file holds no sound that can be decoded")
        self._check_guess()
        behind = self._behind()
        self._look_for_missing(behind != self._end)
        yield from self._counted(self._following(behind))

    def _counted(self, blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        for block in blocks:
            self.seconds += len(block) / SAMPLE_RATE
            self._check_length(self.seconds)
            yield block

    def _behind(self) -> int:
        """Where another recording lies that was not heard yet; 0 for none."""
        if self._promise is not None and self.seconds > self._promise + MISSING_SECONDS:
            return 0  # what was joined to it came
        complained = self._ffmpeg is not None and self._ffmpeg.complained
        return joined.behind(self._path, 0, complained=complained) or self._end

    def _following(self, begin: int) -> Iterator[NDArray[np.float32]]:
        """What was joined to the file behind its first recording, and ffmpeg does not come to by itself."""
        for _ in range(MOST_JOINED):
            if not begin:
                return
            try:
                end = joined.runs_on(self._path, begin)
                with Ffmpeg(self._path, self._limits, self._track, Span(begin, end)) as part:
                    yield from self._placed(part, begin)
                begin = joined.behind(self._path, begin, complained=part.complained) or end
            except AudioError as error:
                self.warnings.append(f"Behind this the file holds another recording, not heard: {error.message}.")
                return
            if part.found_damage and not begin:
                self.warnings.append(DAMAGED)
        if begin:
            self.warnings.append(f"Behind {MOST_JOINED + 1} recordings the file holds more, which were not heard.")

    def _believe(self) -> None:
        """Takes what the header promises for the length, unless it is more than may be and the packets deny it."""
        if (self._promise or 0.0) <= self._limits.audio_seconds:
            self.promised = self._promise
        elif self._plain or length.exceeds(self._path, self._limits, self._track):
            self._check_length(self._promise or 0.0)

    def _monophonic(self) -> Iterator[NDArray[np.float32]]:
        assert self._plain is not None
        return self._plain.blocks() if self._mixed else (block[:, None] for block in self._plain.blocks())

    def _placed(self, ffmpeg: Ffmpeg, begin: int) -> Iterator[NDArray[np.float32]]:
        timeline = self._timeline = Timeline(self._limits.audio_seconds, clock_of(self._path, begin))
        for decoded in ffmpeg.frames():
            silence, late = timeline.place(decoded.timestamp, len(decoded.samples))
            sound = caught_up(self._mixer(decoded.samples), late)
            timeline.taken(len(decoded.samples) - len(sound))
            while silence > 0:
                yield np.zeros((min(silence, SILENCE_SECONDS * SAMPLE_RATE), *sound.shape[1:]), np.float32)
                silence -= SILENCE_SECONDS * SAMPLE_RATE
            yield sound

    def _check_length(self, seconds: float) -> None:
        if seconds > self._limits.audio_seconds:
            limit = self._limits.audio_seconds
            raise AudioError(f"the recording is longer than {limit:.0f} s", code="audio_too_long", status=413)

    def _check_guess(self) -> None:
        guessed = self._ffmpeg and self.seconds < GUESSED_SECONDS and b"misdetection possible" in self._ffmpeg.log
        if guessed and not mp3.consists_of_frames(self._path.read_bytes()):
            raise AudioError(NOT_A_RECORDING)

    def _look_for_missing(self, followed: bool) -> None:
        """What the file promises and does not hold, by its own headers and packets. What another recording behind it
        makes ffmpeg complain of is no damage."""
        if 0 < self._shortfall < 1:
            missing = self.seconds * self._shortfall / (1 - self._shortfall)
        elif self._timeline and self._timeline.restarts:  # then the last timestamp, which may be the promise, is none
            missing = 0.0
        elif self._promise is None and self._ffmpeg and (self._ffmpeg.complained or self._loses_quietly):
            missing = self._lacking(length.promise(self._path, self._limits, self._track))
        else:
            missing = (self._promise or 0.0) - self.seconds
        if missing > max(MISSING_SECONDS, MISSING_SHARE * self.seconds):
            self.missing = missing
            self.warnings.append(
                f"The file is cut off or damaged: it promises {self.seconds + missing:.1f} s of sound and holds "
                f"{self.seconds:.1f} s."
            )
        elif followed:
            return
        elif loss := ogg.loss(self._path) or self._frames_lost():
            self.warnings.append(f"The file is cut off or damaged: {loss}.")
        elif self._ffmpeg and self._ffmpeg.found_damage and not (self._open_ended or self._shortfall):
            self.warnings.append(DAMAGED)

    def _frames_lost(self) -> str:
        """What a stream of bare frames lacks, whose length nothing tells, as half a sentence; or ''."""
        bare = self._ffmpeg and self._promise is None and not self._contained
        return frames.loss(self._path, self._skipped) if bare else ""

    def _lacking(self, promise: length.Promise) -> float:
        """Of a container with several streams only the last packet of all tells whether it was cut off."""
        end = promise.container if promise.track is None else promise.track
        lacking = (end or 0.0) - self.seconds
        if promise.track is None and lacking > MISSING_SECONDS:
            lacking = min(lacking, (end or 0.0) - length.last_packet(self._path, self._limits))
        return lacking
