"""The voices of one recording: heard while it is cut into chunks, told apart when all of it was heard.

Nothing of it is stored. An attempt that goes on where another stopped decodes the recording from its start anyway, and
hears the voices of that part again, which takes a tenth of the time that its text took.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from transcribe.audio.chunking import AudioChunk
from transcribe.audio.errors import AudioError
from transcribe.audio.recording import Recording
from transcribe.audio.vad import Vad
from transcribe.config import ServiceConfig
from transcribe.jobs import uploads
from transcribe.jobs.models import Job
from transcribe.speakers.network import SpeakerNetwork
from transcribe.speakers.track import Track, tell_apart
from transcribe.speakers.windows import Voices, hear
from transcribe.types import DecodeOptions, SpeakerOptions

LEAST_SECONDS = 1.0  # of speech in the recording of a known voice
MOST_SECONDS = 60.0  # of it that are listened to
CHANNELS_SPEAK = "Each channel was heard by itself and is its own speaker; voices within one were not told apart."
NO_MODEL = "This server cannot tell speakers apart: it has no model for that."


@dataclass(frozen=True)
class Detectors:
    """What listens to recordings beside the model: where somebody speaks, and whose voice it is, where there is a
    model for that."""

    vad: Vad
    speakers: SpeakerNetwork | None = None


class Listener:
    """Hears one recording, chunk by chunk."""

    def __init__(self, network: SpeakerNetwork, options: SpeakerOptions) -> None:
        self._network, self._options = network, options
        self._known: dict[str, Voices] = {}
        self._heard: list[Voices] = []
        self._apart = False
        self._end = 0.0  # in seconds, of what was heard

    @classmethod
    def of(
        cls, job: Job, config: ServiceConfig, detectors: Detectors, processor: AbstractContextManager[object]
    ) -> "Listener | None":
        """That of a job which asks for speakers, None for others and where channels are the speakers. `processor` is
        entered for each piece of work. Raises AudioError for a reference recording."""
        listener = cls.alone(detectors.speakers, job.options)
        if listener is None:
            return None
        for index, name in enumerate(listener._options.known_names):
            path = uploads.reference(config.temp, job.id, index)
            try:
                with Recording(path, config.limits, detectors.vad) as recording:
                    listener.learn(name, recording, processor)
            except AudioError as error:
                raise _unusable(index, error.message, error.code) from None
        return listener

    @classmethod
    def alone(cls, network: SpeakerNetwork | None, options: DecodeOptions) -> "Listener | None":
        """One that knows no voices; None where nobody asks for speakers or channels are the speakers. Raises AudioError
        if there is no network."""
        if options.speakers is None or options.channels == "separate":
            return None
        if network is None:
            raise AudioError(NO_MODEL, code="unsupported_parameter", param="speakers")
        return cls(network, options.speakers)

    def learn(self, name: str, recording: Recording, processor: AbstractContextManager[object] | None = None) -> None:
        """Listens to the recording of a known voice; enters `processor` for each piece of work. Raises AudioError, also
        where too little is said in it."""
        heard: list[Voices] = []
        steps = iter(recording)
        while recording.seconds <= MOST_SECONDS:
            with processor or nullcontext():  # for a step at a time: other recordings have their turns between
                if (chunks := next(steps, None)) is None:
                    break
                heard += [hear(self._network, chunk) for chunk in chunks]
        voices = Voices.joined(heard)
        if sum(end - start for start, end in voices.spans) < LEAST_SECONDS:
            raise AudioError(f"there is less than {LEAST_SECONDS:.0f} s of speech in it", code="no_speech")
        self._known[name] = voices

    def hear(self, chunks: Iterable[AudioChunk]) -> None:
        """Listens to the next chunks; where channels are heard each by itself, they are the speakers."""
        for chunk in chunks:
            self._apart = self._apart or chunk.channel is not None
            if not self._apart:
                self._heard.append(hear(self._network, chunk))
                self._end = chunk.end

    def track(self) -> Track | None:
        """Who speaks when in what was heard; None where the channels say that."""
        if self._apart:
            return None
        return replace(tell_apart(Voices.joined(self._heard), self._options, self._known), end=self._end)


def warnings(recording: Recording, options: DecodeOptions) -> list[str]:
    """The recording's, and what there is to say of its speakers."""
    apart = options.channels == "separate" or recording.channels not in (None, 1)
    return recording.warnings + ([CHANNELS_SPEAK] if apart and options.speakers else [])


def _unusable(index: int, reason: str, code: str) -> AudioError:
    param = f"known_speaker_references[{index}]"
    return AudioError(f"{param} cannot be used: {reason}.", code=code, param=param)
