"""A recording as chunks of speech: decoded, and cut where nobody speaks; the sound track that has speech.

Most files have one sound track. Of several the first is used, unless nobody speaks in it (recorders and editors leave
such tracks) and somebody does in a later one. What was not used is named in `warnings`.
"""

from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from transcribe.audio.chunking import AudioChunk, Chunker, Detector, VadOptions
from transcribe.audio.decoder import Decoder
from transcribe.audio.errors import AudioError, Limits
from transcribe.audio.length import sound_tracks

MAX_TRACKS = 8  # that are searched for speech
UNREADABLE = ("invalid_audio", "audio_truncated")


class Vad(Protocol):
    """What `vad.Vad` is: makes a detector for each recording."""

    def stream(self) -> Detector: ...


class Recording:
    """Iterate over `steps`, in order, and close it. Raises AudioError.

    `seconds` is how much was decoded so far, `promised` the length that the file promises, if it does. `missing` (the
    seconds that are not there) and `warnings` (a sentence each) are complete at the end.
    """

    def __init__(self, path: Path, limits: Limits, vad: Vad, options: VadOptions | None = None) -> None:
        self.seconds = 0.0
        self.promised: float | None = None
        self.missing = 0.0
        self.warnings: list[str] = []
        self._path = path
        self._limits = limits
        self._vad = vad
        self._options = options
        self._spoken = False
        self._steps = self._tracks()

    def __enter__(self) -> "Recording":
        return self

    def __exit__(self, *_: object) -> None:
        self._steps.close()

    def __iter__(self) -> Iterator[list[AudioChunk]]:
        """A list of chunks, mostly empty, for each block that was decoded."""
        return self._steps

    def _tracks(self) -> Generator[list[AudioChunk]]:
        count, readable, failure = 1, 0, None
        track = 0
        while track < min(count, MAX_TRACKS) and not self._spoken:
            try:
                with Decoder(self._path, self._limits, track=track) as decoder:
                    yield from self._decoded(decoder)
                count, readable = max(count, decoder.tracks), readable + 1
            except AudioError as error:
                if self._spoken or error.code not in UNREADABLE:
                    raise
                failure = failure or error
                count = count if track else sound_tracks(self._path, self._limits)
            track += 1
        if failure and not readable:
            raise failure
        self._name_tracks(track if self._spoken else 1, count)

    def _decoded(self, decoder: Decoder) -> Iterator[list[AudioChunk]]:
        chunker = Chunker(self._vad.stream(), options=self._options)
        for block in decoder:
            self.seconds, self.promised = max(self.seconds, decoder.seconds), decoder.promised
            yield self._noted(chunker.push(block))
        yield self._noted(chunker.flush())
        self.missing, self.warnings = decoder.missing, decoder.warnings

    def _noted(self, chunks: Iterable[AudioChunk]) -> list[AudioChunk]:
        found = list(chunks)
        self._spoken = self._spoken or bool(found)
        return found

    def _name_tracks(self, used: int, count: int) -> None:
        if count == 1:
            return
        others = [str(number) for number in range(1, count + 1) if number != used]
        listed = f"track {others[0]} was" if len(others) == 1 else f"tracks {', '.join(others)} were"
        reason = "" if used == 1 else ", as nobody speaks in those before it"
        self.warnings.append(f"Sound track {used} of {count} was transcribed{reason}; {listed} not.")
