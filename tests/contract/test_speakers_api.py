"""Speakers as clients ask for them, and the recordings of known voices on their way to the worker."""

import base64
import json
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from support.api_server_fixture import Api, run_retention, running
from support.fake_worker import FACTS
from support.waiting import until

TEXT = "Hej och välkomna. Nu ska vi tala om Ärendet. Tack --> slut & adjö."
TRANSCRIBE, JOBS = "/v1/audio/transcriptions", "/v1/jobs"
VOICE = bytes(range(256)) * 5
NAMES, REFERENCES = "known_speaker_names[]", "known_speaker_references[]"
recordings = (b"RIFF recording %d" % number for number in count())  # each is a job of its own


def data_url(content: bytes = VOICE) -> str:
    return f"data:audio/wav;base64,{base64.b64encode(content).decode()}"


KNOWN: dict[str, Any] = {NAMES: ["Åsa & co", "Lind, Bo"], REFERENCES: [data_url(), data_url(VOICE * 2)]}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(tmp_path_factory.mktemp("speakers"), limits__upload_bytes=100_000_000) as found:
        yield found


def test_diarized_json_is_openais(api: Api) -> None:
    with api.client() as client:
        found = client.audio.transcriptions.create(
            file=("a.wav", next(recordings)),
            model="gpt-4o-transcribe-diarize",
            response_format="diarized_json",
            chunking_strategy="auto",
            known_speaker_names=KNOWN[NAMES],
            known_speaker_references=KNOWN[REFERENCES],
        )
    body = found.to_dict()
    assert {name: body[name] for name in ("task", "duration", "text", "usage")} == {
        "task": "transcribe",
        "duration": 7.5,
        "text": TEXT,
        "usage": {"type": "duration", "seconds": 8},
    }
    first = {"id": "seg_0", "start": 0.0, "end": 2.5, "text": " Hej och välkomna.", "speaker": "Åsa & co"}
    assert body["segments"][0] == {"type": "transcript.text.segment", **first}  # type: ignore[index]
    assert [segment.speaker for segment in found.segments] == ["Åsa & co", "Lind, Bo", "A"]
    assert api.worker.references == [VOICE, VOICE * 2]


def test_a_stream_has_the_events_of_every_segment(api: Api) -> None:
    with api.client() as client:
        stream = client.audio.transcriptions.create(
            file=("a.wav", next(recordings)),
            model="gpt-4o-transcribe-diarize",
            response_format="diarized_json",
            stream=True,
        )
        *pieces, done = (event.to_dict() for event in stream)
    deltas, segments = pieces[::2], pieces[1::2]
    assert [event["segment_id"] for event in deltas] == [event["id"] for event in segments]
    assert {event["type"] for event in deltas} == {"transcript.text.delta"}
    assert [event["speaker"] for event in segments] == ["A", "A", "A"]
    assert "".join(str(event["delta"]) for event in deltas) == done["text"] == TEXT
    assert (done["type"], done["segments"]) == ("transcript.text.done", segments)


@pytest.mark.parametrize(("response_format", "early"), [("json", True), ("text", True), ("verbose_json", False)])
def test_a_stream_with_speakers(
    api: Api, monkeypatch: pytest.MonkeyPatch, response_format: Any, *, early: bool
) -> None:
    """The worker cuts the segments anew at the end: what was sent before is not sent again."""
    monkeypatch.setattr(api.worker, "delay", 0.2)
    before = len(api.worker.seen)
    with api.client() as client:
        stream = client.audio.transcriptions.create(
            file=("a.wav", next(recordings)),
            model="whisper-1",
            response_format=response_format,
            stream=True,
            extra_body={"speakers": True},
        )
        events = []
        for event in stream:
            job = api.store.get(api.worker.seen[before].id)
            assert job
            events.append((event.to_dict(), job.over))
    assert events[0][1] is not early
    assert "".join(str(event.get("delta", "")) for event, _ in events) == events[-1][0]["text"] == TEXT
    segments = [event["speaker"] for event, _ in events if event["type"] == "transcript.text.segment"]
    assert segments == ([] if early else ["A", "A", "A"])
    assert [segment["speaker"] for segment in events[-1][0]["segments"]] == ["A", "A", "A"]  # type: ignore[attr-defined]


