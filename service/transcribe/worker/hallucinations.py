"""Removes text that Whisper made up, and reports everything removed with the reason.

The thresholds for compression, probability and silence, and the second tries they lead to, are the engine's. Here are
the checks that need the recording around a segment: text that repeats itself, and the credit lines that the
model learned from subtitles and says over silence.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from transcribe.audio.chunking import AudioChunk
from transcribe.types import Segment, Word

REPEATS = 4  # a phrase this often in a row is a loop, unless it is one word or there is time to say it
WORD_REPEATS = 8  # people do say "no no no no"
SPOKEN_PACE = 20.0  # characters a second of speech: what is said again takes its time
LONGEST_PHRASE = 12  # words
SAME_SEGMENTS = 3  # the same segment this often in a row is a loop, unless each has speech of its own
NO_SPEECH = 0.6  # Whisper's own threshold for "nothing is said here"
UNSURE = -1.0  # mean log-probability, likewise
GUESSED = -1.2  # the model has tried every temperature and still guesses: many voices at once, or no language
FLAT = 7.0  # dB from a chunk's soft to its loud moments: a crowd has 4 to 6, a voice 5 dB above noise 11, alone over 18
GUESSED_FLAT = -0.7  # over such a sound the model guesses sooner
UNKNOWN = -100.0  # a figure below it is none: the model's numbers were not finite
MOMENT = 480  # samples
SMALLEST_POWER = 1e-12
BRIEF_SECONDS = 1.0  # of speech in all: a word over such a sound is a guess sooner
LITTLE_SPEECH = 0.35  # of a segment's time: below it a credit line is an invention
HASTE = 25.0  # characters a second: nobody is so polite so quickly
IMPOSSIBLE = 45.0  # nobody says anything so quickly
ONSET_SECONDS = 0.1  # of speech that the detector may have missed
MIN_UNCOVERED_SECONDS = 1.0  # speech without text that is shorter is the detector's or the timing's slack

# Said by Whisper where nobody speaks: what stood in the subtitles it was trained on. Compared in lower case without
# punctuation, against the whole segment. The first kind nobody ever says; the second people do say.
CREDITS = re.compile(
    r"(undertexter|undertextning|subtitles|textning|översättning|transcription|transcribed|captions?|subs)"
    r"( \w+){0,3} (by|av|från|from) .*"
    r"|(svensktextning|undertexter|undertextning) nu.*"
    r"|.*(amara ?org|btistudios|castingwords|otter ai|zeoranger).*|copyright .*"
    r"|www \w+ (com|se|nu|org|tv).*|textning .{0,40}"
)
POLITE = re.compile(
    r"(thanks?( you)?( so much| very much)?( (all|everyone))?( for (watching|listening|your attention))?)"
    r"|(please )?(like and )?subscribe.*|see you (in the )?next (time|video).*|bye( bye)*|you|the end|so|okay|oh"
    r"|tack( så mycket)?( för (att (ni|du) (har )?(tittat|tittade|lyssnat|lyssnade)|idag|i dag|mig|titten))?"
    r"|(glöm inte att )?prenumerera.*|vi ses( nästa gång| i nästa video)?|hej då|musik|applåder|music|applause"
)
SPACE = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Dropped:
    """Something that was heard or invented and is not in the text. Times in seconds of the recording."""

    start: float
    end: float
    reason: str  # repetition | no_speech | credit_line | prompt | too_fast | unintelligible | no_text
    text: str = ""
    channel: int | None = None  # where each is heard by itself


def remove_hallucinations(
    segments: Sequence[Segment], chunk: AudioChunk, previous: Sequence[str], *prompts: str
) -> tuple[list[Segment], list[Dropped]]:
    """The segments that stay, some of them shortened, and what went. `previous` holds the last kept texts, `prompts`
    are the texts that the model was given to read before."""
    kept: list[Segment] = []
    dropped: list[Dropped] = []
    recent = [plain(text) for text in previous]
    for segment in segments:
        reason = rejection(segment, chunk, *prompts) or repeated(segment, recent, chunk, kept[-1:])
        if reason:
            dropped.append(Dropped(segment.start, segment.end, reason, segment.text.strip()))
            continue
        shorter = segment if has_time(segment, chunk) else without_loop(segment)
        if shorter is not segment:
            gone = segment.text.strip()[len(shorter.text.strip()) :].strip()
            dropped.append(Dropped(shorter.end, segment.end, "repetition", gone))
        kept.append(shorter)
        recent.append(plain(shorter.text))
    return kept, dropped


def rejection(segment: Segment, chunk: AudioChunk, *prompts: str) -> str:
    """Why the segment cannot have been said, or ''."""
    text = plain(segment.text)
    length = max(segment.end - segment.start, 0.1)
    share = overlap(chunk.speech, segment.start, segment.end) / length
    pace = len(text) / (chunk.speech_seconds + ONSET_SECONDS)  # if all that is spoken around it were this text
    doubtful = segment.no_speech_prob > NO_SPEECH or segment.avg_logprob < UNSURE
    echoes = share == 0 or pace > HASTE
    echo = any(f" {text} " in f" {plain(prompt)} " for prompt in prompts)
    credit = CREDITS.fullmatch(text) and (share < LITTLE_SPEECH or doubtful)
    polite = POLITE.fullmatch(text) and (echoes or (share < LITTLE_SPEECH and doubtful))
    guessed = UNSURE if chunk.speech_seconds < BRIEF_SECONDS else GUESSED
    if segment.avg_logprob < GUESSED_FLAT and dynamics(chunk.audio) < FLAT:
        guessed = GUESSED_FLAT
    reasons = (
        ("no_speech", not text),
        ("credit_line", credit or polite),
        ("prompt", echo and (echoes or doubtful)),
        ("too_fast", share > 0 and pace > IMPOSSIBLE),
        ("no_speech", share == 0 and doubtful),
        ("unintelligible", UNKNOWN < segment.avg_logprob < guessed),
    )
    return next((reason for reason, holds in reasons if holds), "")


def dynamics(audio: NDArray[np.float32]) -> float:
    """dB between the soft moments of a sound (the 15th percentile of the power of 30 ms) and its loud ones (the 95th):
    a voice pauses between its words, a crowd does not."""
    frames = audio[: len(audio) // MOMENT * MOMENT].reshape(-1, MOMENT)
    if not len(frames):
        return 0.0
    soft, loud = np.percentile(np.square(frames).mean(1) + SMALLEST_POWER, (15, 95))
    return float(10 * np.log10(loud / soft))


def repeated(segment: Segment, recent: Sequence[str], chunk: AudioChunk, before: Sequence[Segment] = ()) -> str:
    """'repetition' if the segment only says again what those before it said, without speech of its own; or ''.

    `before` is the segment before it in the chunk, if there is one. A speaker who says a sentence again pauses first,
    so that speech begins anew between the middle of the one and the middle of the other.
    """
    last = list(recent[-(SAME_SEGMENTS - 1) :])
    if len(last) < SAME_SEGMENTS - 1 or set(last) != {plain(segment.text)}:
        return ""
    middle = (segment.start + segment.end) / 2
    earliest = (before[-1].start + before[-1].end) / 2 if before else chunk.start
    begins = any(earliest <= start <= middle for start, _ in chunk.speech)
    return "" if begins and has_time(segment, chunk) else "repetition"


def has_time(segment: Segment, chunk: AudioChunk) -> bool:
    """Whether the speech that the segment covers is long enough to say all of its text."""
    spoken = overlap(chunk.speech, segment.start, segment.end)
    return len(plain(segment.text)) <= SPOKEN_PACE * spoken


def without_loop(segment: Segment) -> Segment:
    """The segment with a phrase that repeats without end said once; the segment itself if there is none."""
    parts = segment.text.split()
    words = [plain(part) for part in parts]
    found = find_loop(words)
    if found is None:
        return segment
    first, size, count = found
    gone = slice(first + size, first + size * count)
    del parts[gone]
    lead = " " if segment.text.startswith(" ") else ""
    text = lead + " ".join(parts)
    if segment.words is None or len(segment.words) != len(words):
        share = len(parts) / len(words)
        return replace(segment, text=text, end=segment.start + (segment.end - segment.start) * share, words=None)
    kept: list[Word] = list(segment.words)
    del kept[gone]
    return replace(segment, text=text, end=kept[-1].end, words=tuple(kept))


def find_loop(words: Sequence[str]) -> tuple[int, int, int] | None:
    """The first phrase that follows itself too often: where it begins, its words, how often it is said; or None."""
    for first in range(len(words)):
        for size in range(1, min(LONGEST_PHRASE, (len(words) - first) // 2) + 1):
            count = 1
            while list(words[first + count * size : first + (count + 1) * size]) == list(words[first : first + size]):
                count += 1
            if count >= (WORD_REPEATS if size == 1 else REPEATS):
                return first, size, count
    return None


def speech_without_text(segments: Sequence[Segment], chunk: AudioChunk) -> list[Dropped]:
    """Stretches of speech in the chunk that no segment covers."""
    found = []
    for start, until in chunk.speech:
        at, end = start, min(until, chunk.end)  # the detector's last frame reaches beyond the recording
        for segment in segments:
            if segment.end > at and segment.start < end:
                if segment.start - at >= MIN_UNCOVERED_SECONDS:
                    found.append(Dropped(at, segment.start, "no_text"))
                at = max(at, segment.end)
        if end - at >= MIN_UNCOVERED_SECONDS:
            found.append(Dropped(at, end, "no_text"))
    return found


def overlap(spans: Sequence[tuple[float, float]], start: float, end: float) -> float:
    """Seconds of `spans` between start and end."""
    return sum(max(0.0, min(right, end) - max(left, start)) for left, right in spans)


def plain(text: str) -> str:
    """Lower case, punctuation as single spaces."""
    return SPACE.sub(" ", text.casefold()).strip()
