"""Subtitles that players read, and OpenAI's JSON."""

import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transcribe import formats
from transcribe.formats import TranscriptionResult
from transcribe.subtitles import SubtitleOptions, writing
from transcribe.types import Segment, Transcript, Word


def segment(number: int, start: float, end: float, text: str, words: tuple[Word, ...] | None = None) -> Segment:
    return Segment(number, 0, start, end, text, (5, 6), 0.0, -0.25, 1.2, 0.02, words)


HELLO = segment(0, 0.0, 1.5, " Hej,", (Word(" Hej,", 0.1, 0.6, 0.5),))
LATE = segment(1, 3661.5, 363_600.0004, " a --> b\n\n & <i>c</i>\t!")
BLANK = segment(2, 363_601.0, 363_602.0, "  ")
ANSWER = TranscriptionResult(Transcript("sv", 363_602.5, (HELLO, LATE, BLANK)), coverage={"speech": 2.0})
RAW = replace(ANSWER, subtitles=SubtitleOptions(raw=True))
EMPTY = TranscriptionResult(Transcript("en", 0.0))


def test_srt() -> None:
    assert formats.srt(RAW) == (
        "1\n00:00:00,000 --> 00:00:01,500\nHej,\n\n2\n01:01:01,500 --> 101:00:00,000\na -> b & <i>c</i> !\n\n"
    )


def test_vtt() -> None:
    assert formats.vtt(RAW) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHej,\n\n"
        "01:01:01.500 --> 101:00:00.000\na --&gt; b &amp; &lt;i&gt;c&lt;/i&gt; !\n"
    )


def test_tsv() -> None:
    assert formats.tsv(ANSWER) == "start\tend\ttext\n0\t1500\tHej,\n3661500\t363600000\ta --> b & <i>c</i> !\n"


def test_nothing_was_said() -> None:
    written = {name: writer(EMPTY) for name, (_, writer) in formats.TEXT_WRITERS.items()}
    assert written == {"text": "\n", "srt": "", "vtt": "WEBVTT\n", "tsv": "start\tend\ttext\n"}
    assert formats.json(EMPTY) == {"text": "", "usage": {"type": "duration", "seconds": 0}, "languages": []}
    assert formats.verbose_json(EMPTY)["segments"] == []


LOSSY = replace(
    ANSWER,
    coverage={
        "warnings": ["The file is cut off."],
        "dropped": [
            {"start": 1.0, "end": 2.0, "reason": "repetition", "text": "x --> y"},
            {"start": 3.0, "end": 5.5, "reason": "no_text", "text": ""},
        ],
    },
)


def test_what_is_not_in_the_text_is_said_where_a_format_has_room() -> None:
    found = formats.warnings(LOSSY)
    assert [("cut off" in one, "1 repetition" in one, "2.5 s" in one) for one in found] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]
    assert formats.json(LOSSY)["warnings"] == formats.verbose_json(LOSSY)["warnings"] == found
    assert formats.vtt(LOSSY).startswith(f"WEBVTT\n\nNOTE {found[0]}\n\nNOTE ")
    assert "warnings" not in formats.json(ANSWER)


def test_json_rounds_the_seconds_up() -> None:
    assert formats.json(ANSWER)["usage"] == {"type": "duration", "seconds": 363_603}


def test_json_names_the_languages_that_were_heard() -> None:
    pieces = tuple(replace(HELLO, id=n, language=code) for n, code in enumerate((None, "en", "sv", "en")))
    assert formats.json(TranscriptionResult(Transcript("fi", 4.0, pieces)))["languages"] == [
        {"code": "fi"},
        {"code": "en"},
        {"code": "sv"},
    ]
    assert "languages" not in formats.json(replace(ANSWER, task="translate"))


def test_verbose_json_has_openais_fields() -> None:
    body = formats.verbose_json(ANSWER)
    assert (body["task"], body["language"], body["duration"]) == ("transcribe", "swedish", 363_602.5)
    assert body["coverage"] == {"speech": 2.0}
    assert "words" not in body
    assert body["segments"][0] == {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": 1.5,
        "text": " Hej,",
        "tokens": [5, 6],
        "temperature": 0.0,
        "avg_logprob": -0.25,
        "compression_ratio": 1.2,
        "no_speech_prob": 0.02,
    }


def test_words_alone_leave_out_segments() -> None:
    body = formats.verbose_json(replace(ANSWER, granularities=("word",)))
    assert "segments" not in body
    assert body["words"] == [{"word": "Hej,", "start": 0.1, "end": 0.6, "probability": 0.814}]
    assert body["warnings"], "the segments without word times must be owned up to"


