"""Floods a service from a process of its own, as gently as a process can be: a real flood's clients are elsewhere and
take none of the server's processor. `flooder.py PORT FLOOD CLIPS FILES SECONDS KEY…` says when it begins, and sends
until all is sent or it is killed."""

import contextlib
import http.client
import io
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import soundfile

from support.api_server_fixture import multipart
from support.worker_fixture import CLIPS, wav

THREADS = 8
TRANSCRIBE, JOBS = "/v1/audio/transcriptions", "/v1/jobs"
Request = tuple[str, str, bytes]  # path, key, and body
KIND = multipart({}, None)[1]


def body(content: bytes) -> bytes:
    """Of an upload."""
    return multipart({"model": "whisper-1"}, content)[0]


def spoken(seconds: float) -> bytes:
    """A WAV of the tests' recordings, again and again."""
    samples = np.concatenate([soundfile.read(clip, dtype="int16")[0] for clip in CLIPS])
    with io.BytesIO() as file:
        soundfile.write(file, np.resize(samples, int(seconds * 16_000)), 16_000, format="WAV")
        return file.getvalue()


def by_one(
    keys: list[str], clips: int, files: int, seconds: float, sound: Callable[[float], bytes] = wav
) -> Iterator[Request]:
    """One key sends long files as jobs, and clips as jobs and as requests that wait."""
    clip, file = body(sound(3.0)), body(sound(seconds))
    for kind, content, count in ((JOBS, file, files), (JOBS, clip, clips // 2), (TRANSCRIBE, clip, clips // 2)):
        yield from ((kind, keys[0], content) for _ in range(count))


def by_one_aloud(keys: list[str], clips: int, files: int, seconds: float) -> Iterator[Request]:
    """The same of speech, for a real model."""
    yield from by_one(keys, clips, files, seconds, spoken)


def by_many(keys: list[str], clips: int, files: int, seconds: float) -> Iterator[Request]:
    """Many keys share the clips."""
    clip = body(wav(3.0))
    yield from ((JOBS, keys[1 + number % (len(keys) - 1)], clip) for number in range(clips))


def by_nobody(keys: list[str], clips: int, files: int, seconds: float) -> Iterator[Request]:
    """Bodies without a key."""
    yield from ((JOBS, "", bytes(1_000_000)) for _ in range(clips))


FLOODS: dict[str, Callable[[list[str], int, int, float], Iterator[Request]]] = {
    flood.__name__: flood for flood in (by_one, by_one_aloud, by_many, by_nobody)
}


def send(port: int, request: Request) -> None:
    """Sends it, and waits for the answer."""
    path, key, content = request
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("POST", path, content, {**headers, "Content-Type": KIND, "Cache-Control": "no-cache"})
        connection.getresponse().read()
    connection.close()


def main(port: str, flood: str, clips: str, files: str, seconds: str, *keys: str) -> None:
    """See the module."""
    os.nice(19)
    requests = FLOODS[flood](list(keys), int(clips), int(files), float(seconds))
    print("begun", flush=True)
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(lambda request: send(int(port), request), requests))


if __name__ == "__main__":
    main(*sys.argv[1:])
