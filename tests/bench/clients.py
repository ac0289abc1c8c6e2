#!/usr/bin/env python3
"""Clients of a server, in processes of their own: what is measured is the server's work and not theirs.

`clients.py URL THREADS CLIP...` is one such process. Once a line comes in its threads send the WAVs, each one after the
other; it prints the seconds that each took, as JSON.
"""

import http
import http.client
import json
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

TIMEOUT = 600.0
PROCESSES = 8  # at most; more clients are threads of these


def transcribe(url: str, clip: bytes) -> tuple[str, float]:
    """The text of a WAV through POST /v1/audio/transcriptions, and the seconds that it took. Exits on an error."""
    boundary = uuid.uuid4().hex
    part = f'--{boundary}\r\nContent-Disposition: form-data; name="'
    fields = {"model": "whisper-1", "language": "en", "response_format": "text"}
    body = "".join(f'{part}{name}"\r\n\r\n{value}\r\n' for name, value in fields.items())
    body += f'{part}file"; filename="clip.wav"\r\n\r\n'
    whole = body.encode() + clip + f"\r\n--{boundary}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Cache-Control": "no-cache"}  # as if new
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT)
    began = time.perf_counter()
    connection.request("POST", "/v1/audio/transcriptions", whole, kind)
    answer = connection.getresponse()
    text = answer.read().decode()
    seconds = time.perf_counter() - began
    connection.close()
    if answer.status != http.HTTPStatus.OK:
        sys.exit(f"{url} answered {answer.status}: {text.strip()[:200]}")
    return text, seconds


def load(url: str, clips: Sequence[bytes], clients: int) -> tuple[float, list[float]]:
    """Seconds for all clips sent by so many clients, and each request's."""
    count = min(clients, PROCESSES)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / str(number) for number in range(len(clips))]
        for file, clip in zip(files, clips, strict=True):
            file.write_bytes(clip)
        shares = [(files[first::count], len(range(first, clients, count))) for first in range(count)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes = [
            subprocess.Popen([sys.executable, __file__, url, str(threads), *map(str, share)], **pipes)  # type: ignore[call-overload]
            for share, threads in shares
        ]
        for process in processes:
            process.stdout.readline()  # it is ready
        began = time.perf_counter()
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        told = [process.communicate()[0] for process in processes]
    return time.perf_counter() - began, [seconds for each in told for seconds in json.loads(each)]


def main() -> None:
    url, threads, *files = sys.argv[1:]
    clips = [Path(file).read_bytes() for file in files]
    print(flush=True)
    sys.stdin.readline()
    with ThreadPoolExecutor(int(threads)) as pool:
        print(json.dumps([seconds for _, seconds in pool.map(lambda clip: transcribe(url, clip), clips)]))


if __name__ == "__main__":
    main()
