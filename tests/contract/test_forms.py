"""The forms that clients really send, good ones and those that cannot be read, through real HTTP."""

import encodings
import json
import socket
from collections.abc import Iterator
from itertools import count

import pytest
from support.api_server_fixture import Api, Reply, running

TRANSCRIBE = "/v1/audio/transcriptions"
TEXT = "Hej och välkomna. Nu ska vi tala om Ärendet. Tack --> slut & adjö."
LONG = "ord " * 50_000
recordings = (b"RIFF recording %d" % number for number in count())  # each is a job of its own


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(tmp_path_factory.mktemp("forms")) as found:
        yield found


def field(name: str, value: str) -> bytes:
    return f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


def file(disposition: bytes = b'form-data; name="file"; filename="clip.wav"', more: bytes = b"") -> bytes:
    return b"--B\r\nContent-Disposition: " + disposition + b"\r\n" + more + b"\r\n" + next(recordings) + b"\r\n"


def post(api: Api, body: bytes, headers: bytes = b"", path: str = TRANSCRIBE) -> Reply:
    """Sends the bytes as they are; Content-Length is added unless the headers have one or are chunked."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n".encode() + headers
    if b"Content-Type" not in headers:
        head += b"Content-Type: multipart/form-data; boundary=B\r\n"
    if b"Length" not in headers and b"Transfer" not in headers:
        head += b"Content-Length: %d\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", int(api.server.effective_port)), 20) as connection:
        connection.sendall(head.replace(b"No-Length: 1\r\n", b"") + b"\r\n" + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    top, _, rest = answer.partition(b"\r\n\r\n")
    lines = top.decode("latin-1").split("\r\n")
    return Reply(int(lines[0].split()[1]), rest, dict(line.split(": ", 1) for line in lines[1:]))


def form(*parts: bytes) -> bytes:
    return field("model", "whisper-1") + b"".join(parts) + b"--B--\r\n"


def send(api: Api, *fields: tuple[str, str], path: str = TRANSCRIBE) -> Reply:
    return post(api, form(*(field(*each) for each in fields), file()), path=path)


WHOLE = form(file())
UNREADABLE: dict[str, tuple[bytes, bytes, int, str]] = {
    "no boundary": (WHOLE, b"Content-Type: multipart/form-data\r\n", 400, "no boundary"),
    "empty boundary": (WHOLE, b"Content-Type: multipart/form-data; boundary=\r\n", 400, "no boundary"),
    "boundary is not ASCII": (WHOLE, b'Content-Type: multipart/form-data; boundary="\xe4"\r\n', 400, "not ASCII"),
    "another boundary": (
        WHOLE,
        b"Content-Type: multipart/form-data; boundary=C\r\n",
        400,
        "does not have the boundary",
    ),
    "another boundary, 3 MB": (
        form(field("a", "x" * 3_000_000), file()),
        b"Content-Type: multipart/form-data; boundary=C\r\n",
        400,
        "does not have the boundary",
    ),
    "no form at all": (b"RIFF....WAVE", b"", 400, "does not have the boundary"),
    "JSON under the wrong name": (b'{"model": "whisper-1"}', b"", 400, "does not have the boundary"),
    "ends in the file": (WHOLE[:-12], b"", 400, "before its closing boundary"),
    "ends after the file": (WHOLE.removesuffix(b"--B--\r\n"), b"", 400, "before its closing boundary"),
    "last boundary is not the closing one": (WHOLE.removesuffix(b"--\r\n") + b"\r\n", b"", 400, "closing boundary"),
    "ends in a part's head": (WHOLE[:70], b"", 400, "before its closing boundary"),
    "a part's head without disposition": (form(b"--B\r\nX: y\r\n\r\nz\r\n", file()), b"", 400, "Content-Disposition"),
    "a part without name": (form(b"--B\r\nContent-Disposition: form-data\r\n\r\nz\r\n"), b"", 400, "has no name"),
    "empty": (b"", b"", 400, "body is empty"),
    "no length": (WHOLE, b"No-Length: 1\r\n", 411, "Content-Length"),
    "gzip": (WHOLE, b"Content-Encoding: gzip\r\n", 415, "Content-Encoding: gzip"),
    "deflate": (WHOLE, b"Content-Encoding: deflate\r\n", 415, "Content-Encoding: deflate"),
    "brotli and gzip": (WHOLE, b"Content-Encoding: br, gzip\r\n", 415, "Content-Encoding: br, gzip"),
    "base64 part": (form(file(more=b"Content-Transfer-Encoding: base64\r\n")), b"", 400, "Transfer-Encoding: base64"),
    "JSON": (b"{}", b"Content-Type: application/json\r\n", 415, "application/json"),
    "a plain recording": (b"RIFF", b"Content-Type: audio/wav\r\n", 415, "the part named file"),
    "a form in a URL's way": (b"model=a", b"Content-Type: application/x-www-form-urlencoded\r\n", 415, "urlencoded"),
    "chunked, unfinished form": (
        b"5\r\n--B\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n",
        400,
        "closing boundary",
    ),
    "a field with a recording in it": (form(field("prompt", "x" * 1_100_000)), b"", 413, "The field prompt"),
    "many fields with recordings in them": (
        form(*(field(f"x{number}", "x" * 900_000) for number in range(3))),
        b"",
        413,
        "The fields are larger than 2097152 bytes in all.",
    ),
    "many fields with long names": (
        form(*(field(f"{number}" + "x" * 15_000, "") for number in range(150))),
        b"",
        413,
        "The fields are larger than 2097152 bytes in all.",
    ),
    "a part with long headers": (
        form(b"--B\r\nContent-Type: text/plain; charset=" + b"x" * 20_000 + b'; name="prompt"\r\n\r\n\r\n'),
        b"",
        413,
        "The headers of a part are larger than 16384 bytes.",
    ),
    "only another file": (form(file(b'form-data; name="audio"; filename="a.wav"')), b"", 400, "a file parameter"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_named(api: Api, name: str) -> None:
    body, headers, status, words = UNREADABLE[name]
    for path in (TRANSCRIBE, "/v1/jobs"):
        reply = post(api, body, headers, path)
        assert reply.status == status, reply.body
        assert reply.code
        message = reply.json["error"]["message"]
        assert words in message
        assert "\n" not in message
    assert list(api.config.temp.iterdir()) == []


@pytest.mark.parametrize(
    ("disposition", "suffix"),
    [
        (b'form-data; name="file"; filename="m\xf6te.wav"', ".wav"),  # Latin-1
        ('form-data; name="file"; filename="möte.wav"'.encode(), ".wav"),
        (b'form-data; name="file"; filename="m\xf6te \x96 del 1.mp3"', ".mp3"),  # Windows-1252
        ('form-data; name="file"; filename="会议.m4a"'.encode(), ".m4a"),
        ('form-data; name="file"; filename="会议.m4a"'.encode("gb18030"), ".m4a"),
        ('form-data; name="file"; filename="会議.m4a"'.encode("shift-jis"), ".m4a"),
        (b"form-data; name=\"file\"; filename*=UTF-8''m%C3%B6te.ogg", ".ogg"),  # RFC 5987
        (b'form-data; name="file"; filename="x.wav"; filename*=iso-8859-1\'sv\'m%F6te.ogg', ".ogg"),
        (b'form-data; name="file"; filename*0="a long "; filename*1="name.flac"', ".flac"),  # RFC 2231
        (b"form-data; name=\"file\"; filename*0*=UTF-8''m%C3%B6; filename*1*=te.flac", ".flac"),
        (b'form-data; name="file"; filename="a \\"quoted\\" name.wav"', ".wav"),
        (b'form-data; name="file"; filename="a %22quoted%22 name.wav"', ".wav"),
        (b'form-data; name="file"; filename="a "quoted" name.wav"', ""),
        (b'form-data; name="file"; filename="unclosed.wav', ""),
        (b'form-data; name="file"; filename="C:\\Users\\anna\\m\xf6te.wav"', ".wav"),
        (b'form-data; name="file"; filename="C:\\Users\\anna\\"', ""),
        (b'form-data; name="file"; filename="=?utf-8?B?bcO2dGUud2F2?="', ""),  # RFC 2047
        (b'form-data; name="file"; filename="a;b=c.wav"', ".wav"),
        (b"form-data; name=file; filename=clip.wav", ".wav"),
        (b'form-data; filename="clip.wav"; name="file"', ".wav"),
        (b'form-data; name="file"; filename=""', ""),
        (b'form-data; name="file"', ""),
        (b'form-data; name="file[]"; filename="clip.wav"', ".wav"),
        (b'form-data; name="file"; filename="' + b"n" * 4000 + b'.wav"', ".wav"),
        (b'form-data; name="file"; filename="blob"', ""),
    ],
)
def test_a_file_by_any_name(api: Api, disposition: bytes, suffix: str) -> None:
    reply = post(api, form(file(disposition)))
    assert (reply.status, reply.json["text"]) == (200, TEXT)
    assert api.worker.seen[-1].suffix == suffix


@pytest.mark.parametrize(
    ("charset", "encoding"),
    [
        (b"", "utf-8"),
        (b"", "cp1252"),
        (b"iso-8859-1", "latin-1"),
        (b"windows-1252", "cp1252"),
        (b"ISO-8859-5", "iso8859-5"),
        (b"iso-8859-5", "utf-8"),
        (b"UTF-16LE", "utf-16-le"),
        (b"utf-16", "utf-16"),
        (b"punycode", "cp1252"),  # decoding it takes the square of its length
        (b"\x00", "cp1252"),
    ],
)
def test_fields_in_the_encodings_of_older_systems(api: Api, charset: bytes, encoding: str) -> None:
    words = "Совет Москвы" if "8859-5" in encoding else "Umea" if "16" in encoding else "Kärnkraft i Malmö: é"
    kind = b"Content-Type: text/plain; charset=" + charset + b"\r\n" if charset else b""
    value = kind + b"\r\n" + words.encode(encoding) + b"\r\n"
    head = b'--B\r\nContent-Disposition: form-data; name="%s"\r\n'
    parts = [head % name + value for name in (b"prompt", b"keywords[]")]
    assert post(api, form(*parts, file())).status == 200
    options = api.worker.seen[-1].options
    assert (options.prompt, options.hotwords) == (words, words)


def test_an_encoding_that_nobody_knows_is_not_remembered(api: Api) -> None:
    known = len(encodings._cache)  # of Python, which forgets nothing in it
    head = (
        b'--B\r\nContent-Disposition: form-data; name="prompt"\r\nContent-Type: text/plain; charset=%s\r\n\r\n\xe9\r\n'
    )
    for number in range(5):
        assert post(api, form(head % b"of-nobody-%d" % number, file())).status == 200
        assert api.worker.seen[-1].options.prompt == "é"
    assert len(encodings._cache) == known


def test_fields_that_come_as_files(api: Api) -> None:
    """A browser gives each Blob in a form a file name."""
    blob = b'--B\r\nContent-Disposition: form-data; name="response_format"; filename="blob"\r\n\r\nsrt\r\n'
    assert post(api, form(blob, file())).body.startswith(b"1\n00:00")


LISTS: list[tuple[tuple[str, str], ...]] = [
    (("%s[]", "A"), ("%s[]", "B")),
    (("%s", "A"), ("%s", "B")),
    (("%s[0]", "A"), ("%s[1]", "B")),
    (("%s.0", "A"), ("%s.1", "B")),
    (("%s", '["A", "B"]'),),
    (("%s[]", '["A","B"]'),),
    (("%s", "A,B"),),
    (("%s[]", " A , B "),),
    (("%s", "A"), ("%s[]", "B")),
]


@pytest.mark.parametrize("spelling", LISTS)
def test_lists_in_every_spelling(api: Api, spelling: tuple[tuple[str, str], ...]) -> None:
    def spelled(name: str, first: str, second: str) -> list[tuple[str, str]]:
        return [(key % name, value.replace("A", first).replace("B", second)) for key, value in spelling]

    granularities = spelled("timestamp_granularities", "word", "segment")
    fields = [*granularities, *spelled("languages", "sv", "fi"), *spelled("keywords", "Umeå", "Luleå")]
    reply = send(api, *fields, *spelled("hotwords", "Piteå", "Kalix"), ("response_format", "verbose_json"))
    assert reply.status == 200, reply.body
    assert {"words", "segments"} <= set(reply.json)
    options = api.worker.seen[-1].options
    assert options.candidates == ("sv", "fi")
    assert options.hotwords == "Umeå, Luleå, Piteå, Kalix"
    assert "logprobs" in send(api, *spelled("include", "logprobs", "logprobs")).json
    for name in ("known_speaker_names", "known_speaker_references"):
        refused = send(api, *spelled(name, "Anna", "Bo"))
        assert (refused.status, refused.json["error"]["param"]) == (400, "known_speaker_references[]")


@pytest.mark.parametrize(
    ("name", "value", "param"),
    [
        ("timestamp_granularities", "[word", "timestamp_granularities"),
        ("timestamp_granularities", "['word']", "timestamp_granularities"),
        ("timestamp_granularities", "[1]", "timestamp_granularities[]"),
        ("timestamp_granularities", '"word"', "timestamp_granularities[]"),
        ("timestamp_granularities[word]", "true", "timestamp_granularities[]"),
        ("timestamp_granularities[][]", "word", "timestamp_granularities[][]"),
        ("timestamp_granularity", "word", "timestamp_granularity"),
        ("timestampGranularities", "word", "timestampGranularities"),
        ("timestamp-granularities[]", "word", "timestamp-granularities"),
        ("include", "logprobs,everything", "include[]"),
        ("languages", "sv,klingon", "languages[]"),
        ("keyword", "Umeå", "keyword"),
        ("hotwords", "x" * 201, "hotwords"),
        ("hotwords", "x," * 101, "hotwords"),
        ("keywords", "x," * 101, "keywords[]"),
        ("keywords[]", '["\\ud800"]', "keywords"),
        ("known_speaker_references[]", '["data:audio/wav;base64,\\ud800"]', "known_speaker_references[]"),
        ("responseFormat", "srt", "responseFormat"),
        ("respons_format", "srt", "respons_format"),
        ("language", "klingon", "language"),
        ("temperature", "0,5", "temperature"),
        ("temperature", "0.5 C", "temperature"),
        ("chunking_strategy", '{"type": "server_vad"', "chunking_strategy"),
        ("chunking_strategy", '{"type": "client_vad"}', "chunking_strategy"),
        ("task", "translate", "task"),
        ("channels", "left", "channels"),
        ("channel", "separate", "channel"),
        ("multilingual", "maybe", "multilingual"),
        ("audio_stream", "x" * 201, "audio_stream"),
        ("task", "sing", "task"),
        ("callback_url", "https://a.example", "callback_url"),
        ("max_line_width", "9", "max_line_width"),
        ("max_line_count", "two", "max_line_count"),
        ("max_cps", "0", "max_cps"),
        ("highlight_words", "perhaps", "highlight_words"),
        ("subtitles", "pretty", "subtitles"),
    ],
)
def test_what_is_not_understood_is_named(api: Api, name: str, value: str, param: str) -> None:
    reply = send(api, (name, value), ("response_format", "verbose_json"))
    assert (reply.status, reply.json["error"]["param"]) == (400, param), reply.body


def test_two_values_for_one_are_not_chosen_from(api: Api) -> None:
    for name, values in {"language": ("sv", "fi"), "response_format": ("srt", "vtt"), "prompt": ("a", "b")}.items():
        reply = send(api, *((name, value) for value in values))
        assert (reply.status, reply.json["error"]["param"]) == (400, name)
    assert send(api, ("language", "sv"), ("language", "sv")).status == 200


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        *((nothing, "sv") for nothing in ("", " ", "null", "None", "undefined", "NULL")),
        *((german, "de") for german in ("de", "deu", "ger", "DE", "de-AT", "de_DE.UTF-8", "German", " german ")),
        *((swedish, "sv") for swedish in ("swe", "sv-SE", "sv_FI", "Swedish", "SWEDISH")),
        *(("nob", "no"), ("nno", "nn"), ("jpn", "ja"), ("zho", "zh"), ("chi", "zh"), ("zh-Hant-TW", "zh")),
        *(("fre", "fr"), ("cym", "cy"), ("haw", "haw"), ("yue", "yue"), ("arb", "ar"), ("jv", "jw"), ("fil", "tl")),
        *(("haitian_creole", "ht"), ("Haitian Creole", "ht"), ("pes", "fa"), ("AUTO", None), ("auto", None)),
    ],
)
def test_languages_as_clients_write_them(api: Api, asked: str, used: str | None) -> None:
    assert send(api, ("language", asked)).status == 200
    assert api.worker.seen[-1].options.language == used


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ([("response_format", "SRT")], "00:00:02,500"),
        ([("response_format", " Verbose_JSON ")], '"segments"'),
        ([("response_format", "verbose-json")], '"segments"'),
        ([("response_format", "Text")], "Hej"),
        ([("response_format", "null")], '"usage"'),
        ([("response_format", "undefined")], '"usage"'),
        ([("stream", "TRUE")], "transcript.text.done"),
        ([("stream", "True")], "transcript.text.done"),
        ([("stream", " 1 ")], "transcript.text.done"),
        ([("stream", "False")], '"usage"'),
        ([("stream", "None")], '"usage"'),
        ([("temperature", " 0.4 ")], '"usage"'),
        ([("temperature", "null")], '"usage"'),
        ([("temperature", "4e-1\n")], '"usage"'),
        ([("task", "Transcribe")], '"usage"'),
        ([("include", "LOGPROBS")], '"logprobs"'),
        ([("chunking_strategy", "AUTO")], '"usage"'),
        ([("chunking_strategy", '{"type": "server_vad", "threshold": 0.4}')], '"usage"'),
        ([("chunking_strategy[type]", "Server_VAD"), ("chunking_strategy[threshold]", " 0.4 ")], '"usage"'),
        ([("chunking_strategy.type", "server_vad"), ("chunking_strategy.threshold", "null")], '"usage"'),
        ([("model", " whisper-1 ")], '"usage"'),
    ],
)
def test_values_in_any_capitals(api: Api, fields: list[tuple[str, str]], words: str) -> None:
    reply = send(api, *fields)
    assert reply.status == 200, reply.body
    assert words in reply.body.decode()


def test_jobs_in_any_capitals(api: Api) -> None:
    reply = send(api, ("task", "Translate"), ("response_format", "VTT"), path="/v1/jobs")
    assert (reply.status, reply.json["task"], reply.json["response_format"]) == (202, "translate", "vtt")


@pytest.mark.parametrize(
    "prompt", ["Kära lyssnare", LONG, LONG * 4, "å" * 60_000, "null", json.dumps(["not", "a", "list"])]
)
def test_prompts_of_any_length(api: Api, prompt: str) -> None:
    assert send(api, ("prompt", prompt)).status == 200
    kept = api.worker.seen[-1].options.prompt
    assert prompt.endswith(kept)
    assert len(kept) >= min(len(prompt), 223 * 128) or prompt == "null"
    assert len(kept) < 100_000


@pytest.mark.parametrize("name", ["vad_filter", "user", "temperature_inc", "Ünknown", "x[y]"])
def test_an_unknown_field_is_ignored_and_said(api: Api, name: str) -> None:
    for more in ((), (("stream", "true"),), (("response_format", "srt"),)):
        reply = send(api, (name, "true"), *more)
        assert reply.status == 200
        assert name.encode("ascii", "replace").decode() in reply.headers["X-Transcribe-Warnings"]
    assert "were ignored" in send(api, (name, "true"), path="/v1/jobs").headers["X-Transcribe-Warnings"]


@pytest.mark.parametrize(
    ("fields", "several"),
    [
        ({"language": "auto", "languages": "sv,en"}, True),
        ({"languages": "sv,en"}, False),  # one of them
        ({"language": "auto", "languages": "sv"}, False),
        ({"multilingual": "true"}, True),
        ({"multilingual": "true", "languages": "sv,en"}, True),
        ({"multilingual": "false", "language": "auto", "languages": "sv,en"}, False),
        ({"multilingual": "true", "language": "sv"}, None),
    ],
)
def test_several_languages_are_looked_for_where_they_are_asked_for(
    api: Api, fields: dict[str, str], several: bool | None
) -> None:
    reply = send(api, *fields.items())
    assert reply.status == (200 if several is not None else 400), reply.body
    if several is None:
        assert reply.json["error"]["param"] == "multilingual"
        return
    options = api.worker.seen[-1].options
    assert options.multilingual == several
    assert options.language is None or not several
