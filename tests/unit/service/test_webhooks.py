"""Webhooks go to public addresses only, are signed, and are retried until they arrive or have failed often enough."""

import contextlib
import hashlib
import hmac
import socket
import threading
import time
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.api_server_fixture import settings
from transcribe.api.errors import ApiError
from transcribe.api.webhooks import TRIES, WebhookSender, check, deadline, public_address, signature
from transcribe.config import ServiceConfig, WebhookConfig
from transcribe.jobs.models import Job, NewJob
from transcribe.jobs.store import Store
from transcribe.types import DecodeOptions

pytestmark = pytest.mark.attack

SECRET = "a secret of enough bytes"


@pytest.fixture
def config(tmp_path: Path) -> ServiceConfig:
    found = ServiceConfig.from_mapping(settings(tmp_path, {}))
    return replace(found, callbacks=WebhookConfig(enabled=True, secret_file="/secret"))


@pytest.mark.parametrize("url", ["", "https://example.org/done?x=1", "https://example.org:443"])
def test_urls_that_may_be_called(config: ServiceConfig, url: str) -> None:
    check(config, url)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "https://example.org:8443/",
        "https://user:password@example.org/",
        "https:///path",
        "ftp://example.org/",
        "https://exa mple.org/",
        "https://example.org/\r\nX: y",
        "https://[::1/",
        "https://example.org:x/",
        "https://" + "a" * 3000,
        "file:///etc/passwd",
    ],
)
def test_urls_that_may_not(config: ServiceConfig, url: str) -> None:
    with pytest.raises(ApiError) as caught:
        check(config, url)
    assert caught.value.code == "invalid_url"


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.7"],
        ["192.168.1.1"],
        ["169.254.169.254"],
        ["100.64.0.1"],
        ["0.0.0.0"],
        ["224.0.0.1"],
        ["::1"],
        ["fe80::1"],
        ["fd00::1"],
        ["::ffff:10.0.0.1"],
        ["93.184.216.34", "127.0.0.1"],
        ["64:ff9b::a00:1"],
        ["64:ff9b:1::a00:1"],
        ["2002:a00:1::1"],
        ["2001::1"],
        ["fec0::1"],
        ["::10.0.0.1"],
        ["240.0.0.1"],
        ["198.18.0.1"],
        [],
    ],
)
def test_addresses_inside_are_refused(addresses: list[str]) -> None:
    with pytest.raises(OSError, match="callback's host"):
        public_address("example.org", 443, lambda _host, _port: addresses)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"])
def test_a_public_address_is_taken(address: str) -> None:
    assert public_address("example.org", 443, lambda _host, _port: [address]) == address


@pytest.mark.parametrize("content", ["", "\n", "short"])
def test_a_secret_that_can_be_guessed_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "secret").write_text(content)
    with pytest.raises(ValueError, match="at least 16"):
        WebhookSender(Store(tmp_path / "jobs.sqlite3"), tmp_path / "secret")


def test_a_receiver_that_dribbles_is_left() -> None:
    ours, theirs = socket.socketpair()
    left = threading.Event()

    def dribble() -> None:
        with contextlib.suppress(OSError):
            while not left.wait(0.01):
                theirs.sendall(b"x")

    thread = threading.Thread(target=dribble)
    thread.start()
    with ours, theirs, deadline(ours, 0.2):
        while ours.recv(1):
            pass
        left.set()
        thread.join()


def test_a_slow_receiver_keeps_neither_others_nor_the_end_waiting(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.sqlite3")
    jobs = [store.create(NewJob("", DecodeOptions(None), callback=f"https://{n}.example/")) for n in range(3)]
    for job in jobs:
        store.cancel(job.id)
    (tmp_path / "secret").write_text(SECRET)
    free = threading.Event()

    def send(job: Job, _secret: bytes) -> int:
        if job.id == jobs[0].id:
            free.wait(20)
        return 200

    sender = WebhookSender(store, tmp_path / "secret", send=send)
    sender.start()
    end = time.monotonic() + 10
    while len(store.pending_webhooks()) > 1:
        assert time.monotonic() < end, "the slow one keeps the others waiting"
        time.sleep(0.01)
    assert [job.id for job in store.pending_webhooks()] == [jobs[0].id]
    sender.stop()
    free.set()


def test_the_signature_covers_the_moment_and_the_body() -> None:
    expected = hmac.new(b"secret", b'1700000000.{"a":1}', hashlib.sha256).hexdigest()
    assert signature(b"secret", 1700000000, b'{"a":1}') == expected


@pytest.mark.parametrize(
    ("outcomes", "calls"), [([200], 1), ([500, 204], 2), ([OSError("no route"), 302, 500, 200], TRIES)]
)
def test_a_callback_is_tried_until_it_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcomes: list[int | OSError], calls: int
) -> None:
    store = Store(tmp_path / "jobs.sqlite3")
    job = store.create(NewJob("", DecodeOptions(None), callback="https://example.org/", detached=True))
    store.cancel(job.id)
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    made: list[str] = []
    synced: list[int] = []
    monkeypatch.setattr(store, "sync", lambda: synced.append(len(made)))

    def send(found: Job, secret: bytes) -> int:
        assert secret == SECRET.encode()
        assert synced[-1] == len(made), "what a power cut may take back is told"
        made.append(found.id)
        outcome = outcomes[len(made) - 1]
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    caller = WebhookSender(store, tmp_path / "secret", send=send)
    caller.once()
    caller.once()
    assert len(made) == 1, "a failed call waits before it is repeated"
    now = iter(range(10**6, 10**9, 10**6))
    monkeypatch.setattr("transcribe.api.webhooks.time.monotonic", lambda: float(next(now)))
    for _ in range(5):
        caller.once()
    assert made == [job.id] * calls
    assert store.pending_webhooks() == []
