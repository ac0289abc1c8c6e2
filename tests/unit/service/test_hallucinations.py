"""Inventions are taken out, real speech is not, and everything taken out is reported with its reason."""

from dataclasses import replace

import numpy as np
import pytest
from transcribe.audio.chunking import AudioChunk
from transcribe.engine import ChunkResult
from transcribe.types import SAMPLE_RATE, Segment, Word
from transcribe.worker.assembly import Assembly, Coverage
from transcribe.worker.hallucinations import (
    find_loop,
    rejection,
    remove_hallucinations,
    speech_without_text,
    without_loop,
)

SURE = Segment(0, 0, 1.0, 3.0, " Hej.", (1,), 0.0, -0.2, 1.0, 0.05)
UNSURE = replace(SURE, avg_logprob=-1.1, no_speech_prob=0.9)
SILENCE: tuple[tuple[float, float], ...] = ()
SPEECH = ((0.0, 10.0),)


def chunk(speech: tuple[tuple[float, float], ...], start: float = 0.0, seconds: float = 10.0) -> AudioChunk:
    """With the pauses of a voice."""
    syllables = np.arange(int(seconds * SAMPLE_RATE)) // 1600 % 2
    return AudioChunk(start, syllables.astype(np.float32), speech)


CREDIT_LINES = [
    " Undertexter från Amara.org-gemenskapen",
    " Undertextning.nu",
    " www.btistudios.com",
    " Svensktextning.nu",
    " Textning: Stina Hedin www.btistudios.com",
    " Översättning av Anna Svensson",
    " Subtitles by the Amara.org community",
    " Transcription by CastingWords",
    " Subs by www.zeoranger.co.uk",
    " Transcribed by https://otter.ai",
]
POLITE_LINES = [
    " Thanks for watching!",
    " Thank you for watching.",
    " Please subscribe to my channel.",
    " Tack för att ni tittade!",
    " Tack för att du har tittat.",
    " Prenumerera på kanalen!",
    " you",
    " Bye.",
]


@pytest.mark.parametrize("text", [*CREDIT_LINES, *POLITE_LINES])
def test_a_credit_line_over_silence_goes(text: str) -> None:
    assert rejection(replace(SURE, text=text), chunk(SILENCE)) == "credit_line"


@pytest.mark.parametrize("text", CREDIT_LINES)
def test_a_credit_line_that_the_model_doubts_goes_even_over_noise(text: str) -> None:
    assert rejection(replace(UNSURE, text=text), chunk(SPEECH)) == "credit_line"


@pytest.mark.parametrize("text", [*CREDIT_LINES, *POLITE_LINES])
def test_what_is_clearly_said_stays(text: str) -> None:
    assert rejection(replace(SURE, text=text), chunk(SPEECH)) == ""


@pytest.mark.parametrize(
    "text", [" Tack för att ni tittade på huset i går.", " The subtitles were wrong.", " You know."]
)
def test_ordinary_sentences_stay_over_a_missed_detection(text: str) -> None:
    assert rejection(replace(SURE, text=text), chunk(SILENCE)) == ""


@pytest.mark.parametrize(
    ("text", "seconds", "reason"),
    [
        (" Thank you.", 0.2, "credit_line"),
        (" Thank you.", 0.5, ""),
        (" Yes.", 0.1, ""),
        (" Okay.", 0.12, ""),
        (" I'm going to be here.", 0.2, "too_fast"),
        (" I'm going to be here.", 0.9, ""),
    ],
)
def test_text_that_nobody_can_say_in_so_short_a_sound_goes(text: str, seconds: float, reason: str) -> None:
    segment = replace(SURE, text=text, start=0.0, end=seconds)
    assert rejection(segment, chunk(((0.0, seconds),))) == reason


def test_doubtful_text_over_silence_goes() -> None:
    assert rejection(UNSURE, chunk(SILENCE)) == "no_speech"
    assert rejection(UNSURE, chunk(SPEECH)) == ""
    assert rejection(replace(SURE, text=" ... "), chunk(SPEECH)) == "no_speech"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (" och så vidare och så vidare och så vidare och så vidare", " och så vidare"),
        (" We went home, we went home, we went home, we went home. Then", " We went home, Then"),
        (" no no no no", None),
        (" ja" + " ja" * 20, " ja"),
        (" a b a b a b", None),
        (" The quick brown fox", None),
    ],
)
def test_loops_are_cut_and_emphasis_is_not(text: str, kept: str | None) -> None:
    segment = replace(SURE, text=text)
    shorter = without_loop(segment)
    if kept is None:
        assert shorter is segment
    else:
        assert shorter.text == kept
        assert segment.start < shorter.end < segment.end


