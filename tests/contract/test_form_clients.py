"""The forms of libraries and programs in many languages, byte for byte as they write them, and what a client means by
fields in odd places and spellings."""

from collections.abc import Iterator
from itertools import count

import pytest
from support.api_server_fixture import Api, Reply, running
from support.raw_http import posted

TRANSCRIBE = "/v1/audio/transcriptions"
recordings = (b"RIFF recording %d" % number for number in count())  # each is a job of its own
Head = str | tuple[str, ...]  # of a part: its Content-Disposition's parameters, or all of its lines
Parts = tuple[tuple[Head, str | bytes], ...]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(tmp_path_factory.mktemp("clients")) as found:
        yield found


def form(parts: Parts, boundary: str = "B", *, newline: str = "\r\n") -> bytes:
    """`REC` as a value is a recording."""
    body = b""
    for head, value in parts:
        lines = (f"Content-Disposition: form-data; {head}",) if isinstance(head, str) else head
        sent = next(recordings) if value == "REC" else value.encode() if isinstance(value, str) else value
        top = newline.join((f"--{boundary}", *lines, "", ""))
        body += top.encode() + sent + newline.encode()
    return body + f"--{boundary}--{newline}".encode()


def send(api: Api, body: bytes, kind: str = "multipart/form-data; boundary=B", more: bytes = b"") -> Reply:
    head = more if b"Transfer" in more else more + b"Content-Length: %d\r\n" % len(body)
    request = f"POST {TRANSCRIBE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n".encode()
    return posted(int(api.server.effective_port), request + head + b"Connection: close\r\n\r\n" + body)


MODEL, FILE = ('name="model"', "whisper-1"), ('name="file"; filename="clip.wav"', "REC")
VERBOSE = ('name="response_format"', "verbose_json")
TEXT = "Content-Type: text/plain; charset=utf-8"
CLIENTS: dict[str, tuple[str, bytes]] = {  # the Content-Type, and a form that asks for words and has the prompt "Kära"
    "aiohttp before 3.7": (
        "multipart/form-data; boundary=B",
        form(
            (
                ((TEXT, 'Content-Disposition: form-data; name="model"'), "whisper-1"),
                ((TEXT, 'Content-Disposition: form-data; name="response_format"'), "verbose_json"),
                ((TEXT, 'Content-Disposition: form-data; name="timestamp_granularities%5B%5D"'), "word"),
                ((TEXT, 'Content-Disposition: form-data; name="prompt"'), "Kära"),
                ('name="file"; filename="m%C3%B6te.wav"; filename*=utf-8\'\'m%C3%B6te.wav', "REC"),
            )
        ),
    ),
    "Dart": (
        'multipart/form-data; boundary="dart-http-boundary-a+_=1"',
        form(
            (
                (('content-disposition: form-data; name="model"',), "whisper-1"),
                (('content-disposition: form-data; name="response_format"',), "verbose_json"),
                (('content-disposition: form-data; name="timestamp_granularities[]"',), "word"),
                (
                    (
                        'content-disposition: form-data; name="prompt"',
                        "content-type: text/plain; charset=utf-8",
                        "content-transfer-encoding: binary",
                    ),
                    "Kära",
                ),
                (
                    (
                        "content-type: application/octet-stream",
                        'content-disposition: form-data; name="file"; filename="a.m4a"',
                    ),
                    "REC",
                ),
            ),
            "dart-http-boundary-a+_=1",
        ),
    ),
    ".NET": (
        'multipart/form-data; boundary="2bbf-4e1c"',
        form(
            (
                ((TEXT, "Content-Disposition: form-data; name=model"), "whisper-1"),
                ((TEXT, "Content-Disposition: form-data; name=response_format"), "verbose_json"),
                ((TEXT, 'Content-Disposition: form-data; name="timestamp_granularities[]"'), "word"),
                ((TEXT, "Content-Disposition: form-data; name=prompt"), "Kära"),
                ("name=file; filename=clip.wav; filename*=utf-8''clip.wav", "REC"),
            ),
            "2bbf-4e1c",
        ),
    ),
    "Spring": (
        "multipart/form-data;charset=UTF-8;boundary=B",
        form(
            (
                MODEL,
                VERBOSE,
                ('name="timestamp_granularities[]"', "word"),
                (
                    (
                        'Content-Disposition: form-data; name="prompt"',
                        "Content-Type: text/plain;charset=UTF-8",
                        "Content-Length: 5",
                    ),
                    "Kära",
                ),
                ('name="file"; filename="=?UTF-8?Q?m=C3=B6te.wav?="', "REC"),
            )
        ),
    ),
    "Apache HttpClient": (
        "multipart/form-data; boundary=B",
        form(
            (
                MODEL,
                VERBOSE,
                ('name="timestamp_granularities"', "word"),
                (
                    (
                        'Content-Disposition: form-data; name="prompt"',
                        "Content-Type: text/plain; charset=ISO-8859-1",
                        "Content-Transfer-Encoding: 8bit",
                    ),
                    "Kära".encode("latin-1"),
                ),
                FILE,
            )
        ),
    ),
    "Indy": (
        "multipart/form-data; boundary=B",
        form(
            (
                (
                    (
                        'Content-Disposition: form-data; name="model"',
                        "Content-Type: text/plain",
                        "Content-Transfer-Encoding: quoted-printable",
                    ),
                    "whisper-1",
                ),
                (
                    (
                        'Content-Disposition: form-data; name="prompt"',
                        TEXT,
                        "Content-Transfer-Encoding: quoted-printable",
                    ),
                    "K=C3=A4ra",
                ),
                (
                    (
                        'Content-Disposition: form-data; name="response_format"',
                        "Content-Transfer-Encoding: base64",
                    ),
                    "dmVyYm9zZV9qc29u",
                ),
                ('name="timestamp_granularities[]"', "word"),
                FILE,
            )
        ),
    ),
    "PHP": (
        "multipart/form-data; boundary=------------------------f3a1",
        form(
            (
                MODEL,
                VERBOSE,
                ('name="timestamp_granularities[0]"', "word"),
                ('name="prompt"', "Kära"),
                ('name="file"; filename="/tmp/phpAb12"', "REC"),
            ),
            "------------------------f3a1",
        ),
    ),
    "Ruby": (
        "multipart/form-data; boundary=B",
        form(
            (
                ('name="file"; filename="a b.wav"', "REC"),
                MODEL,
                VERBOSE,
                ('name="timestamp_granularities[]"', "word"),
                ('name="prompt"', "Kära"),
            )
        ),
    ),
    "a shell script": (
        "Multipart/Form-Data; BOUNDARY=B",
        b"This is a form.\n"
        + form(
            (MODEL, VERBOSE, ('name="timestamp_granularities"', "word"), ('name="prompt"', "Kära"), FILE),
            newline="\n",
        )
        + b"and its end\n",
    ),
    "single quotes": (
        "multipart/form-data; boundary=B",
        form(
            (
                ("name='model'", "whisper-1"),
                ("name='response_format'", "verbose_json"),
                ("name='timestamp_granularities[]'", "word"),
                ("name='prompt'", "Kära"),
                ("name='file'; filename='a clip; mine.wav'", "REC"),
            )
        ),
    ),
    "folded heads": (
        "multipart/form-data; boundary=B",
        form(
            (
                MODEL,
                VERBOSE,
                ('name="timestamp_granularities[]"', "word"),
                (("Content-Disposition:form-data;name=prompt",), "Kära"),
                (('Content-Disposition: form-data; name="file";\r\n filename="clip.wav"',), "REC"),
            )
        ),
    ),
}


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_is_understood(api: Api, client: str) -> None:
    kind, body = CLIENTS[client]
    reply = send(api, body, kind)
    assert reply.status == 200, reply.body
    assert "words" in reply.json
    assert "X-Transcribe-Warnings" not in reply.headers
    assert api.worker.seen[-1].options.prompt == "Kära"


