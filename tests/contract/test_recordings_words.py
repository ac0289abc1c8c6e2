"""Recordings as people's programs make them, sent to both real processes: the answer, its words and their times are
those of the clip as it is. A few of each kind; `DRILLS=long` sends every file of support/recordings.py."""

import os
import socket
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from support import recordings
from support.api_server_fixture import Reply, multipart
from support.bad_files import CLIP, SECONDS
from support.recordings import Case, Samples
from support.whole_service import Service, serving
from transcribe.types import SAMPLE_RATE

pytestmark = [pytest.mark.model, pytest.mark.sampled]
LONG = os.environ.get("DRILLS") == "long"
TRANSCRIBE = "/v1/audio/transcriptions"
WORDS = {"response_format": "verbose_json", "timestamp_granularities[]": ["word", "segment"]}
LATE = 0.1  # seconds that a word may come early or late; a single one by more, where a codec changed its sound
ALIKE = 0.85  # share of the words that a codec or a noise must leave as they are
Times = list[tuple[str, float]]  # words, and when each begins in seconds


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("service"), "whisper-base") as found:
        yield found


@pytest.fixture(scope="module")
def clip(service: Service) -> Times:
    """What the service makes of the clip as it is."""
    return words(sent(service, CLIP.read_bytes()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def sent(service: Service, content: bytes) -> Any:
    """The answer's JSON, which must be one."""
    reply = service.upload(TRANSCRIBE, content, **WORDS)
    assert reply.status == 200, reply.body
    return reply.json


def words(answer: Any) -> Times:
    return [(plain(word["word"]), word["start"]) for word in answer["words"]]


def plain(word: str) -> str:
    return "".join(letter for letter in word.casefold() if letter.isalnum())


def shifts(found: Times, expected: Times) -> list[float]:
    """By how much each word of both comes later than expected."""
    names, heard = [word for word, _ in expected], [word for word, _ in found]
    blocks = SequenceMatcher(None, names, heard, autojunk=False).get_matching_blocks()
    pairs = [(block.a + place, block.b + place) for block in blocks for place in range(block.size)]
    return [found[there][1] - expected[here][1] for here, there in pairs]


def check(service: Service, clip: Times, case: Case, folder: Path) -> None:
    answer = sent(service, case.make(folder).read_bytes())
    lost = case.missing is None or case.missing > 0
    said = [word for word in clip if word[1] < SECONDS - (case.missing or 0) - 0.5] if lost else clip
    expected = [(word, at + start) for start in case.starts for word, at in said]
    moved = shifts(words(answer), expected)
    assert len(moved) >= ALIKE * len(expected), answer["text"]
    if not lost:
        assert len(moved) >= ALIKE * len(answer["words"]), answer["text"]
    for number in range(len(case.starts)):  # each time that the clip is said
        part = moved[number * len(moved) // len(case.starts) : (number + 1) * len(moved) // len(case.starts)]
        assert abs(median(part)) <= LATE
    assert case.warning in " ".join(answer.get("warnings", [])), answer


def some(cases: Sequence[Case], *names: str) -> pytest.MarkDecorator:
    """A parameter for each case of these names, or for all where the drills are long."""
    return pytest.mark.parametrize(
        "case", [case for case in cases if LONG or case.name in names], ids=lambda case: case.name
    )


@some(recordings.LENGTHS, "mp4, picture longer", "m4a, later track longer", "webm, later segment", "mp3, cut by bytes")
def test_length_is_that_of_the_sound(case: Case, service: Service, clip: Times, folder: Path) -> None:
    check(service, clip, case, folder)


@some(recordings.LENGTHS, "mp3, tag", "ogg, tag", "mkv, tag", "chapters longer, one named as a duration")
def test_a_tag_is_no_duration(case: Case, service: Service, clip: Times, folder: Path) -> None:
    check(service, clip, case, folder)


@some(
    recordings.TIMES, "mkv, 1.3 s late", "mp4, 3 s late", "mpegts, 2 s late", "webm, pause of 9 s", "m4a, pause of 5 s"
)
def test_times_are_the_files(case: Case, service: Service, clip: Times, folder: Path) -> None:
    check(service, clip, case, folder)


@some(recordings.FORMATS, "wv", "flv", "wma", "mxf")
def test_every_promised_format_is_heard(case: Case, service: Service, clip: Times, folder: Path) -> None:
    check(service, clip, case, folder)


@some(recordings.LEVELS, "-45 dB", "near and far", "-55 dB in 24 bits", "-45 dB on an offset")
def test_quiet_speech_is_heard_as_loud_speech_is(case: Case, service: Service, clip: Times, folder: Path) -> None:
    check(service, clip, case, folder)


@some(recordings.POLARITIES, "wav", "opus", "of six channels", "one channel silent")
def test_channels_of_opposite_polarity_are_heard(case: Case, service: Service, clip: Times, folder: Path) -> None:
    check(service, clip, case, folder)


@some(recordings.TRACKS, "m4a, first silent", "mka, third speaks", "mka, both speak")
def test_the_track_that_speaks_is_heard(case: Case, service: Service, clip: Times, folder: Path) -> None:
    check(service, clip, case, folder)


def again(clip: Samples, times: int, pause: float) -> Samples:
    """The clip, said so many times, with a pause behind each."""
    return np.tile(np.pad(clip, (0, int(pause * SAMPLE_RATE))), times)


@pytest.mark.parametrize(("times", "pause"), [(5, 3.0), (4, 1.0), (6, 0.5)])
def test_a_sentence_is_written_as_often_as_it_is_said(
    times: int, pause: float, service: Service, clip: Times, folder: Path
) -> None:
    make = partial(recordings.waved, name="again.wav", change=lambda clip: again(clip, times, pause))
    starts = tuple(number * (SECONDS + pause) for number in range(times))
    check(service, clip, Case("again", make, starts), folder)


def posted(service: Service, body: bytes, kind: bytes) -> Reply:
    """The answer to a form of these bytes, sent as they are."""
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), 60) as connection:
        connection.sendall(head % (TRANSCRIBE.encode(), kind, len(body)) + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    top, _, rest = answer.partition(b"\r\n\r\n")
    return Reply(int(top.split()[1]), rest, {})


@pytest.mark.parametrize("name", [b"m\xf6te.flac", "möte.flac".encode(), "会议.flac".encode("gb18030"), b'a "b".flac'])
def test_a_file_by_any_name_is_heard(name: bytes, service: Service, clip: Times) -> None:
    body, kind = multipart({"model": "whisper-1", **WORDS}, CLIP.read_bytes())
    reply = posted(service, body.replace(b"clip.wav", name), kind.encode())
    assert reply.status == 200, reply.body
    assert words(reply.json) == clip


@pytest.mark.parametrize(
    "kind", [b"multipart/form-data", b"multipart/form-data; boundary=", b"multipart/form-data; boundary=other"]
)
def test_a_form_that_cannot_be_read_is_named(kind: bytes, service: Service) -> None:
    body, _ = multipart({"model": "whisper-1"}, CLIP.read_bytes())
    reply = posted(service, body, kind)
    assert (reply.status, "boundary" in reply.json["error"]["message"]) == (400, True)
