"""Whose voice it is: windows, the network, how many speakers there are, known voices, turns cut at words."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.speaker_models import write_tiny
from transcribe.audio.chunking import AudioChunk
from transcribe.speakers import clustering, words
from transcribe.speakers.network import SpeakerModelError, SpeakerNetwork
from transcribe.speakers.track import Track, tell_apart
from transcribe.speakers.windows import Voices, hear, placed, unbroken
from transcribe.types import Segment, SpeakerOptions, Word
from transcribe.worker.listener import Listener

SIZE = 256
LIKE, COMMON = 0.78, 0.52  # cosines of two windows of one speaker, and of two speakers, as the real network has them


def speaker_centres(count: int, seed: int = 0) -> NDArray[np.float64]:
    """[count + 1, SIZE] directions at right angles; the first is what all voices share."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(SIZE, count + 1)))[0].T


def talk(turns: list[int], seconds: float = 1.6, seed: int = 0) -> Voices:
    """Windows one after another, each by the speaker of its turn."""
    centres = speaker_centres(max(turns) + 1)
    noise = np.random.default_rng(seed).normal(size=(len(turns), SIZE)) / np.sqrt(SIZE)
    heard = np.sqrt(COMMON) * centres[0] + np.sqrt(LIKE - COMMON) * centres[1:][turns] + np.sqrt(1 - LIKE) * noise
    heard /= np.linalg.norm(heard, axis=1, keepdims=True)
    starts = np.arange(len(turns)) * (seconds + 0.4)
    windows = np.stack([starts, starts + seconds], 1)
    return Voices(tuple(map(tuple, windows.tolist())), windows, heard.astype(np.float32))


def grouped(found: NDArray[np.int64], turns: list[int]) -> bool:
    """Whether the labels are the turns by other names."""
    return len(set(zip(found.tolist(), turns, strict=True))) == len(set(turns)) == len(set(found.tolist()))


@pytest.mark.parametrize(
    ("counts", "found"),
    [([40], 1), ([20, 20], 2), ([30, 6], 2), ([12, 15, 20, 9, 30], 5), ([2], 1), ([3, 3], 2), ([40, 1], 1)],
)
def test_the_number_of_speakers_is_found(counts: list[int], found: int) -> None:
    turns = [speaker for speaker, count in enumerate(counts) for _ in range(count)]
    np.random.default_rng(1).shuffle(turns)
    track = tell_apart(talk(turns), SpeakerOptions(), {})
    assert len(track.names) == found
    if found == len(counts):
        assert grouped(track.likeness.argmax(1), turns)


@pytest.mark.parametrize(("least", "noise"), [(1, 0.0), (4, 0.8)])  # in noise, few windows are surely of one voice
def test_hours_are_told_apart_without_comparing_everything_with_everything(
    monkeypatch: pytest.MonkeyPatch, least: int, noise: float
) -> None:
    largest = 0
    original = clustering.merges

    def watched(groups: clustering.Groups) -> object:
        nonlocal largest
        largest = max(largest, len(groups.weights))
        return original(groups)

    monkeypatch.setattr(clustering, "merges", watched)
    turns = np.random.default_rng(2).integers(0, 4, 1500).tolist()
    monkeypatch.setattr(clustering, "BLOCK", 100)
    voices = talk(turns)
    heard = voices.embeddings + np.random.default_rng(3).normal(size=voices.embeddings.shape) * noise / np.sqrt(SIZE)
    voices = replace(voices, embeddings=(heard / np.linalg.norm(heard, axis=1, keepdims=True)).astype(np.float32))
    track = tell_apart(voices, SpeakerOptions(min_speakers=least), {})
    assert grouped(track.likeness.argmax(1), turns)
    assert 0 < largest <= clustering.BLOCK


@pytest.mark.parametrize(
    ("options", "found"), [(SpeakerOptions(min_speakers=3), 3), (SpeakerOptions(max_speakers=2), 2)]
)
def test_bounds_of_the_count_are_kept(options: SpeakerOptions, found: int) -> None:
    turns = [0] * 20 + [1] * 20 + ([2] * 20 + [3] * 20 if options.max_speakers else [])
    assert len(tell_apart(talk(turns), options, {}).names) == found


