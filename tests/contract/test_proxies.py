"""The service behind nginx and HAProxy, as docs/proxies.md sets them up."""

import http.client
import json
import re
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import openai
import pytest
from support.api_server_fixture import Api, multipart, running
from support.proxies import certificate, proxy
from support.waiting import until
from transcribe.keys import new_key

pytestmark = pytest.mark.slow
TEXT = "Hej och välkomna. Nu ska vi tala om Ärendet. Tack --> slut & adjö."
TRANSCRIBE = "/v1/audio/transcriptions"
ORIGIN = "https://app.example"


@dataclass
class Site:
    """The service as its users see it: `below` is the prefix."""

    api: Api
    port: int
    below: str
    key: str
    tls: ssl.SSLContext

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        """One request; a body that is an iterator goes in chunks. Underscores in header names are hyphens."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=self.tls)
        given = {"Authorization": f"Bearer {self.key}"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        try:
            connection.request(method, self.below + path, body, given)
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.headers.items()}
        finally:
            connection.close()

    def client(self) -> openai.OpenAI:
        """The official client."""
        url = f"https://127.0.0.1:{self.port}{self.below}/v1"
        return openai.OpenAI(
            base_url=url, api_key=self.key, max_retries=0, http_client=openai.DefaultHttpxClient(verify=self.tls)
        )


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    key, line = new_key("anna")
    (folder / "keys").write_text(line)
    changes: dict[str, Any] = {"auth__keys_file": str(folder / "keys"), "cors__origins": [ORIGIN]}
    tls = ssl.create_default_context(cafile=certificate(folder))
    with (
        running(folder / "root", delay=0.2, limits__upload_bytes=30_000_000, **changes) as api,
        proxy(request.param, folder, int(api.server.effective_port)) as port,
    ):
        site = Site(api, port, "", key, tls)
        until(lambda: site.ask("GET", "/health")[0] == 200)
        yield site


@pytest.fixture(params=["", "/speech"])
def site(front: Site, request: pytest.FixtureRequest) -> Site:
    return Site(front.api, front.port, request.param, front.key, front.tls)


def form(content: bytes) -> tuple[bytes, str]:
    return multipart({"model": "whisper-1"}, content)


def test_text_and_streams(site: Site) -> None:
    moments, events = [], []
    with site.client() as client:
        file = ("clip.wav", f"streamed {site.below}".encode())
        for event in client.audio.transcriptions.create(file=file, model="whisper-1", stream=True):
            moments.append(time.monotonic())
            events.append(event)
        assert events[-1].text == TEXT  # type: ignore[union-attr]
        assert moments[2] - moments[0] > 0.1, "the deltas came all at once"
        assert client.audio.transcriptions.create(file=file, model="whisper-1").text == TEXT
        assert {model.id for model in client.models.list()} >= {"whisper-1"}


def test_large_uploads(site: Site) -> None:
    body, kind = form(b"large" * 4_000_000)
    status, answer, _ = site.ask("POST", TRANSCRIBE, body, Content_Type=kind)
    assert (status, json.loads(answer)["text"]) == (200, TEXT)
    status, answer, headers = site.ask("POST", TRANSCRIBE, body * 2, Content_Type=kind, Origin=ORIGIN)
    assert (status, json.loads(answer)["error"]["code"]) == (413, "request_too_large")
    assert headers["access-control-allow-origin"] == ORIGIN


def test_strangers_are_refused_with_a_reason(site: Site) -> None:
    body, kind = form(b"stranger" * 1_000_000)
    status, answer, _ = site.ask("POST", TRANSCRIBE, body, Content_Type=kind, Authorization="Bearer sk-wrong")
    assert (status, json.loads(answer)["error"]["code"]) == (401, "invalid_api_key")


def test_a_live_upload_passes_as_it_is_spoken(site: Site) -> None:
    body, kind = form(b"live" * 5000)
    arrived: list[int] = []

    def spoken() -> Iterator[bytes]:
        for start in range(0, len(body), 2000):
            yield body[start : start + 2000]
            time.sleep(0.1)
            arrived.extend(request.body_bytes_received for request in site.api.server._unfinished())

    assert site.ask("POST", TRANSCRIBE, spoken(), Content_Type=kind)[0] == 200
    assert len(set(arrived)) > 3, "the proxy kept the upload to itself"


def test_jobs_are_found_again(site: Site) -> None:
    body, kind = form(f"a job {site.below}".encode())
    status, answer, headers = site.ask("POST", "/v1/jobs", body, Content_Type=kind)
    job = json.loads(answer)["id"]
    assert (status, headers["location"]) == (202, f"{site.below}/v1/jobs/{job}")
    until(lambda: json.loads(site.ask("GET", f"/v1/jobs/{job}")[1])["status"] == "done")
    assert site.ask("GET", f"/v1/jobs/{job}/result?format=srt")[1].startswith(b"1\n00:00:00,000")


def test_the_page_and_its_files(site: Site) -> None:
    status, page, _ = site.ask("GET", "/")
    assert status == 200
    links = re.findall(r'(?:href|src)="([^"#]+)"', page.decode())
    assert len(links) >= 3
    for link in links:
        whole = urljoin(f"{site.below}/", link)
        assert whole.startswith(f"{site.below}/")
        assert site.ask("GET", whole.removeprefix(site.below))[0] == 200
    if site.below:
        status, _, headers = site.ask("GET", "")
        assert status in (301, 308)
        assert headers["location"].endswith("/speech/")


def test_pages_of_other_origins(site: Site) -> None:
    asked = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization,x-stainless-os"}
    status, _, headers = site.ask("OPTIONS", TRANSCRIBE, Origin=ORIGIN, Authorization="", **asked)
    assert (status, headers["access-control-allow-headers"]) == (204, "authorization,x-stainless-os")


@pytest.mark.parametrize("path", ["//v1/models", "/v1/models/", "/ready", "/health/", "/openapi.json"])
def test_odd_paths(site: Site, path: str) -> None:
    assert site.ask("GET", path)[0] == 200
