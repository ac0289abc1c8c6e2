"""Corrections that people made, and the times of the words in them."""

import pytest
from transcribe.corrections import Corrections
from transcribe.types import Segment, Word

LATIN = (Word(" Hej", 1.0, 1.4, 0.3, "A"), Word(" på", 1.5, 1.8, 0.9, "A"), Word(" deg.", 2.0, 3.0, 0.4, "A"))
CHINESE = (Word("你", 1.0, 2.0, 0.9), Word("好", 2.0, 3.0, 0.9))


def segment(number: int, words: tuple[Word, ...] | None, text: str = "") -> Segment:
    said = text or "".join(word.word for word in words or ())
    return Segment(number, 0, 1.0, 3.0, said, (5, 6), 0.0, -0.9, 1.2, 0.02, words, words[0].speaker if words else None)


@pytest.mark.parametrize(
    ("words", "text", "found"),
    [
        (LATIN, "Hej på dig.", [(" Hej", 1.0, 1.4), (" på", 1.5, 1.8), (" dig.", 2.0, 3.0)]),
        (LATIN, "Hej till dem.", [(" Hej", 1.0, 1.4), (" till", 1.5, 1.8), (" dem.", 2.0, 3.0)]),
        (LATIN, "Hej deg.", [(" Hej", 1.0, 1.4), (" deg.", 2.0, 3.0)]),
        (LATIN, "Hej då på deg.", [(" Hej", 1.0, 1.229), (" då", 1.229, 1.4), (" på", 1.5, 1.8), (" deg.", 2.0, 3.0)]),
        (LATIN, "Och Hej på deg.", [(" Och", 1.0, 1.2), (" Hej", 1.2, 1.4), (" på", 1.5, 1.8), (" deg.", 2.0, 3.0)]),
        (LATIN, "Hejsan deg.", [(" Hejsan", 1.0, 1.8), (" deg.", 2.0, 3.0)]),
        (LATIN, "", []),
        ((), "Alla ni", [(" Alla", 1.0, 2.25), (" ni", 2.25, 3.0)]),
        (CHINESE, "您好", [("您好", 1.0, 3.0)]),
        (None, "Hej", None),
    ],
)
def test_words_keep_their_times_where_they_can(
    words: tuple[Word, ...] | None, text: str, found: list[tuple[str, float, float]] | None
) -> None:
    before = segment(7, words, "" if words else " x")
    [after] = Corrections(segments={7: text}).apply([before])
    timed = None if after.words is None else [(word.word, word.start, word.end) for word in after.words]
    assert timed == found
    assert {(word.probability, word.speaker) for word in after.words or ()} <= {(1.0, before.speaker)}
    assert after.text == ("" if not text else text if words == CHINESE else f" {text}")
    assert (after.start, after.end, after.tokens, after.corrected) == (1.0, 3.0, (), True)


def test_names_are_those_of_the_machine_renamed_at_once() -> None:
    turns = [segment(0, LATIN), segment(1, (Word(" ja", 4.0, 5.0, 0.9, "B"),)), segment(2, None, " mm")]
    first, second, nobody = Corrections(speakers={"A": "B", "B": "Åsa"}).apply(turns)
    assert (first.speaker, {word.speaker for word in first.words or ()}) == ("B", {"B"})
    assert (second.speaker, nobody.speaker, first.corrected) == ("Åsa", None, None)
    assert Corrections().apply(turns) == tuple(turns)
