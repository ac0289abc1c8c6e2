"""The official openai client is the judge of conformance."""

import math
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from support.api_server_fixture import Api, running
from support.fake_worker import COVERAGE, FACTS, canned

NAMES = {  # of OpenAI's models for transcription, those among them that end on 2027-02-26
    *("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-4o-mini-transcribe-2025-12-15"),
    *("gpt-4o-transcribe-diarize", "gpt-transcribe", "gpt-live-transcribe"),
}
TEXT = "Hej och välkomna. Nu ska vi tala om Ärendet. Tack --> slut & adjö."
RUNS = f"KBLab/kb-whisper-small@{FACTS['revision']}"
CLIP = ("tal.wav", b"RIFF....WAVEsound")


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(tmp_path_factory.mktemp("api"), delay=0.05, limits__upload_bytes=50_000) as found:
        yield found


@pytest.fixture
def audio(api: Api) -> Iterator[Any]:
    with api.client() as client:
        yield client.audio


def test_json_is_the_default(audio: Any) -> None:
    found = audio.transcriptions.create(file=CLIP, model="whisper-1")
    assert found.text == TEXT
    assert (found.usage.type, found.usage.seconds) == ("duration", 8)


@pytest.mark.parametrize("model", ["gpt-4o-mini-transcribe", "KBLab/kb-whisper-small", RUNS])
def test_the_model_goes_by_several_names(audio: Any, model: str) -> None:
    create = audio.transcriptions.with_raw_response.create
    for more in ({}, {"stream": True}, {"response_format": "verbose_json"}):
        answer = create(file=CLIP, model=model, **more)
        assert answer.headers["X-Transcribe-Model"] == RUNS
    found = answer.parse()
    assert (found.text, found.model) == (TEXT, RUNS)


@pytest.mark.parametrize(
    ("response_format", "start", "end"),
    [
        ("text", "Hej och", "adjö.\n"),
        ("srt", "1\n00:00:00,000 --> 00:00:02,420\nHej och välkomna.\n\n2\n", "Tack -> slut & adjö.\n\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:02.420\nHej", "Tack --&gt; slut &amp; adjö.\n"),
    ],
)
def test_plain_formats_are_raw_bodies(audio: Any, response_format: str, start: str, end: str) -> None:
    found = audio.transcriptions.create(file=CLIP, model="whisper-1", response_format=response_format)
    assert isinstance(found, str)
    assert found.startswith(start)
    assert found.endswith(end)


def test_verbose_json(audio: Any) -> None:
    found = audio.transcriptions.create(
        file=CLIP, model="whisper-1", response_format="verbose_json", language="Swedish"
    )
    assert (found.task, found.language, found.duration, found.text) == ("transcribe", "swedish", 7.5, TEXT)
    assert [(piece.id, piece.start, piece.end, piece.text) for piece in found.segments] == [
        (piece.id, piece.start, piece.end, piece.text) for piece in canned(words=False)
    ]
    first = found.segments[0]
    assert (first.tokens, first.avg_logprob, first.compression_ratio, first.no_speech_prob) == ([0, 7], -0.3, 1.1, 0.01)
    assert found.words is None
    assert found.coverage == COVERAGE


@pytest.mark.parametrize("wanted", [["word"], ["segment"], ["word", "segment"]])
def test_granularities(audio: Any, wanted: list[str]) -> None:
    found = audio.transcriptions.create(
        file=CLIP, model="whisper-1", response_format="verbose_json", timestamp_granularities=wanted
    )
    assert (found.words is not None, found.segments is not None) == ("word" in wanted, "segment" in wanted)
    if found.words:
        assert [word.word for word in found.words[:4]] == ["Hej", "och", "välkomna.", "Nu"]
        times = [moment for word in found.words for moment in (word.start, word.end)]
        assert times == sorted(times)


