"""Runs the server until a graceful stop, and reports its state to systemd."""

import contextlib
import http
import ipaddress
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType

from flask import Flask

from transcribe import logs
from transcribe.api.app import context_of, create_app
from transcribe.api.context import AppContext
from transcribe.api.retention import RetentionThread
from transcribe.api.webhooks import WebhookSender, read_secret
from transcribe.api.wsgi import Server, create_server
from transcribe.config import EXIT_CONFIG, ConfigError, ServiceConfig, check_user, default_path, load
from transcribe.jobs.database import set_sharing
from transcribe.jobs.store import Store, StoreError
from transcribe.sdnotify import notify, watchdog_seconds

EXIT_FAILURE = 1
DRAIN_SECONDS = 20.0  # how long running requests may take when the server is asked to stop
LAST_SECONDS = 2.0  # how long the remaining requests then have to receive a 503
CHECK_SECONDS = 10.0  # an answer that takes longer is a hang
OPEN_FILES = 8192
STORE_SECONDS = 4.0  # how long a request waits for the job store; then its client gets a 503


def run() -> int:
    """Serve as transcribe.json says; returns the program's exit code."""
    try:
        config = load(default_path())
        check(config)
        for folder in (config.temp, config.results):
            folder.mkdir(parents=True, exist_ok=True)
        tempfile.tempdir = str(config.temp)  # waitress keeps large requests in nameless files there
        logs.configure()
        serve(config)
    except ConfigError as error:
        print(f"api_server: {error}", file=sys.stderr)
        return EXIT_CONFIG
    except (StoreError, OSError, ValueError) as error:
        print(f"api_server: {error}", file=sys.stderr)
        return EXIT_FAILURE
    return 0


def check(config: ServiceConfig) -> None:
    """Checks that the configuration is safe to serve with. Raises ConfigError."""
    check_user(config)
    if not config.auth.keys_file and not is_loopback(config.host):
        raise ConfigError(f"host {config.host} can be reached from a network: set auth.keys_file, or host to 127.0.0.1")
    for name in (config.auth.keys_file, config.callbacks.secret_file if config.callbacks.enabled else ""):
        if name and not os.access(name, os.R_OK):
            raise ConfigError(f"{name} cannot be read: create it, readable for {config.user}")
    if config.callbacks.enabled and not config.callbacks.secret_file:
        raise ConfigError("callbacks.enabled needs callbacks.secret_file")
    if config.callbacks.enabled:
        try:
            read_secret(Path(config.callbacks.secret_file))
        except ValueError as error:
            raise ConfigError(f"callbacks.secret_file {error}") from None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(config: ServiceConfig) -> None:
    """Serves until SIGTERM or SIGINT. Raises OSError or StoreError if it cannot start."""
    _raise_file_limit()
    set_sharing(config.database, shared=config.fleet.on)
    store = Store(config.database, busy_seconds=STORE_SECONDS)
    app = create_app(config, store)
    shared = context_of(app)
    server = create_server(app, config)
    helpers: list[RetentionThread | WebhookSender] = [RetentionThread(config, store)]
    if config.callbacks.enabled and not config.fleet.on:  # then the feeder makes them
        helpers.append(WebhookSender(store, Path(config.callbacks.secret_file)))
    for helper in helpers:
        helper.start()
    stop_on_signals(shared, server)
    threading.Thread(target=_watchdog, args=(server, app), name="watchdog", daemon=True).start()
    logs.event("listening", host=server.effective_host, port=int(server.effective_port))
    notify("READY=1\nSTATUS=listening")
    server.run()
    for helper in helpers:
        helper.stop()
    shared.watcher.stop()
    logs.event("stopped")


def stop_on_signals(shared: AppContext, server: Server) -> None:
    """The first signal drains, then stops; a second one stops at once."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        if shared.draining.is_set():
            raise SystemExit
        shared.draining.set()
        threading.Thread(target=_drain, args=(shared, server), name="drain", daemon=True).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def _drain(shared: AppContext, server: Server) -> None:
    notify("STOPPING=1\nSTATUS=draining")
    logs.event("draining", requests=_busy(server))
    _until_idle(server, DRAIN_SECONDS)
    shared.closing.set()
    _until_idle(server, LAST_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _until_idle(server: Server, seconds: float) -> None:
    end = time.monotonic() + seconds
    while _busy(server) and time.monotonic() < end:
        time.sleep(0.05)


def _busy(server: Server) -> int:
    """Connections with a request that is being answered."""
    return sum(bool(channel.requests) for channel in list(server.active_channels.values()))


def _watchdog(server: Server, app: Flask) -> None:
    """Notifies systemd while the server's loop runs and one of its threads gets an answer from the application.

    Not through the port, which clients can keep busy; nor by a timer alone, which would hide a hang.
    """
    interval = watchdog_seconds()
    if interval is None:
        return
    while True:
        probe = Probe(app)
        server.add_task(probe)
        if probe.answered.wait(CHECK_SECONDS) and time.monotonic() - server.polled < CHECK_SECONDS:
            notify("WATCHDOG=1")
        time.sleep(interval / 4)


class Probe:
    """A task for waitress's threads that requests /health from the application."""

    def __init__(self, app: Flask) -> None:
        self.answered = threading.Event()
        self._client = app.test_client()

    def service(self) -> None:
        """Sends the request; called by a thread of the server."""
        if self._client.get("/health").status_code == http.HTTPStatus.OK:
            self.answered.set()

    def cancel(self) -> None:
        """Called when the server stops first."""


def _raise_file_limit() -> None:
    """Each connection is an open file, and a body in flight another; shells allow 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES:
        with contextlib.suppress(OSError, ValueError):
            wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
