"""OpenAI's JavaScript client in headless Chromium, on a page of another origin."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.api_server_fixture import Api, running
from support.browser import chromium
from support.javascript import installed, web_server
from support.waiting import until

pytestmark = pytest.mark.slow
TEXT = "Hej och välkomna. Nu ska vi tala om Ärendet. Tack --> slut & adjö."
Call = Callable[..., Any]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("downloads")) as found:
        yield found


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with web_server(installed()) as found:
        yield found


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, origin: str, key: tuple[str, Path]) -> Iterator[Api]:
    changes: dict[str, Any] = {"cors__origins": [origin], "auth__keys_file": str(key[1])}
    with running(tmp_path_factory.mktemp("api"), limits__upload_bytes=100_000, **changes) as found:
        yield found


@pytest.fixture
def call(driver: Any, origin: str, api: Api, key: tuple[str, Path]) -> Call:
    driver.get(f"{origin}/page.html")
    until(lambda: driver.execute_script("return window.ready"))

    def asked(fields: dict[str, Any] | None = None, *, secret: str = key[0], below: str = "/v1", **more: str) -> Any:
        code = (
            "const done = arguments[4]; call(...[...arguments].slice(0, 4)).then(done, (error) => done(String(error)))"
        )
        return driver.execute_async_script(code, f"{api.url}{below}", secret, fields or {}, more)

    return asked


def test_json(call: Call) -> None:
    found = call({"language": "sv", "prompt": "Kära lyssnare"})
    assert (found["text"], found["usage"]["seconds"]) == (TEXT, 8)


def test_verbose_json(call: Call) -> None:
    found = call({"response_format": "verbose_json", "timestamp_granularities": ["word", "segment"]})
    assert (found["text"], found["duration"], len(found["segments"])) == (TEXT, 7.5, 3)
    assert [word["word"] for word in found["words"][:3]] == ["Hej", "och", "välkomna."]


def test_streaming(call: Call) -> None:
    *deltas, done = call({"stream": True})
    assert {event["type"] for event in deltas} == {"transcript.text.delta"}
    assert "".join(event["delta"] for event in deltas) == done["text"] == TEXT


def test_streaming_verbose_json(call: Call) -> None:
    events = call({"stream": True, "response_format": "verbose_json"})
    assert [event["start"] for event in events if event["type"] == "transcript.text.segment"] == [0, 2.5, 5]


@pytest.mark.parametrize("response_format", ["text", "srt", "vtt"])
def test_plain_text(call: Call, response_format: str) -> None:
    assert "Hej och välkomna." in call({"response_format": response_format})


def test_the_rest_of_the_client(call: Call) -> None:
    assert "whisper-1" in call(method="models")
    assert call(method="translations")["text"] == TEXT
    assert call({"include": ["logprobs"], "languages": ["sv", "fi"], "keywords": ["Ärendet"]})["logprobs"]
    vad = {"type": "server_vad", "threshold": 0.4}
    assert call({"chunking_strategy": vad})["text"] == TEXT
    assert call(below="//v1")["text"] == TEXT


@pytest.mark.parametrize(
    ("fields", "more", "status", "code"),
    [
        ({}, {"secret": "sk-wrong"}, 401, "invalid_api_key"),
        ({}, {"content": "x" * 2_000_000}, 413, "request_too_large"),  # refused by the server itself
        ({}, {"content": "x" * 100_001}, 413, "file_too_large"),
        ({}, {"content": "bad file"}, 400, "no_audio"),
        ({}, {"content": "bad file"} | {"below": "/v1/"}, 400, "no_audio"),
        ({"model": "gpt-4o"}, {}, 404, "model_not_found"),
        ({"stream": True}, {"content": "bad file"}, 400, "no_audio"),
    ],
)
def test_errors_can_be_read(call: Call, fields: dict[str, Any], more: dict[str, str], status: int, code: str) -> None:
    found = call(fields, **more)
    assert (found["status"], found["code"]) == (status, code), found
    assert found["requestID"].startswith("req_")
