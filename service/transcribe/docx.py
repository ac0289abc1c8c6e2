"""A transcript as a document for word processors: Office Open XML (ECMA-376), the least of it that they open."""

import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from transcribe.types import Segment, Transcript

PAUSE = 2.0  # seconds of silence that begin a new paragraph
LONGEST = 600  # characters of a paragraph, which then ends with its sentence
SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？", "؟")
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
MOMENT = (1980, 1, 1, 0, 0, 0)  # of every file in it, so that the same text is the same document
MAIN = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
KIND = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
TYPES = (
    f'<Types xmlns="{PACKAGE}/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    f'<Override PartName="/word/document.xml" ContentType="{KIND}.main+xml"/></Types>'
)
RELATIONS = (
    f'<Relationships xmlns="{PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Type="{OFFICE}" Target="word/document.xml"/></Relationships>'
)
GREY = '<w:color w:val="6B7280"/>'
HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'


def document(transcript: Transcript, notes: Sequence[str] = ()) -> bytes:
    """The transcript in paragraphs, each with its time and, if speakers were told apart, the speaker's name; then the
    notes, a paragraph each."""
    body = "".join(_paragraph(segments, transcript.language) for segments in paragraphs(transcript.segments))
    body += "".join(f"<w:p>{_run(note, GREY)}</w:p>" for note in notes)
    files = {
        "[Content_Types].xml": TYPES,
        "_rels/.rels": RELATIONS,
        "word/document.xml": f'<w:document xmlns:w="{MAIN}"><w:body>{body}</w:body></w:document>',
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, MOMENT), HEAD + content, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def paragraphs(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """The segments that have text, cut where somebody else speaks, at long pauses, and when they are long enough."""
    held: list[Segment] = []
    for segment in segments:
        if not segment.text.strip():
            continue
        if held and _ends(held, segment):
            yield held
            held = []
        held.append(segment)
    if held:
        yield held


def _ends(held: Sequence[Segment], following: Segment) -> bool:
    last = held[-1]
    long = sum(len(segment.text) for segment in held) >= LONGEST and last.text.rstrip().endswith(SENTENCE_ENDS)
    return long or following.speaker != last.speaker or following.start - last.end > PAUSE


def _paragraph(segments: Sequence[Segment], language: str) -> str:
    first = segments[0]
    minutes, seconds = divmod(int(first.start), 60)
    hours, minutes = divmod(minutes, 60)
    text = " ".join("".join(segment.text for segment in segments).split())
    runs = [_run(f"{hours}:{minutes:02d}:{seconds:02d}  ", GREY)]
    if first.speaker:
        runs.append(_run(f"{first.speaker}: ", "<w:b/>"))
    spoken = f'<w:lang w:val="{escape(language)}"/>' if language else ""
    return f"<w:p>{''.join(runs)}{_run(text, spoken)}</w:p>"


def _run(text: str, properties: str) -> str:
    shown = escape(NOT_XML.sub("", text))
    return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{shown}</w:t></w:r>'