def test_a_stream_of_channels_that_are_the_speakers_comes_as_it_is_heard(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.worker, "delay", 0.2)
    before = len(api.worker.seen)
    with api.client() as client:
        stream = client.audio.transcriptions.create(
            file=("a.wav", next(recordings)),
            model="whisper-1",
            response_format="verbose_json",
            stream=True,
            extra_body={"speakers": True, "channels": "separate"},
        )
        first = next(iter(stream))
        job = api.store.get(api.worker.seen[before].id)
        assert job
        assert (first.to_dict()["type"], job.over) == ("transcript.text.segment", False)


VOICES: dict[str, Any] = {NAMES: ["Åsa & co"], REFERENCES: [data_url()]}
SHOWN = {
    "text": f"Åsa & co: {TEXT[:17]}\nA: {TEXT[18:44]}\nÅsa & co: {TEXT[45:]}\n",
    "srt": "3\n00:00:05,000 --> 00:00:07,500\nÅsa & co: Tack -> slut & adjö.\n\n",
    "vtt": "00:00:05.000 --> 00:00:07.500\n<v Åsa &amp; co>Tack --&gt; slut &amp; adjö.\n",
    "tsv": "start\tend\ttext\tspeaker\n0\t2500\tHej och välkomna.\tÅsa & co\n2500\t5000\t",
    "json": '"speaker": "A"',
    "verbose_json": '"word": "slut", "start": 6.0, "end": 6.5, "probability": 0.942, "speaker": "Åsa & co"',
    "diarized_json": '"id": "seg_1", "start": 2.5, "end": 5.0, "text": " Nu ska vi tala om Ärendet.", "speaker": "A"',
}


def test_every_format_names_the_speakers(api: Api) -> None:
    fields = {**VOICES, "response_format": "verbose_json", "timestamp_granularities[]": ["word", "segment"]}
    job = api.upload(JOBS, next(recordings), **fields).json
    done = f"{JOBS}/{job['id']}"
    until(lambda: api.get(done).json["status"] == "done")
    for name, part in SHOWN.items():
        reply = api.get(f"{done}/result?format={name}")
        assert part in reply.body.decode(), name
    assert api.get(f"{done}/segments").json["data"][1]["speaker"] == "A"
    whole = api.get(f"{done}/result").json
    assert [segment["speaker"] for segment in whole["segments"]] == ["Åsa & co", "A", "Åsa & co"]
    waited = api.upload(TRANSCRIBE, next(recordings), **VOICES, response_format="srt")
    assert waited.body.decode().endswith(SHOWN["srt"])


@pytest.mark.parametrize(
    ("fields", "low", "high"),
    [
        ({"speakers": "true"}, None, None),
        ({"diarize": "True"}, None, None),
        ({"min_speakers": "2", "max_speakers": 3}, 2, 3),
        ({"model": "gpt-4o-transcribe-diarize"}, None, None),
        ({"response_format": "diarized_json", "max_speakers": "2"}, None, 2),
    ],
)
def test_ways_to_ask(api: Api, fields: dict[str, Any], low: int | None, high: int | None) -> None:
    assert api.upload(TRANSCRIBE, next(recordings), **fields).status == 200
    options = api.worker.seen[-1].options.speakers
    assert options is not None
    assert (options.min_speakers, options.max_speakers, options.known_names) == (low, high, ())


@pytest.mark.parametrize("fields", [{}, {"speakers": "false"}, {"model": "gpt-4o-transcribe-diarize", "diarize": "0"}])
def test_ways_not_to_ask(api: Api, fields: dict[str, Any]) -> None:
    answer = api.upload(TRANSCRIBE, next(recordings), **fields)
    assert "segments" not in answer.json
    assert api.worker.seen[-1].options.speakers is None