def test_streaming_sends_deltas_while_the_worker_works(api: Api, audio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.worker, "delay", 0.5)  # longer than a busy computer delays the client
    moments, events = [], []
    with audio.transcriptions.create(file=("b.mp3", b"stream"), model="whisper-1", stream=True) as stream:
        for event in stream:
            moments.append(time.monotonic())
            events.append(event)
    assert [event.type for event in events] == ["transcript.text.delta"] * 3 + ["transcript.text.done"]
    assert "".join(event.delta for event in events[:-1]) == events[-1].text == TEXT
    assert events[-1].usage.seconds == 8
    assert moments[2] - moments[0] > 0.05, "the deltas came all at once"


def test_streaming_verbose_json_has_times(audio: Any) -> None:
    events = list(
        audio.transcriptions.create(file=CLIP, model="whisper-1", stream=True, response_format="verbose_json")
    )
    pieces = [event for event in events if event.type == "transcript.text.segment"]
    assert [(piece.start, piece.end) for piece in pieces] == [(0.0, 2.5), (2.5, 5.0), (5.0, 7.5)]
    assert events[-1].text == TEXT


def test_a_stream_of_a_bad_file_is_an_error_and_not_an_empty_stream(audio: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="no sound"):
        audio.transcriptions.create(file=("b.mp3", b"bad"), model="whisper-1", stream=True)


def test_a_failure_in_mid_stream_raises(api: Api, audio: Any) -> None:
    stream = iter(audio.transcriptions.create(file=("b.mp3", b"deleted in time"), model="whisper-1", stream=True))
    next(stream)
    for job in api.store.unfinished():
        api.store.cancel(job.id)
    with pytest.raises(openai.APIError, match="cancelled"):
        list(stream)


def test_logprobs(audio: Any) -> None:
    found = audio.transcriptions.create(file=CLIP, model="whisper-1", include=["logprobs"])
    assert found.logprobs[0].token == " Hej"
    assert found.logprobs[0].logprob == pytest.approx(math.log(0.9))
    assert bytes(int(number) for number in found.logprobs[0].bytes) == b" Hej"


def test_everything_a_client_can_ask_reaches_the_worker(api: Api, audio: Any) -> None:
    audio.transcriptions.create(
        file=("everything.ogg", b"everything"),
        model="whisper-1",
        language="en-GB",
        prompt="Kära lyssnare",
        temperature=0.4,
        response_format="verbose_json",
        timestamp_granularities=["word"],
        chunking_strategy={"type": "server_vad", "threshold": 0.6, "silence_duration_ms": 300},
        extra_body={"keywords": ["KBLab", "Ärendet"]},
    )
    job = api.worker.seen[-1]
    assert job.suffix == ".ogg"
    options = job.options
    assert (options.language, options.task, options.prompt) == ("en", "transcribe", "Kära lyssnare")
    assert (options.temperature, options.words, options.hotwords) == (0.4, True, "KBLab, Ärendet")
    assert job.request["chunking"] == {"threshold": 0.6, "silence_duration_ms": 300.0}


@pytest.mark.parametrize(("given", "language"), [(openai.omit, "sv"), ("auto", None), ("fi", "fi")])
def test_the_language_is_the_configured_one_unless_given(
    api: Api, audio: Any, given: Any, language: str | None
) -> None:
    audio.transcriptions.create(file=("l.wav", f"language {given}".encode()), model="whisper-1", language=given)
    assert api.worker.seen[-1].options.language == language


@pytest.mark.parametrize(
    ("languages", "language", "candidates"),
    [(["sv"], "sv", ("sv",)), (["Swedish", "nb-NO"], None, ("sv", "no")), ([], "sv", ())],
)
def test_candidates_for_the_language(
    api: Api, audio: Any, languages: list[str], language: str | None, candidates: tuple[str, ...]
) -> None:
    name = f"languages {languages}".encode()
    audio.transcriptions.create(file=("l.wav", name), model="whisper-1", extra_body={"languages": languages})
    options = api.worker.seen[-1].options
    assert (options.language, options.candidates) == (language, candidates)