def test_a_cut_loop_keeps_its_words_times() -> None:
    words = tuple(Word(" tack", 1.0 + i * 0.2, 1.2 + i * 0.2, 0.9) for i in range(10))
    shorter = without_loop(replace(SURE, text=" tack" * 10, words=words))
    assert shorter.words == words[:1]
    assert shorter.end == words[0].end


def test_a_loop_is_found_in_the_middle() -> None:
    assert find_loop(["i", "går", "x", "y", "z", "x", "y", "z", "x", "y", "z", "x", "y", "z", "slut"]) == (2, 3, 4)
    assert find_loop([]) is None


def test_what_the_model_only_guesses_goes() -> None:
    guessed = replace(SURE, avg_logprob=-1.3)
    assert rejection(guessed, chunk(SPEECH)) == "unintelligible"
    assert rejection(replace(SURE, avg_logprob=-1.1), chunk(((1.0, 1.5),))) == "unintelligible"
    assert rejection(replace(SURE, avg_logprob=-0.9), chunk(((1.0, 1.5),))) == ""


@pytest.mark.parametrize(("decibels", "reason"), [(4.0, "unintelligible"), (11.0, "")])
def test_what_is_guessed_over_a_sound_without_pauses_goes_sooner(decibels: float, reason: str) -> None:
    voiced = chunk(SPEECH)
    crowd = replace(voiced, audio=np.where(voiced.audio > 0, 10 ** (decibels / 20), 1.0).astype(np.float32))
    assert rejection(replace(SURE, avg_logprob=-0.8), crowd) == reason
    assert rejection(SURE, crowd) == "", "what the model is sure of was said"


def said_again(count: int, pause: float) -> tuple[list[Segment], tuple[tuple[float, float], ...]]:
    """A sentence of 2 s so many times, and where there is speech, with pauses between or without."""
    step = 2.0 + pause
    segments = [replace(SURE, text=" We went home.", start=i * step, end=i * step + 2.0) for i in range(count)]
    spans = tuple((segment.start, segment.end) for segment in segments)
    return segments, spans if pause else ((0.0, count * step),)


@pytest.mark.parametrize(("count", "pause"), [(5, 0.3), (12, 0.1), (3, 1.5)])
def test_a_sentence_that_is_said_again_after_a_pause_stays(count: int, pause: float) -> None:
    segments, speech = said_again(count, pause)
    kept, dropped = remove_hallucinations(segments, chunk(speech, seconds=40.0), [])
    assert (len(kept), dropped) == (count, [])
    in_pieces = [remove_hallucinations([one], chunk(speech), [" We went home."] * 3)[0] for one in segments]
    assert all(in_pieces), "each in a chunk of its own"


def test_a_sentence_that_the_model_repeats_over_one_stretch_of_sound_goes() -> None:
    segments, speech = said_again(5, 0.0)
    kept, dropped = remove_hallucinations(segments, chunk(speech), [])
    assert (len(kept), {entry.reason for entry in dropped}) == (2, {"repetition"})
    hasty = [replace(one, start=0.2 * i, end=0.2 * i + 0.2) for i, one in enumerate(segments)]
    kept, _ = remove_hallucinations(hasty, chunk(tuple((one.start, one.end - 0.05) for one in hasty)), [])
    assert len(kept) <= 2, "there is no time to say it"


def test_phrases_that_there_was_time_to_say_stay_in_their_segment() -> None:
    text = " again and again" * 5
    spoken = replace(SURE, text=text, start=0.0, end=6.0)
    assert remove_hallucinations([spoken], chunk(((0.0, 6.0),)), [])[0] == [spoken]
    ((shorter,), (gone,)) = remove_hallucinations([replace(spoken, end=2.5)], chunk(((0.0, 2.5),)), [])
    assert (shorter.text, gone.reason) == (" again and again", "repetition")


