"""From words with times to the pieces that subtitles are made of."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from transcribe.subtitles.rules import Piece, columns, same_turn
from transcribe.types import Segment, Word

# No line begins with these, none ends with those: the usual rules for Chinese and Japanese
NEVER_FIRST = frozenset(
    ",.!?:;)]}%…、。，．！？：；）」』】〉》〕’”％‰ー々ヽヾゝゞ・ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮ"
)
NEVER_LAST = frozenset("([{$£¥￥‘“（「『【〈《〔")
DRAWL = 4.0  # columns a second: nobody speaks slower, so what is left of a segment is a pause
UNSPACED = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF))  # Thai and Lao, Burmese, Khmer


def pieces_of(segments: Iterable[tuple[int, Segment]], widest: int, *, named: bool) -> list[Piece]:
    """The text of segments, each with the number of its turn, in pieces of at most `widest` columns, in order, with
    times that never go back. With `named` the name goes before the words of somebody who begins to speak."""
    found: list[Piece] = []
    for turn, segment in segments:
        for number, piece in enumerate(_pieces(segment, turn)):
            last = found[-1] if found else None
            one = _begun(piece, last, first=number == 0)
            if named and one.speaker is not None and (last is None or not same_turn(last, one)):
                one = replace(one, text=f"{' '.join(one.speaker.split())}: {one.text}")
            if last and not one.space and not may_part(last.text[-1], one.text[0]):
                found[-1] = replace(last, text=last.text + one.text, end=max(last.end, one.end))
            else:
                found.append(one)
    placed: list[Piece] = []
    for one in (part for whole in found for part in _cut(whole, widest)):
        start = max(one.start, placed[-1].start if placed else 0)
        placed.append(replace(one, start=start, end=max(one.end, start)))
    return placed


def _begun(piece: Piece, last: Piece | None, *, first: bool) -> Piece:
    """The piece as it goes on from the last one; `first` of a segment, it never runs into a word before it."""
    if last and (not same_turn(last, piece) or (first and not may_part(last.text[-1], piece.text[0]))):
        return replace(piece, space=True)
    return piece


def may_part(before: str, after: str) -> bool:
    """Whether a line may end between two characters that have no space between them."""
    if after in NEVER_FIRST or before in NEVER_LAST or unicodedata.category(after) in ("Mn", "Mc", "Me", "Cf"):
        return False
    return unicodedata.category(before) != "Cf" and (_unspaced(before) or _unspaced(after))


def _unspaced(character: str) -> bool:
    if unicodedata.east_asian_width(character) in "WF":
        return not "\uac00" <= character <= "\ud7a3"  # Korean has spaces
    return any(low <= ord(character) <= high for low, high in UNSPACED)


def _pieces(segment: Segment, turn: int) -> Iterator[Piece]:
    """The segment's words as pieces. Where they have no times, or are not the text, time is shared out by width."""
    words: Sequence[Word] | None = segment.words
    if not words or _bare("".join(word.word for word in words)) != _bare(segment.text):
        end = min(segment.end, segment.start + columns(segment.text) / DRAWL)
        words = (Word(segment.text, segment.start, end, 0.0, segment.speaker),)
    for word in words:
        whole = Piece(word.word, False, *_clock(word.start, word.end), word.speaker or segment.speaker, turn)
        parts, at = [], 0
        for part in word.word.split():
            place = word.word.index(part, at)
            runs = _runs(part)
            parts += [(run, number == 0 and place > at) for number, run in enumerate(runs)]
            at = place + len(part)
        yield from _shared(whole, parts)


def _runs(text: str) -> list[str]:
    """The text cut wherever a line may end inside it."""
    runs = [text[:1]]
    for character in text[1:]:
        if may_part(runs[-1][-1], character):
            runs.append(character)
        else:
            runs[-1] += character
    return runs


def _shared(whole: Piece, parts: Sequence[tuple[str, bool]]) -> Iterator[Piece]:
    """The parts, each with whether a space is before it, with the whole's time shared out by width."""
    total = max(1, sum(columns(text) + 1 for text, _ in parts))
    at = 0
    for text, space in parts:
        start = whole.start + (whole.end - whole.start) * at // total
        at += columns(text) + 1
        end = whole.start + (whole.end - whole.start) * at // total
        yield replace(whole, text=text, space=space, start=start, end=end)


def _cut(piece: Piece, widest: int) -> Iterator[Piece]:
    """A word that fits in no line, in as many parts as it needs; a mark stays with its letter where that fits."""
    if piece.width <= widest:
        yield piece
        return
    texts = [""]
    for character in piece.text:
        if texts[-1] and columns(texts[-1]) + columns(character) > widest:
            texts.append("")
        texts[-1] += character
    yield from _shared(piece, [(text, piece.space and number == 0) for number, text in enumerate(texts)])


def _clock(start: float, end: float) -> tuple[int, int]:
    begin = round(max(start, 0.0) * 1000)
    return begin, max(begin, round(end * 1000))


def _bare(text: str) -> str:
    return "".join(text.split())
