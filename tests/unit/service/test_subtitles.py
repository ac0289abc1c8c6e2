"""Subtitles that can be read: the rules hold for any text, and breaks fall where a reader wants them."""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transcribe.subtitles import READABLE, Cue, SubtitleOptions, broken_rules, cues, writing
from transcribe.subtitles.rules import GAP, LAG, LEAD, PAUSE, columns
from transcribe.types import Segment, Word


def segment(words: Sequence[Word], *, timed: bool = True, speaker: str | None = None) -> Segment:
    text = "".join(word.word for word in words)
    start, end = words[0].start, words[-1].end
    return Segment(0, 0, start, end, text, (), 0.0, -0.2, 1.0, 0.0, tuple(words) if timed else None, speaker)


def spoken(text: str, cps: float, *, start: float = 0.0, pause: float = 0.0, speaker: str | None = None) -> Segment:
    """The text at so many characters a second, with a pause after each sentence."""
    words, at = [], start
    for part in text.split():
        length = (len(part) + 1) / cps
        words.append(Word(f" {part}", round(at, 3), round(at + length, 3), 0.9))
        at += length + (pause if part[-1] == "." else 0.0)
    return segment(words, speaker=speaker)


def shown(segments: Sequence[Segment], language: str = "en", options: SubtitleOptions = READABLE) -> list[list[str]]:
    return [cue.texts for cue in cues(segments, language, options)]


def bare(text: str) -> str:
    return "".join(text.split())


VOCABULARY = ("I", "a", "of", "and", "printing,", "letters.", "through", "Netherlands", "considered", "forty-two?")


def test_an_hour_of_speech_breaks_no_rule() -> None:
    chance, segments, at = random.Random(7), list[Segment](), 0.0
    while at < 3600:
        text = " ".join(chance.choices(VOCABULARY, k=chance.randint(1, 30)))
        cps = chance.uniform(9, 19)  # some of it faster than it can be read, with pauses to make up for it
        segments.append(spoken(text, cps, start=at, pause=chance.choice((0.1, 0.4, 1.0))))
        at = segments[-1].end + chance.choice((0.3, 0.6, 3.0))
    found = cues(segments, "en", READABLE)
    assert broken_rules(found, READABLE) == []
    assert bare("".join("".join(cue.texts) for cue in found)) == bare("".join(one.text for one in segments))
    for cue in found:
        first, last = cue.lines[0][0], cue.lines[-1][-1]
        assert first.start - LEAD <= cue.start
        assert cue.end <= last.end + LAG
        assert all(b.start - a.end <= PAUSE for line in cue.lines for a, b in pairwise(line))


def test_channels_that_speak_at_once_have_subtitles_at_once() -> None:
    long = " ".join(["Nobody waits for the other here,"] * 8) + " never."
    segments = []
    for number in range(4):
        for channel in range(2):
            one = spoken(long, 14.0, start=number * 20.0 + 0.3 * channel, speaker=f"channel {channel + 1}")
            segments.append(replace(one, channel=channel))
    found = cues(segments, "en", READABLE, named=True)
    assert [cue.start for cue in found] == sorted(cue.start for cue in found)
    assert broken_rules(found, READABLE) == []
    for channel in range(2):
        own = [replace(one, channel=None) for one in segments if one.channel == channel]
        mine = [cue for cue in found if cue.channel == channel]
        alone = cues(own, "en", READABLE)
        assert abs(mine[0].start - alone[0].start) <= LEAD
        assert sum(text.startswith(f"channel {channel + 1}: ") for cue in mine for text in cue.texts) == 4
        assert all(cue.end <= cue.lines[-1][-1].end + LAG for cue in mine)
    assert any(a.end > b.start for a, b in pairwise(found))