def test_what_is_ours_is_shown_where_it_was_asked_for() -> None:
    hello = replace(HELLO, speaker="A", language="sv", channel=1, words=(Word(" Hej,", 0.1, 0.6, 0.5, "A"),))
    body = formats.verbose_json(TranscriptionResult(Transcript("sv", 2.0, (hello,)), granularities=("segment", "word")))
    assert body["words"] == [{"word": "Hej,", "start": 0.1, "end": 0.6, "probability": 0.814, "speaker": "A"}]
    shown = {name: body["segments"][0][name] for name in ("speaker", "language", "channel")}
    assert shown == {"speaker": "A", "language": "sv", "channel": 1}


def test_logprobs_are_those_of_words() -> None:
    body = formats.json(replace(ANSWER, logprobs=True))
    assert body["logprobs"] == [{"token": " Hej,", "logprob": math.log(0.5), "bytes": list(b" Hej,")}]


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [(0, "00:00:00.000"), (999, "00:00:00.999"), (60_000, "00:01:00.000"), (363_600_001, "101:00:00.001")],
)
def test_clock_carries(milliseconds: int, shown: str) -> None:
    assert writing.clock(milliseconds, ".") == shown


def test_subtitles_are_cut_to_be_read_and_speech_that_is_too_fast_is_owned_up_to() -> None:
    text = " What was said in one breath is cut, so that it can be read on two lines at a time, at leisure."
    slow, fast = segment(0, 0.0, 7.0, text), segment(0, 0.0, 1.0, text * 3)
    answer = replace(ANSWER, transcript=Transcript("en", 7.0, (slow,)))
    assert formats.vtt(answer) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.572\nWhat was said in one breath is cut,\n\n"
        "00:00:02.652 --> 00:00:07.000\nso that it can be read\non two lines at a time, at leisure.\n"
    )
    hurried = replace(answer, transcript=Transcript("en", 7.0, (fast,)))
    assert "NOTE The speech is too fast for" in formats.vtt(hurried)
    wide = replace(answer, subtitles=SubtitleOptions(max_line_width=100, max_line_count=1))
    assert formats.srt(wide) == f"1\n00:00:00,000 --> 00:00:07,000\n{text.strip()}\n\n"


CUE = re.compile(r"\d+\n\d{2,}:[0-5]\d:[0-5]\d,\d{3} --> \d{2,}:[0-5]\d:[0-5]\d,\d{3}(\n(?!.*-->)[^\n]+){1,2}")


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 30), st.text())))
def test_any_text_makes_well_formed_srt(pieces: list[tuple[float, float, str]]) -> None:
    segments = tuple(segment(n, start, start + length, text) for n, (start, length, text) in enumerate(pieces))
    written = formats.srt(TranscriptionResult(Transcript("sv", 1.0, segments)))
    cues = written.split("\n\n")
    assert cues.pop() == ""
    assert all(CUE.fullmatch(cue) for cue in cues)


def on_channel(number: int, channel: int, *times: tuple[float, float], words: bool = True) -> Segment:
    """What is said on a channel; a word for each of the times."""
    speaker = f"channel {channel + 1}"
    said = tuple(Word(f" w{at}", start, end, 0.9, speaker) for at, (start, end) in enumerate(times))
    whole = segment(number, times[0][0], times[-1][1], "".join(word.word for word in said), said if words else None)
    return replace(whole, channel=channel, speaker=speaker)


def test_what_is_said_while_another_channel_speaks_is_marked() -> None:
    found = (
        on_channel(0, 0, (0.0, 1.0), (1.0, 2.0), (5.0, 6.0)),  # pauses in the middle, where another answers
        on_channel(1, 1, (1.95, 2.5), (3.0, 4.0)),  # begins 0.05 s early, which times of words do not tell
        on_channel(2, 1, (5.5, 5.55), (6.0, 7.0)),  # says a short word meanwhile
        on_channel(3, 0, (8.0, 9.0)),
        on_channel(4, 0, (8.5, 9.5)),  # who speaks over themselves does not overlap
    )
    answer = TranscriptionResult(Transcript("sv", 10.0, found), granularities=("segment", "word"))
    body = formats.verbose_json(answer)
    assert [one.get("overlap", False) for one in body["segments"]] == [True, False, True, False, False]
    assert [(one["start"], one["end"]) for one in body["words"] if one.get("overlap")] == [(5.0, 6.0), (5.5, 5.55)]
    assert [one.get("overlap", False) for one in formats.diarized_json(answer)["segments"]] == [
        one.get("overlap", False) for one in formats.json(answer)["segments"]
    ]
    without = tuple(replace(one, words=None) for one in found)
    body = formats.verbose_json(replace(answer, transcript=Transcript("sv", 10.0, without)))
    assert [one.get("overlap", False) for one in body["segments"]] == [True, True, True, False, False]


def test_one_speaker_after_another_does_not_overlap() -> None:
    found = [replace(segment(n, n * 1.0, n + 1.0, " x"), speaker="AB"[n % 2]) for n in range(4)]
    body = formats.diarized_json(TranscriptionResult(Transcript("sv", 4.0, tuple(found))))
    assert not [one for one in body["segments"] if "overlap" in one]
