"""How the machine reaches the launcher: uploads to signed URLs (progress, log, report), and the console."""

import json
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from driver.parameters import DriverError, Parameters

CONSOLE = Path("/dev/console")
PROGRESS_SECONDS = 1.0  # between two progress messages
END_SECONDS = 6.0  # a message that is on its way has five seconds
RENEW_SECONDS = 60.0  # between two looks whether the launcher has renewed the addresses
TRIES = 6  # for what must arrive
LOG_BYTES = 4_000_000  # of a log's end


def put(parameters: Parameters, name: str, data: bytes, *, tries: int = TRIES, timeout: float = 60) -> None:
    """Put `data` at one of the addresses, trying again with growing pauses; raises DriverError."""
    # Without a type of our own urllib would add one, which older signatures do not cover.
    url, headers = parameters.address(name), {"Content-Type": "", **parameters.upload_headers()}
    for attempt in range(1, tries + 1):
        request = urllib.request.Request(url, data=data, method="PUT", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout):
                return
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"HTTP {error.code}"
        except OSError as error:
            reason = str(getattr(error, "reason", error))
        if attempt < tries:
            time.sleep(min(2**attempt, 20))
    raise DriverError(f"could not deliver: {reason}")


def get(url: str, path: Path, *, timeout: float = 300) -> None:
    """Fetch a signed address into a file; raises DriverError, which does not name the address."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer, path.open("wb") as file:
            while block := answer.read(1 << 20):
                file.write(block)
    except urllib.error.HTTPError as error:
        error.close()
        raise DriverError(f"could not fetch: HTTP {error.code}") from None
    except OSError as error:
        raise DriverError(f"could not fetch: {getattr(error, 'reason', error)}") from None


def renew(parameters: Parameters) -> None:
    """Fetch the addresses again: the launcher replaces them before the credentials that signed them end."""
    fresh = parameters.addresses.with_suffix(".new")
    try:
        get(parameters.address("addresses"), fresh, timeout=20)
        if "report_url" in json.loads(fresh.read_text()):
            fresh.replace(parameters.addresses)
    except (DriverError, ValueError) as error:
        print(f"addresses: {error}", flush=True)


def console(line: str) -> None:
    """Write a line of its own to the console; a machine without one is no reason to fail."""
    try:
        with CONSOLE.open("w") as file:
            file.write(f"\r\n{line}\r\n")
    except OSError:
        print(line, flush=True)


class Progress:
    """Sends progress to the launcher from its own thread, so that a slow network does not slow the bake.

    Leaving its context ends the thread; what was not sent by then is not sent.
    """

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._began = time.monotonic()
        self._latest: dict[str, Any] = {}
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="progress")
        self._thread.start()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(timeout=END_SECONDS)

    def update(self, phase: str, state: str = "", done: int = 0, total: int = 0) -> None:
        """Set the progress to send next; an update that was not sent yet is replaced."""
        with self._changed:
            self._latest = {"phase": phase, "state": state, "done": done, "total": total}
            self._changed.notify()

    def _run(self) -> None:
        sent: dict[str, Any] = {}
        renewed = time.monotonic()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._latest != sent, timeout=RENEW_SECONDS)  # noqa: B023
                latest = self._latest
                if self._ended:
                    return
            if time.monotonic() - renewed >= RENEW_SECONDS:
                renew(self._parameters)
                renewed = time.monotonic()
            if latest != sent and not self._ended:  # renewing may have taken long
                sent = latest
                self._send(sent)
                with self._changed:
                    self._changed.wait_for(lambda: self._ended, timeout=PROGRESS_SECONDS)

    def _send(self, progress: dict[str, Any]) -> None:
        seconds = round(time.monotonic() - self._began, 1)
        message = {"build_id": self._parameters.build_id, **progress, "seconds": seconds}
        try:
            put(self._parameters, "progress", json.dumps(message).encode(), tries=1, timeout=5)
        except DriverError as error:
            print(f"progress: {error}", flush=True)