def chunks(body: bytes, sizes: bytes, end: bytes) -> bytes:
    return sizes % len(body) + body + b"\r\n" + end


WAYS: dict[str, tuple[bytes, bytes, bytes]] = {  # of sending a body: the head, the size of the only chunk, the end
    "chunked, with a trailer": (
        b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n",
        b"%x\r\n",
        b"0\r\nX-Sum: 1\r\n\r\n",
    ),
    "chunked, in capitals": (b"Transfer-Encoding: Chunked\r\n", b"%X;name=value\r\n", b"000\r\n\r\n"),
    "after leave": (b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", b"%x\r\n", b"0\r\n\r\n"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_body_in_chunks(api: Api, way: str) -> None:
    head, sizes, end = WAYS[way]
    reply = send(api, chunks(form((MODEL, FILE)), sizes, end), more=head)
    assert reply.status == 200, reply.body


YES = ("true", "True", "1", "yes", "ON", "t", "y")
NO = ("false", "FALSE", "0", "no", "Off", "f", "n", "", "null", "None")


@pytest.mark.parametrize("value", [*YES, *NO])
def test_yes_and_no_in_every_spelling(api: Api, value: str) -> None:
    reply = send(api, form((MODEL, ('name="stream"', value), FILE)))
    assert reply.status == 200
    assert (b"transcript.text.done" in reply.body) is (value in YES)


@pytest.mark.parametrize(("asked", "used"), [("und", None), ("zh-CN", "zh"), ("deu", "de"), ("None", "sv")])
def test_languages(api: Api, asked: str, used: str | None) -> None:
    assert send(api, form((MODEL, ('name="language"', asked), FILE))).status == 200
    assert api.worker.seen[-1].options.language == used


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("language=sv", "language"),
        ("model=whisper-1", "model"),
        ("timestamp_granularities[]=word", "timestamp_granularities"),
        ("chunking_strategy[type]=server_vad", "chunking_strategy"),
        ("api-version=2026-01-01", None),
        ("language=", None),
    ],
)
@pytest.mark.parametrize("path", [TRANSCRIBE, "/v1/audio/translations", "/v1/jobs"])
def test_a_field_in_the_url_is_named(api: Api, path: str, query: str, param: str | None) -> None:
    head = {"Content-Type": "multipart/form-data; boundary=B"}
    reply = api.send("POST", f"{path}?{query}", form((MODEL, FILE)), head)
    assert reply.status == (400 if param else 202 if path.endswith("jobs") else 200), reply.body
    assert param is None or reply.json["error"]["param"] == param


def test_a_field_that_is_not_in_its_encoding_is_named(api: Api) -> None:
    head = ('Content-Disposition: form-data; name="prompt"', "Content-Transfer-Encoding: base64")
    reply = send(api, form((MODEL, (head, "!"), (head, "abc"), FILE)))
    assert (reply.status, reply.json["error"]["param"]) == (400, "prompt")