def said(text: str, start: float, pace: float = 0.3) -> Segment:
    """A segment whose words take `pace` seconds each."""
    times = [start + pace * n for n in range(len(text.split()) + 1)]
    spoken = tuple(Word(f" {word}", a, b, 1.0) for word, a, b in zip(text.split(), times, times[1:], strict=False))
    return Segment(0, 0, start, times[-1], f" {text}", (1, 2), 0.0, -0.1, 1.0, 0.0, words=spoken)


def encode(text: str) -> list[int]:
    return [len(text)]


def turns_of(turns: list[tuple[float, float, int]], names: tuple[str | None, ...]) -> Track:
    """A track in which each window sounds like one speaker."""
    likeness = [[0.9 if speaker == owner else 0.6 for speaker in range(len(names))] for *_, owner in turns]
    return Track(
        np.array([turn[:2] for turn in turns]).reshape(-1, 2), np.array(likeness).reshape(-1, len(names)), names
    )


def test_where_nothing_was_heard_one_speaker_says_what_there_is() -> None:
    nothing = Voices((), np.zeros((0, 2)), np.zeros((0, SIZE), np.float32))
    track = tell_apart(nothing, SpeakerOptions(min_speakers=2), {})
    assert [found.speaker for found in words.assign([said("Hm.", 0.0)], track, encode)] == ["A"]


def test_a_recording_without_text_has_no_turns() -> None:
    assert words.assign([], turns_of([(0.0, 1.5, 1), (1.5, 3.0, 0)], (None, None)), encode) == []


def test_a_turn_ends_at_a_word_and_pieces_have_their_own_text() -> None:
    track = turns_of([(0.0, 1.5, 1), (1.5, 3.0, 0)], (None, None))
    found = words.assign([said("one two three four five six seven eight nine ten", 0.0)], track, encode)
    assert [(s.id, s.speaker, s.text, s.start, s.end, s.tokens) for s in found] == [
        (0, "A", " one two three four five", 0.0, 1.5, (24,)),
        (1, "B", " six seven eight nine ten", 1.5, 3.0, (25,)),
    ]
    assert [word.speaker for segment in found for word in segment.words or ()] == ["A"] * 5 + ["B"] * 5


def test_turns_reach_from_where_their_speech_begins_to_where_it_ends() -> None:
    spans = ((0.8, 2.0), (2.3, 4.4), (6.0, 7.0))
    track = replace(turns_of([(0.0, 3.9, 0), (4.0, 7.0, 1)], (None, None)), spans=spans)
    segments = [said("one two three", 1.0), said("four five", 2.4), said("six", 4.0), said("seven", 6.2)]
    found = words.assign([replace(one, start=one.start - 1, end=one.end + 1) for one in segments], track, encode)
    assert [(one.speaker, one.start, one.end) for one in found] == [
        ("A", 0.6, 2.2),
        ("A", 2.2, 3.5),  # half a second beyond the words
        ("B", 3.5, 4.6),
        ("B", 5.8, 7.0),
    ]


def test_outer_words_reach_no_further_into_silence_than_their_speech_allows() -> None:
    track = replace(turns_of([(0.0, 20.0, 0)], (None,)), spans=((2.0, 3.0), (12.0, 12.4)))
    drawn = [said("Well, one two.", 0.0, pace=1.5), said("Hm.", 11.0, pace=4.0), said("Yes.", 18.0)]
    found = words.assign(drawn, track, encode)
    assert [(one.start, one.end) for one in found] == [(1.5, 3.5), (11.5, 12.9), (18.0, 18.3)]
    spoken = [[(word.start, word.end) for word in one.words or ()] for one in found]
    assert spoken == [[(1.5, 1.5), (1.5, 3.0), (3.0, 3.5)], [(11.5, 12.9)], [(18.0, 18.3)]]  # those within stay


def test_no_turn_ends_after_the_recording(tmp_path: Path) -> None:
    listener = Listener(SpeakerNetwork.load(write_tiny(tmp_path)), SpeakerOptions())
    noise = np.random.default_rng(3).normal(0, 0.05, 32_000).astype(np.float32)
    listener.hear([AudioChunk(10.0, noise, ((10.5, 12.016),))])  # the detector's last frame is filled up with silence
    track = listener.track()
    assert track is not None
    found = words.assign([said("one two three four", 10.6)], track, encode)
    assert [(one.start, one.end) for one in found] == [(10.3, 12.0)]


