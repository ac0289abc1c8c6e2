"""api_server.py as a process of its own."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.api_server_fixture import HttpRequests

PROGRAM = Path(__file__).resolve().parents[2] / "service" / "api_server.py"


@dataclass
class ApiProcess(HttpRequests):
    """A started api_server.py."""

    popen: "subprocess.Popen[bytes]"
    log: Path
    port: int
    notified: socket.socket

    def stop(self, number: int) -> list[dict[str, Any]]:
        """Sends the signal, waits for the end, returns what was logged."""
        self.popen.send_signal(number)
        self.popen.wait(30)
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def started(root: Path, config: dict[str, Any], **environment: str) -> Iterator[ApiProcess]:
    """Starts it with this configuration, and waits until it is ready."""
    file = root / "transcribe.json"
    file.write_text(json.dumps(config))
    address = root / "notify"
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(address))
        notified.settimeout(20)
        variables = {"TRANSCRIBE_CONFIG": str(file), "NOTIFY_SOCKET": str(address), "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, str(PROGRAM)]
        log = root / "api.log"  # a file: a full pipe would stop the server
        output: dict[str, Any] = {"stdout": log.open("wb"), "stderr": subprocess.STDOUT}
        with (
            output["stdout"],
            subprocess.Popen(command, env={**os.environ, **variables, **environment}, **output) as popen,
        ):
            try:
                assert notified.recv(200).startswith(b"READY=1")
                yield ApiProcess(popen, log, config["port"], notified)
            finally:
                popen.kill()