words = st.builds(
    lambda text, space, length, gap: (f" {text}" if space else text, length, gap),
    st.text(min_size=1, max_size=60).filter(lambda text: text.split()),
    st.booleans(),
    st.floats(0, 4),
    st.sampled_from((0.0, 0.0, 0.0, 0.3, 2.0)),
)
some_options = st.builds(SubtitleOptions, st.integers(10, 200), st.integers(1, 4), st.floats(5, 60))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(words, min_size=1, max_size=20), max_size=6), some_options, st.booleans())
def test_any_text_is_whole_in_order_and_within_its_lines(
    spoken_words: list[list[tuple[str, float, float]]], options: SubtitleOptions, timed: bool
) -> None:
    segments, at = [], 0.0
    for group in spoken_words:
        placed = []
        for text, length, gap in group:
            placed.append(Word(text, at + gap, at + gap + length, 0.5))
            at += gap + length
        segments.append(segment(placed, timed=timed))
    found = cues(segments, "sv", options)
    whole = "".join(one for cue in found for one in cue.texts)
    assert bare(whole) == bare("".join(one.text for one in segments))
    rules = {one.rule for one in broken_rules(found, options)}
    assert rules <= {"too fast", "too short"}, "only speech that is too fast may break rules, and only these two"
    assert all(b.start >= a.end + GAP for a, b in pairwise(found))


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Hello there.", "en", [["Hello there."]]),
        (
            "It was the best of times and it was the worst of times.",
            "en",
            [["It was the best of times", "and it was the worst of times."]],
        ),
        (
            "Han gick hem till sin mamma för att hämta den gamla cykeln.",
            "sv",
            [["Han gick hem till sin mamma", "för att hämta den gamla cykeln."]],
        ),
        (  # no word alone on a line
            "He gave the answer that they all wanted, enthusiastically",
            "en",
            [["He gave the answer", "that they all wanted, enthusiastically"]],
        ),
        (  # an abbreviation ends no sentence
            "This afternoon she was visited by a Mr. Jones who sells umbrellas.",
            "en",
            [["This afternoon she was visited", "by a Mr. Jones who sells umbrellas."]],
        ),
        ("x" * 100, "en", None),
        ("今日はとても天気がいいので、公園を散歩してから本屋に行きました。", "ja", None),
        ("ในวันนี้อากาศดีมากเราจึงไปเดินเล่นในสวนสาธารณะกันทั้งครอบครัวครับ", "th", None),
        ("هل ذهبت إلى المدرسة اليوم؟ نعم، ذهبت مع أخي الصغير إلى المدرسة.", "ar", None),
    ],
)
def test_breaks(text: str, language: str, expected: list[list[str]] | None) -> None:
    slow = Segment(0, 0, 0.0, 7.0, f" {text}", (), 0.0, -0.2, 1.0, 0.0)
    found = shown([slow], language)
    assert bare("".join("".join(lines) for lines in found)) == bare(text)
    assert all(columns(line) <= 42 and line[0] not in "、。，؟،ั้" for lines in found for line in lines), found
    if expected is not None:
        assert found == expected


def test_a_change_of_speaker_and_a_long_pause_end_a_subtitle() -> None:
    said = [
        spoken("Are you there?", 12, speaker="A"),
        spoken("Yes I am.", 12, start=1.3, speaker="B"),
        spoken("Good.", 12, start=6.0, speaker="B"),
    ]
    assert shown(said) == [["Are you there?"], ["Yes I am."], ["Good."]]
    named = cues(said, "en", READABLE, named=True)
    assert [cue.texts for cue in named] == [["A: Are you there?"], ["B: Yes I am."], ["Good."]]
    assert writing.plain(cues(said, "en", READABLE)[1]) == ["<v B>Yes I am."]


def times(said: Sequence[Segment]) -> list[tuple[int, int]]:
    return [(cue.start, cue.end) for cue in cues(said, "en", READABLE)]


def test_fast_speech_is_given_the_time_around_it() -> None:
    fast = "We had no idea where they had gone that night."  # 46 characters, 2.71 s
    after_silence = times([spoken(fast, 30, start=10.0)])
    assert after_silence == [(10_000, 12_706)], "into the pause behind it"
    before_more = times(
        [spoken(fast, 30, start=10.0), spoken("But then we found a letter on the table.", 12, start=11.9)]
    )
    assert before_more[0] == (9_114, 11_820), "from earlier on, so that what follows is in time"
    assert before_more[1][0] == 11_900


def test_speech_that_is_always_too_fast_never_falls_far_behind() -> None:
    said = [spoken("We had no idea where they had gone. " * 200, 25)]
    found = cues(said, "en", READABLE)
    assert max(cue.end - cue.lines[-1][-1].end for cue in found) <= LAG
    assert {one.rule for one in broken_rules(found, READABLE)} == {"too fast"}


def test_words_are_highlighted_in_time() -> None:
    (cue,) = cues([spoken("a <b> cd.", 4)], "en", READABLE)
    assert writing.highlighted(cue) == ["a<00:00:00.500> &lt;b&gt;<00:00:01.500> cd."]
    assert writing.highlighted(Cue(1600, 2600, cue.lines)) == ["a &lt;b&gt; cd."], "times lie within the subtitle"