def test_a_single_word_does_not_change_the_speaker_but_a_sentence_does() -> None:
    track = turns_of([(0.0, 1.6, 0), (1.2, 1.5, 1), (1.6, 3.2, 0), (4.0, 5.6, 1)], (None, None))
    segments = [said("one two three four five six seven eight nine ten", 0.0), said("No no no no.", 4.0)]
    assert [found.speaker for found in words.assign(segments, track, encode)] == ["A", "B"]


def test_segments_without_words_are_kept_whole_and_names_are_given() -> None:
    track = turns_of([(0.0, 1.5, 1), (2.0, 3.0, 0), (4.0, 5.0, 2)], ("A", "Eva", None))
    wordless = [Segment(n, 0, 2.0 * n, 2.0 * n + 1, " x", (7,), 0.0, 0.0, 1.0, 0.0) for n in range(3)]
    found = words.assign(wordless, track, encode)
    assert [(s.speaker, s.tokens) for s in found] == [("Eva", (7,)), ("A", (7,)), ("B", (7,))]


@pytest.mark.parametrize(
    ("known", "names"),
    [([0], ["Ann", None]), ([1], [None, "Ann"]), ([0, 1], ["Ann", "Bob"]), ([2], [None, None])],
)
def test_known_voices_are_named_and_absent_ones_are_not(known: list[int], names: list[str | None]) -> None:
    turns = [0] * 20 + [1] * 20 + [0] * 5
    voices = talk([*turns, 2])  # as many centres as there are voices in the references
    voices = Voices(voices.spans[:-1], voices.windows[:-1], voices.embeddings[:-1])
    references = {
        name: _voice(talk([*[speaker] * 6, 2], seed=9)) for name, speaker in zip(("Ann", "Bob"), known, strict=False)
    }
    track = tell_apart(voices, SpeakerOptions(), references)
    found = track.likeness.argmax(1)
    assert [track.names[found[0]], track.names[found[20]]] == names
    assert grouped(found, turns)


def _voice(voices: Voices) -> Voices:
    return Voices(voices.spans[:6], voices.windows[:6], voices.embeddings[:6])


def test_windows_cover_speech_and_short_silence_parts_nothing() -> None:
    assert unbroken([(0.0, 1.0), (1.05, 2.0), (2.3, 2.4)]) == [(0.0, 2.0), (2.3, 2.4)]
    assert placed((1.0, 2.0), 1.6) == [(1.0, 2.0)]
    covering = placed((1.0, 6.0), 1.6)
    assert covering[0][0] == 1.0
    assert covering[-1][1] == pytest.approx(6.0)
    assert all(b[0] - a[0] <= 0.8 + 1e-9 for a, b in itertools.pairwise(covering))


def test_a_window_sounds_the_same_alone_loud_and_among_others(tmp_path: Path) -> None:
    network = SpeakerNetwork.load(write_tiny(tmp_path))
    audio = np.random.default_rng(3).normal(0, 0.05, 16_000).astype(np.float32)
    windows = [(0.1, 0.3), (0.5, 0.62), (0.7, 0.9)]
    together = network.embed(audio, windows)
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    for number, window in enumerate(windows):
        assert network.embed(4 * audio, [window])[0] == pytest.approx(together[number], abs=1e-5)
    assert np.abs(together[0] - together[2]).max() > 1e-4
    chunk = AudioChunk(10.0, audio, ((10.1, 10.3), (10.5, 10.62), (10.75, 10.9)))
    heard = hear(network, chunk)
    assert heard.embeddings[:2] == pytest.approx(together[:2], abs=1e-5)
    assert heard.windows.tolist() == [[10.1, 10.3], [10.5, 10.62], [10.75, 10.9]]


@pytest.mark.parametrize("changes", [{"hidden_size": 7}, {"architecture": "x-vector"}, {"layers": 0}])
def test_a_model_that_does_not_fit_is_refused_in_one_line(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(SpeakerModelError, match=r"^the speaker model in [^\n]* cannot be used [^\n]*$"):
        SpeakerNetwork.load(write_tiny(tmp_path, **changes))
