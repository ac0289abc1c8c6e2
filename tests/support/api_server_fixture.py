"""The real HTTP server on a free port, with a worker that needs no model."""

import http.client
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import yaml
from flask import Flask
from transcribe.api import context_of, create_app
from transcribe.api.context import AppContext
from transcribe.api.retention import RetentionThread
from transcribe.api.wsgi import Server, create_server
from transcribe.config import ServiceConfig
from transcribe.jobs.store import Store

from support.fake_worker import FakeWorker

if TYPE_CHECKING:
    import openai

PILLAR = Path(__file__).resolve().parents[2] / "salt" / "pillar" / "transcribe.sls"


def settings(root: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The pillar's configuration below `root`, with `changes` by dotted key; `__` stands for the dot in keywords."""
    mapping: dict[str, Any] = deepcopy(yaml.safe_load(PILLAR.read_text())["transcribe"])
    for key, value in {"root": str(root), "speakers.model": "", **changes}.items():
        *parents, last = key.replace("__", ".").split(".")
        section = mapping
        for parent in parents:
            section = section[parent]
        section[last] = value
    for name in ("temp", "results", "cache"):
        (root / name).mkdir(parents=True, exist_ok=True)
    return mapping


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@dataclass
class Api:
    """A running service."""

    config: ServiceConfig
    store: Store
    worker: FakeWorker
    app: Flask
    server: Server

    @property
    def shared(self) -> AppContext:
        """The application's parts."""
        return context_of(self.app)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server.effective_port}"

    def client(self, key: str = "unused", **options: Any) -> "openai.OpenAI":
        """The official client for it, which does not retry unless `options` say so."""
        import openai  # not on every machine with a GPU

        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, **{"max_retries": 0, **options})

    def get(self, path: str, **headers: str) -> "Reply":
        """A plain GET."""
        return self.send("GET", path, headers=headers)

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> "Reply":
        """Any request."""
        request = urllib.request.Request(self.url + path, body, dict(headers or {}), method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return Reply(answer.status, answer.read(), dict(answer.headers))
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.read(), dict(error.headers))

    def upload(self, path: str, content: bytes = b"sound", *, key: str = "", **fields: Any) -> "Reply":
        """A multipart POST; a field whose value is a list is repeated. `filename` names the file."""
        body, content_type = multipart({"model": "whisper-1", **fields}, content)
        headers = {"Content-Type": content_type, **({"Authorization": f"Bearer {key}"} if key else {})}
        return self.send("POST", path, body, headers)


@dataclass(frozen=True)
class Reply:
    """An answer."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        """Its JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The error's code; the body must be exactly OpenAI's error object."""
        assert set(self.json) == {"error"}
        assert set(self.json["error"]) == {"message", "type", "param", "code"}
        code: str | None = self.json["error"]["code"]
        return code


class HttpRequests:
    """Requests to a server process on this host's `port`, each with the class's `headers`."""

    port: int
    headers: ClassVar[Mapping[str, str]] = {}

    def request(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> Reply:
        """One request. Raises OSError or http.client.HTTPException when the server goes away."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            connection.request(method, path, body, {**self.headers, "Content-Type": kind} if kind else {**self.headers})
            answer = connection.getresponse()
            return Reply(answer.status, answer.read(), dict(answer.headers))
        finally:
            connection.close()

    def upload(self, path: str, content: bytes, **fields: Any) -> Reply:
        """A multipart POST."""
        return self.request("POST", path, *multipart({"model": "whisper-1", **fields}, content))


def multipart(fields: Mapping[str, Any], content: bytes | None) -> tuple[bytes, str]:
    """A body and its content type. None as a field's value leaves it out."""
    filename = fields.get("filename", "clip.wav")
    parts = []
    for name, values in fields.items():
        if name != "filename":
            head = f'--BOUND\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
            given = values if isinstance(values, list) else [values]
            parts += [f"{head}{value}\r\n".encode() for value in given if value is not None]
    if content is not None:
        head = f'--BOUND\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n\r\n'
        parts.append(head.encode() + content + b"\r\n")
    return b"".join([*parts, b"--BOUND--\r\n"]), "multipart/form-data; boundary=BOUND"


@contextmanager
def running(root: Path, *, delay: float = 0.0, grace: float = 0.3, **changes: Any) -> Iterator[Api]:
    """The service below `root`; keyword names are configuration keys with `__` for the dot."""
    config = ServiceConfig.from_mapping(settings(root, changes))
    store = Store(config.database)
    worker = FakeWorker(store, config.temp, delay=delay).start()
    app = create_app(config, store, grace=grace)
    server = create_server(app, config, port=0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield Api(config, store, worker, app, server)
    finally:
        context_of(app).closing.set()
        worker.stop()
        server.task_dispatcher.shutdown(timeout=5)
        server.close()
        context_of(app).watcher.stop()
        store.close()


def run_retention(api: Api, now: float) -> None:
    """One round of the retention thread, at the Unix time `now`."""
    RetentionThread(api.config, api.store).once(now)
