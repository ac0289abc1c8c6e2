"""The transcript as a document for word processors."""

import io
import zipfile
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st
from transcribe import docx, formats
from transcribe.formats import TranscriptionResult
from transcribe.types import Segment, Transcript

W = f"{{{docx.MAIN}}}"


def segment(start: float, end: float, text: str, speaker: str | None = None) -> Segment:
    return Segment(0, 0, start, end, text, (), 0.0, -0.2, 1.0, 0.0, None, speaker)


def read(*segments: Segment) -> list[str]:
    return lines_of(docx.document(Transcript("sv", 9.0, segments)))


def lines_of(packed: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.testzip() is None
        for name in archive.namelist():
            ElementTree.fromstring(archive.read(name))
        body = ElementTree.fromstring(archive.read("word/document.xml"))
    return ["".join(text.text or "" for text in one.iter(f"{W}t")) for one in body.iter(f"{W}p")]


def test_paragraphs_have_times_and_names() -> None:
    assert read(
        segment(0.0, 2.0, " Hej & <välkomna>.", "Åsa"),
        segment(2.5, 4.0, " Nu börjar vi.", "Åsa"),
        segment(4.0, 5.0, "  "),
        segment(5.0, 6.0, " Tack.", "B"),
        segment(3661.0, 3662.0, " Adjö.", "B"),
    ) == [
        "0:00:00  Åsa: Hej & <välkomna>. Nu börjar vi.",
        "0:00:05  B: Tack.",
        "1:01:01  B: Adjö.",
    ]
    assert read() == []
    assert docx.document(Transcript("sv", 0.0)) == docx.document(Transcript("sv", 0.0))


def test_long_speech_is_cut_after_a_sentence() -> None:
    spoken = [segment(n, n + 1, f" {'ord ' * 20}{n}{'.' if n % 3 == 2 else ''}") for n in range(30)]
    lines = read(*spoken)
    assert 2 < len(lines) < 8
    assert all(line.endswith(".") for line in lines)


def test_what_the_recording_lacks_and_what_was_left_out_stands_at_the_end() -> None:
    coverage = {
        "warnings": ["The file is cut off."],
        "dropped": [{"start": 1.0, "end": 2.0, "reason": "credit_line", "text": "Subs by"}],
    }
    answer = TranscriptionResult(Transcript("en", 9.0, (segment(0.0, 2.0, " Hello."),)), coverage=coverage)
    assert lines_of(formats.FILE_WRITERS["docx"][1](answer)) == [
        "0:00:00  Hello.",
        "The file is cut off.",
        "Text that the model made up was left out: 1 credit_line.",
    ]


@settings(max_examples=50, deadline=None)
@given(st.text(), st.text(min_size=1))
def test_any_text_makes_a_document(text: str, speaker: str) -> None:
    assert len(read(segment(0.0, 1.0, text, speaker))) == bool(text.strip())