ONE: dict[str, Any] = {NAMES: ["a"]}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"speakers": "maybe"}, "speakers"),
    ({"speakers": "false", "response_format": "diarized_json"}, "speakers"),
    ({"diarize": "false", "max_speakers": "2"}, "diarize"),
    ({"min_speakers": "0"}, "min_speakers"),
    ({"max_speakers": "two"}, "max_speakers"),
    ({"min_speakers": "3", "max_speakers": "2"}, "min_speakers"),
    ({**KNOWN, "max_speakers": "1"}, "max_speakers"),
    ({NAMES: ["a", "a"], REFERENCES: KNOWN[REFERENCES]}, NAMES),
    ({NAMES: ["a\0b"], REFERENCES: [data_url()]}, NAMES),
    ({NAMES: ["a" * 101], REFERENCES: [data_url()]}, NAMES),
    ({REFERENCES: [data_url()]}, NAMES),
    (ONE, REFERENCES),
    ({**ONE, REFERENCES: KNOWN[REFERENCES]}, REFERENCES),
    ({**ONE, REFERENCES: ["https://example.org/a.wav"]}, REFERENCES),
    ({**ONE, REFERENCES: ["data:audio/wav,%52%49%46%46"]}, REFERENCES),
    ({**ONE, REFERENCES: ["data:audio/wav;base64,"]}, REFERENCES),
    ({**ONE, REFERENCES: ["data:audio/wav;base64,UklG*Rg="]}, REFERENCES),
    ({**ONE, REFERENCES: ["data:audio/wav;base64,UklGRg==UklG" + "UklG" * 100]}, REFERENCES),
    ({**ONE, REFERENCES: ["data:audio/wav;base64,U"]}, REFERENCES),
    ({**ONE, REFERENCES: ["data:" + "x" * 300]}, REFERENCES),
    ({**ONE, REFERENCES: ["x" * 1_100_000]}, REFERENCES),
    ({**ONE, REFERENCES: ['["data:audio/wav;base64,UklG", 1]']}, REFERENCES),
    ({NAMES: [str(n) for n in range(11)], REFERENCES: [data_url()] * 11}, REFERENCES),
    ({"response_format": "diarized_json", "timestamp_granularities[]": "word"}, "timestamp_granularities[]"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED)
def test_what_cannot_be_used_is_named(api: Api, fields: dict[str, Any], param: str) -> None:
    for path in (TRANSCRIBE, JOBS):
        reply = api.upload(path, next(recordings), **fields)
        assert (reply.status, reply.json["error"]["param"]) == (400, param), reply.json
        assert "\n" not in reply.json["error"]["message"]
    assert not list(api.config.temp.glob("*.part"))


def test_a_translation_knows_no_speakers(api: Api) -> None:
    for fields, param in (
        ({"speakers": "true"}, "speakers"),
        ({"response_format": "diarized_json"}, "response_format"),
    ):
        assert api.upload("/v1/audio/translations", next(recordings), **fields).json["error"]["param"] == param
        assert api.upload(JOBS, next(recordings), **fields, task="translate").json["error"]["param"] == param


@pytest.mark.parametrize(
    "sent",
    [
        {"known_speaker_references": data_url()},
        {"known_speaker_references[0]": data_url()},
        {REFERENCES: json.dumps([data_url()])},
        {REFERENCES: data_url().replace("base64,", "base64,\r\n").replace("AAAA", "AA\r\nAA").rstrip("=")},
        {REFERENCES: data_url().replace("audio/wav", "AUDIO/x-wav;rate=16000;note=" + "n" * 100)},
    ],
)
def test_references_in_any_spelling(api: Api, sent: dict[str, str]) -> None:
    assert api.upload(TRANSCRIBE, next(recordings), **ONE, **sent).status == 200
    assert api.worker.references == [VOICE]


