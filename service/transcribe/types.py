"""The values that pass between the service's parts. Times are seconds from the start of the recording."""

from dataclasses import dataclass, field

SAMPLE_RATE = 16_000  # Hz, mono, float32 in [-1, 1]: what Whisper expects
MAX_CHUNK_SECONDS = 30.0  # Whisper's window
MAX_CHANNELS = 8  # that are heard each by itself


@dataclass(frozen=True)
class Word:
    """A word with its times; `word` keeps the leading space that the tokenizer gives it. `speaker` is None unless
    speakers were asked for."""

    word: str
    start: float
    end: float
    probability: float
    speaker: str | None = None


@dataclass(frozen=True)
class Segment:
    """A piece of text as Whisper divides it, with the figures that OpenAI's verbose_json reports.

    `seek` is the start of its 30 s window, in frames of 10 ms; `compression_ratio` is
    the text's UTF-8 length over its zlib length; `avg_logprob` is the mean natural-log probability of its tokens.
    `speaker`, `language` (ISO 639-1) and `channel` (from 0) are None unless they were asked for; `corrected` is None
    unless a person has changed the text, which then has no tokens.
    """

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: tuple[Word, ...] | None = None
    speaker: str | None = None
    language: str | None = None
    channel: int | None = None
    corrected: bool | None = None


@dataclass(frozen=True)
class SpeakerOptions:
    """Whose voices to tell apart: how many there are, as far as the client knows, and the names of those of which it
    sent a reference recording each, in the same order."""

    min_speakers: int | None = None
    max_speakers: int | None = None
    known_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class DecodeOptions:
    """How to decode a recording. `language` is an ISO 639-1 code, or None to detect it, among `candidates` if
    there are any that the model knows; with `multilingual` each part of the recording has its own. `channels` says
    what becomes of a recording's channels. `speakers` is None unless speakers are to be told apart."""

    language: str | None
    task: str = "transcribe"  # or "translate"
    prompt: str = ""
    hotwords: str = ""
    temperature: float = 0.0  # where decoding starts; fallback raises it in steps of 0.2 to 1.0
    words: bool = False
    candidates: tuple[str, ...] = ()
    speakers: SpeakerOptions | None = None
    channels: str = "mix"  # into one; or "separate", or "auto": separate where different people speak on them
    multilingual: bool = False
    audio_stream: str = ""  # which of a file's: number from 1, title or language; '' for the first that speaks


@dataclass(frozen=True)
class Transcript:
    """A finished job's result."""

    language: str  # ISO 639-1
    duration: float
    segments: tuple[Segment, ...] = field(default_factory=tuple)

    @property
    def text(self) -> str:
        return "".join(segment.text for segment in self.segments).strip()
