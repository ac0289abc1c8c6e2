"""A recording as chunks of speech: decoded, and cut where nobody speaks; the sound track that has speech.

Most files have one sound track. Of several the one that the client asks for is used; otherwise the first, unless nobody
speaks in it (recorders and editors leave such tracks) and somebody does in a later one. What was not used is named in
`warnings`.

A track's channels are mixed into one, or heard each by itself. With channels="auto" the track is read twice: first to
find out which channels have a voice of their own, until they all have, or to the end.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from transcribe.audio.channels import ChannelChunker, Survey
from transcribe.audio.chunking import AudioChunk, Chunker, Vad, VadOptions
from transcribe.audio.decoder import Decoder
from transcribe.audio.errors import AudioError, Limits
from transcribe.audio.streams import audio_streams, chosen
from transcribe.types import MAX_CHANNELS

MAX_TRACKS = 8  # that are searched for speech
UNREADABLE = ("invalid_audio", "audio_truncated")


@dataclass(frozen=True)
class Hearing:
    """What of a file is heard: `channels` is mix, separate or auto; `audio_stream` a track's number, title or language,
    or '' for the first in which somebody speaks."""

    channels: str = "mix"
    audio_stream: str = ""
    vad: VadOptions | None = None


class Recording:
    """Iterate over `steps`, in order, and close it. Raises AudioError.

    `seconds` is how much was decoded so far, `promised` the length that the file promises, if it does; `channels` is
    how many are heard each by itself, or 1, once known. `missing` (the seconds that are not there) and `warnings` (a
    sentence each) are complete at the end.
    """

    def __init__(
        self,
        path: Path,
        limits: Limits,
        vad: Vad,
        hearing: Hearing | None = None,
        listening: AbstractContextManager[object] | None = None,
    ) -> None:
        """`listening` is entered whenever what was decoded is listened to."""
        self.seconds = 0.0
        self.promised: float | None = None
        self.channels: int | None = None
        self.missing = 0.0
        self.warnings: list[str] = []
        self._path = path
        self._limits = limits
        self._vad = vad
        self._hearing = hearing or Hearing()
        self._listening = listening or nullcontext()
        self._spoken = False
        self._steps = self._chosen() if self._hearing.audio_stream else self._tracks()

    def __enter__(self) -> "Recording":
        return self

    def __exit__(self, *_: object) -> None:
        self._steps.close()

    def __iter__(self) -> Iterator[list[AudioChunk]]:
        """A list of chunks, mostly empty, for each block that was decoded."""
        return self._steps

    def _chosen(self) -> Generator[list[AudioChunk]]:
        streams = audio_streams(self._path, self._limits)
        number = chosen(streams, self._hearing.audio_stream).number if streams else 1
        yield from self._heard(number - 1)

    def _tracks(self) -> Generator[list[AudioChunk]]:
        count, readable, failure = 1, 0, None
        track = 0
        while track < min(count, MAX_TRACKS) and not self._spoken:
            try:
                count = max(count, (yield from self._heard(track)))
                readable += 1
            except AudioError as error:
                if self._spoken or error.code not in UNREADABLE:
                    raise
                failure = failure or error
                count = count if track else max(1, len(audio_streams(self._path, self._limits)))
            track += 1
        if failure and not readable:
            raise failure
        self._name_tracks(track if self._spoken else 1, count)

    def _heard(self, track: int) -> Generator[list[AudioChunk], None, int]:
        """The steps of one sound track, after those in which its channels are looked at. Returns how many tracks there
        are."""
        notes: list[str] = []
        separate: Sequence[int] | None = None
        if self._hearing.channels == "auto":
            separate = yield from self._surveyed(track, notes)
        apart = separate is not None or self._hearing.channels == "separate"
        with Decoder(self._path, self._limits, track=track, mixed=not apart) as decoder:
            chunker: Chunker | ChannelChunker | None = None
            for block in decoder:
                self.seconds, self.promised = max(self.seconds, decoder.seconds), decoder.promised
                chunker = chunker or self._chunker(separate, block.shape[1] if apart else 0)
                yield self._noted(chunker.push(block))
            if chunker is not None:
                yield self._noted(chunker.flush())
            self.missing, self.warnings = decoder.missing, decoder.warnings + notes
            return decoder.tracks

    def _chunker(self, separate: Sequence[int] | None, channels: int) -> Chunker | ChannelChunker:
        options = self._hearing.vad
        if not channels:
            self.channels = 1
            return Chunker(self._vad.stream(), options=options)
        if channels > MAX_CHANNELS:
            message = f"the sound has {channels} channels; up to {MAX_CHANNELS} can be heard each by itself"
            raise AudioError(message, code="unsupported_channels", param="channels")
        heard = range(channels) if separate is None else separate
        self.channels = len(heard)
        return ChannelChunker(self._vad, heard, options)

    def _surveyed(self, track: int, notes: list[str]) -> Generator[list[AudioChunk], None, Sequence[int] | None]:
        """The channels that have a voice of their own, or None if fewer than two do."""
        survey, count = None, 1
        with Decoder(self._path, self._limits, track=track, mixed=False) as decoder:
            for block in decoder:
                count = block.shape[1]
                if not 1 < count <= MAX_CHANNELS:
                    break
                survey = survey or Survey(self._vad, count)
                survey.push(block)
                if survey.settled:
                    break
                yield []
        if count > MAX_CHANNELS:
            notes.append(f"The {count} channels were mixed: up to {MAX_CHANNELS} can be heard each by itself.")
        if survey is None:
            return None
        survey.flush()
        own = survey.own
        if len(own) < 2:
            return None
        if others := [str(channel + 1) for channel in range(count) if channel not in own]:
            notes.append(
                f"Of {count} channels, these have no voice of their own and were not heard: {', '.join(others)}."
            )
        return own

    def _noted(self, chunks: Iterable[AudioChunk]) -> list[AudioChunk]:
        with self._listening:
            found = list(chunks)
        self._spoken = self._spoken or bool(found)
        return found

    def _name_tracks(self, used: int, count: int) -> None:
        if count == 1:
            return
        known = {stream.number: str(stream) for stream in audio_streams(self._path, self._limits)}
        others = [known.get(number, str(number)) for number in range(1, count + 1) if number != used]
        listed = f"track {others[0]} was" if len(others) == 1 else f"tracks {', '.join(others)} were"
        reason = "" if used == 1 else ", as nobody speaks in those before it"
        self.warnings.append(
            f"Sound track {used} of {count} was transcribed{reason}; {listed} not. audio_stream chooses another."
        )