def test_a_reference_may_be_long_and_a_file(api: Api) -> None:
    long = b"voice" * 800_000
    assert api.upload(TRANSCRIBE, next(recordings), **ONE, **{REFERENCES: data_url(long)}).status == 200
    assert api.worker.references == [long]
    part = f'--BOUND\r\nContent-Disposition: form-data; name="{REFERENCES}"; filename="a.wav"\r\n\r\n'.encode()
    rest = b'\r\n--BOUND\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    fields = b"".join(rest % pair for pair in ((NAMES.encode(), b"a"), (b"model", b"whisper-1"), (b"file", b"RIFF")))
    kind = {"Content-Type": "multipart/form-data; boundary=BOUND"}
    body = part + VOICE + fields + b"--BOUND--\r\n"
    assert api.send("POST", TRANSCRIBE, body, kind).status == 200
    assert api.worker.references == [VOICE]
    larger = api.upload(TRANSCRIBE, next(recordings), **ONE, **{REFERENCES: data_url(long * 3)})
    assert (larger.status, larger.json["error"]["param"]) == (413, REFERENCES)


def test_another_voice_is_another_job(api: Api) -> None:
    clip = next(recordings)
    ids = [api.upload(JOBS, clip, **ONE, **{REFERENCES: data_url(voice)}).json["id"] for voice in (VOICE, VOICE, b"x")]
    assert ids[0] == ids[1] != ids[2]


def test_references_go_with_the_recording(api: Api) -> None:
    def files() -> list[str]:
        return sorted(path.name for path in api.config.temp.iterdir())

    api.worker.hold.set()
    try:
        jobs = [api.upload(JOBS, next(recordings), **KNOWN).json["id"] for _ in range(3)]
        kept = sorted(f"{job}{end}" for job in jobs for end in ("", ".speaker-0", ".speaker-1"))
        assert [name for name in files() if name[:32] in jobs] == kept
        api.send("DELETE", f"{JOBS}/{jobs[0]}")
        api.send("POST", f"{JOBS}/{jobs[1]}/cancel")
        assert {name[:32] for name in files()} & set(jobs) == {jobs[2]}
    finally:
        api.worker.hold.clear()
    until(lambda: api.get(f"{JOBS}/{jobs[2]}").json["status"] == "done")
    run_retention(api, time.time())
    assert files() == []


def test_a_worker_without_a_model_for_speakers(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.worker, "facts", {**FACTS, "speakers": False})
    api.store.set_worker(api.worker.facts)
    until(lambda: not api.shared.watcher.snapshot.worker["speakers"])
    for fields, param in (({"diarize": "true"}, "diarize"), ({"model": "gpt-4o-transcribe-diarize"}, "model")):
        reply = api.upload(TRANSCRIBE, next(recordings), **fields)
        assert (reply.status, reply.code, reply.json["error"]["param"]) == (400, "unsupported_parameter", param)
    channels = {"channels": "separate", "response_format": "diarized_json"}
    assert api.upload(TRANSCRIBE, next(recordings), **channels).status == 200, "the channels are the speakers"
    assert api.worker.seen[-1].options.speakers is not None, "the worker says that channels are the speakers"
    known = api.upload(TRANSCRIBE, next(recordings), **channels, **KNOWN)
    assert (known.status, known.json["error"]["param"]) == (400, NAMES)
    monkeypatch.setattr(api.worker, "facts", FACTS)  # or its next report would take the model away again
    api.store.set_worker(FACTS)
    until(lambda: api.shared.watcher.snapshot.worker["speakers"])


def test_a_job_without_speakers_has_no_diarized_result(api: Api) -> None:
    job = api.upload(JOBS, next(recordings)).json["id"]
    until(lambda: api.get(f"{JOBS}/{job}").json["status"] == "done")
    reply = api.get(f"{JOBS}/{job}/result?format=diarized_json")
    assert (reply.status, reply.json["error"]["param"]) == (400, "format")