def test_an_empty_prompt_and_auto_chunking_are_fine(audio: Any) -> None:
    assert audio.transcriptions.create(file=CLIP, model="whisper-1", prompt="", chunking_strategy="auto").text == TEXT


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # of the client's own method
def test_translations(api: Api, audio: Any) -> None:
    assert audio.translations.create(file=CLIP, model="whisper-1").text == TEXT
    found = audio.translations.create(file=CLIP, model="whisper-1", response_format="verbose_json", prompt="p")
    assert (found.language, found.duration, len(found.segments)) == ("english", 7.5, 3)
    assert api.worker.seen[-1].options.task == "translate"


def test_models(api: Api) -> None:
    with api.client() as client:
        models = client.models.list().data
        assert {model.id for model in models} >= {"KBLab/kb-whisper-small", *NAMES}
        assert {model.to_dict()["root"] for model in models} == {"KBLab/kb-whisper-small"}
        for name in NAMES:
            assert client.models.retrieve(name).id == name
        found = client.models.retrieve("KBLab/kb-whisper-small")
        assert (found.object, found.owned_by) == ("model", "KBLab")
        assert found.to_dict()["source"] == "https://huggingface.co/KBLab/kb-whisper-small"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("gpt-4o")


@pytest.mark.parametrize(
    ("changes", "kind", "param", "code"),
    [
        ({"model": "gpt-4o"}, openai.NotFoundError, "model", "model_not_found"),
        ({"file": ("a.wav", b"")}, openai.BadRequestError, "file", "empty_file"),
        ({"file": ("a.wav", b"bad file")}, openai.BadRequestError, "file", "no_audio"),
        ({"file": ("a.wav", b"x" * 60_000)}, openai.APIStatusError, "file", "file_too_large"),
        ({"file": ("a.wav", b"crash")}, openai.InternalServerError, None, "out_of_memory"),
        ({"language": "klingon"}, openai.BadRequestError, "language", "invalid_language_format"),
        ({"temperature": 1.5}, openai.BadRequestError, "temperature", "invalid_value"),
        ({"response_format": "docx"}, openai.BadRequestError, "response_format", "invalid_value"),
        ({"response_format": "srt", "stream": True}, openai.BadRequestError, "stream", "unsupported_value"),
        ({"timestamp_granularities": ["word"]}, openai.BadRequestError, "timestamp_granularities[]", "invalid_value"),
        ({"include": ["logprobs"], "response_format": "text"}, openai.BadRequestError, "include[]", "invalid_value"),
        ({"known_speaker_names": ["a"]}, openai.BadRequestError, "known_speaker_references[]", "invalid_value"),
    ],
)
def test_errors_are_the_clients_classes(
    audio: Any, changes: dict[str, Any], kind: type[openai.APIStatusError], param: str | None, code: str
) -> None:
    with pytest.raises(kind) as caught:
        audio.transcriptions.create(**{"file": CLIP, "model": "whisper-1", **changes})
    assert (caught.value.param, caught.value.code) == (param, code)
    assert caught.value.request_id
    assert caught.value.request_id.startswith("req_")


def test_a_failed_job_is_not_tried_again_by_the_client(api: Api) -> None:
    before = len(api.worker.seen)
    with api.client(max_retries=2) as client, pytest.raises(openai.InternalServerError):
        client.audio.transcriptions.create(file=("a.wav", b"crash once"), model="whisper-1")
    assert len(api.worker.seen) == before + 1


def test_a_client_that_times_out_and_retries_gets_the_job_it_began(api: Api) -> None:
    api.worker.hold.set()
    before = len(api.worker.seen)
    try:
        with api.client(max_retries=1, timeout=0.5) as client, pytest.raises(openai.APITimeoutError):
            client.audio.transcriptions.create(file=("a.wav", b"slow"), model="whisper-1")
        [job] = api.store.unfinished()
    finally:
        api.worker.hold.clear()
    with api.client() as client:
        assert client.audio.transcriptions.create(file=("a.wav", b"slow"), model="whisper-1").text == TEXT
    assert [seen.id for seen in api.worker.seen[before:]] == [job.id]