@pytest.mark.parametrize(
    ("text", "seconds", "reason"),
    [
        (" Kubernetes, Ansible.", 0.4, "prompt"),
        (" Ansible, Terraform.", 0.3, "prompt"),
        (" Kubernetes, Ansible.", 1.5, ""),
        (" Yes.", 0.3, ""),
    ],
)
def test_words_of_the_prompt_that_nobody_had_time_to_say_go(text: str, seconds: float, reason: str) -> None:
    spoken = replace(SURE, text=text, start=0.0, end=seconds)
    assert rejection(spoken, chunk(((0.0, seconds),)), "Kubernetes, Ansible, Terraform") == reason


@pytest.mark.parametrize("given", [("Umeå, Luleå", ""), ("", "Umeå, Luleå"), ("We met in Kiruna.", "Umeå, Luleå")])
def test_words_of_any_text_that_the_model_was_given_go(given: tuple[str, str]) -> None:
    spoken = replace(SURE, text=" Umeå.", start=0.0, end=0.1)
    assert remove_hallucinations([spoken], chunk(((0.0, 0.05),)), [], *given)[1][0].reason == "prompt"
    assert rejection(replace(spoken, text=" Kiruna Umeå."), chunk(SILENCE), "in Kiruna.", "Umeå, Luleå") == "", (
        "not across the border between two texts"
    )


def test_the_same_segment_again_and_again_goes_from_the_third_on() -> None:
    kept, dropped = remove_hallucinations([SURE, SURE, SURE, SURE], chunk(SPEECH), [])
    assert len(kept) == 2
    assert [entry.reason for entry in dropped] == ["repetition", "repetition"]
    nothing = chunk(((0.0, 0.5),))
    assert remove_hallucinations([SURE], nothing, [" hej", " Hej!"])[0] == [], "over the border between two chunks"


def test_speech_without_text_is_reported() -> None:
    gaps = speech_without_text([replace(SURE, start=2.0, end=4.0)], chunk(((0.0, 5.5), (7.0, 7.5))))
    assert [(gap.start, gap.end, gap.reason) for gap in gaps] == [(0.0, 2.0, "no_text"), (4.0, 5.5, "no_text")]
    (last,) = speech_without_text([], chunk(((8.0, 10.02),)))
    assert (last.start, last.end) == (8.0, 10.0), "not beyond the recording"


def test_coverage_adds_up_and_names_what_went() -> None:
    coverage = Coverage()
    kept, dropped = remove_hallucinations(
        [replace(UNSURE, text=" Undertexter från Amara.org", start=8.0, end=9.0)], chunk(SILENCE), []
    )
    coverage.add(chunk(SILENCE), kept, dropped)
    coverage.add(chunk(SPEECH), [replace(SURE, start=0.0, end=8.0)], [])
    report = coverage.report()
    assert report["speech_seconds"] == 10.0
    assert report["text_seconds"] == 8.0
    assert report["dropped_count"] == 2
    assert {entry["reason"] for entry in report["dropped"]} == {"credit_line", "no_text"}
    assert any(entry["text"] == "Undertexter från Amara.org" for entry in report["dropped"])


def segment(start: float, end: float, text: str) -> Segment:
    words = (Word(text, start - 0.5, start + 0.2, 0.9), Word(text, start + 0.1, end + 3.0, 0.9))
    return Segment(0, 0, start, end, text, (1,), 0.0, -0.2, 1.0, 0.05, words)


def test_results_out_of_order_come_out_in_order_with_times_of_the_recording() -> None:
    assembly = Assembly()
    first, second = chunk(((0.0, 9.0),), 0.0), chunk(((12.0, 20.0),), 12.0)
    assert assembly.add(1, second, ChunkResult("b", "sv", (segment(1.0, 12.0, " två"),))) == []
    segments = assembly.add(0, first, ChunkResult("a", "sv", (segment(0.0, 4.0, " ett"), segment(3.5, 9.0, " och"))))
    assert [found.text for found in segments] == [" ett", " och", " två"]
    assert [found.id for found in segments] == [0, 1, 2]
    assert [(found.start, found.end) for found in segments] == [(0.0, 4.0), (4.0, 9.0), (13.0, 22.0)]
    assert segments[2].seek == 1200
    for found in segments:
        times = [time for word in found.words or () for time in (word.start, word.end)]
        assert times == sorted(times)
        assert found.start <= times[0]
        assert times[-1] <= found.end
    assert assembly.progress == pytest.approx(22.0)
    assert assembly.language == "sv"
