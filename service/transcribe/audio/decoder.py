"""Any recording that people send → blocks of mono 16 kHz float32, by ffmpeg in a process of its own that is held short.

Plain WAV alone is read without it (wav.py). The file is not trusted. ffmpeg gets no network and no second file
(protocol and format lists: without the latter a playlist named .wav makes it open other files), no standard input, a
memory and a CPU limit, and may write nothing but its output pipe. Its output is read as it comes, so that hours of
audio cost no more memory than seconds.
"""

import contextlib
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from transcribe.audio import wav
from transcribe.types import SAMPLE_RATE

FORMATS = "wav,w64,aiff,au,caf,mp3,aac,flac,ogg,mov,matroska,amr,amrnb,amrwb,asf,avi,mpeg,mpegts,ac3,eac3"
READ_BYTES = 1 << 20  # about 16 s of sound at a time
STALL_SECONDS = 30.0  # the longest that we wait for a decoder that gives nothing
MIN_SPEED = 10.0  # decoding must be faster than this many seconds of sound a second, once STALL_SECONDS are over
LOG_BYTES = 16_384  # of ffmpeg's messages that are kept from either end
GUESSED_SECONDS = 1.0  # a format that ffmpeg only guesses must give so much: UTF-16's first bytes look like MP3
TRUNCATED_SHARE, TRUNCATED_SECONDS = 0.02, 1.0  # less than the header promised by more than this: cut off


class AudioError(Exception):
    """A recording that cannot be used. `message` is for the client; `status` is the HTTP status, `code` OpenAI's."""

    def __init__(self, message: str, *, code: str = "invalid_audio", status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status


class Limits(Protocol):
    """The part of the configuration's limits that decoding obeys."""

    @property
    def audio_seconds(self) -> float: ...
    @property
    def decode_seconds(self) -> float: ...
    @property
    def decode_bytes(self) -> int: ...


def decode(path: Path, limits: Limits) -> Iterator[NDArray[np.float32]]:
    """Blocks of the recording, float32 in [-1, 1], mono, 16 kHz. Raises AudioError, at the end if need be."""
    with Decoder(path, limits) as decoder:
        yield from decoder


class Decoder:
    """A recording that is being read: iterate over it for blocks. `promised` is the header's duration in seconds, once
    known."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.promised: float | None = None
        self._path = path
        self._limits = limits
        self._seconds = 0.0
        self._waited = 0.0
        self._log = bytearray()
        self._plain: wav.PlainWav | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Decoder":
        try:
            size = self._path.stat().st_size
            shortfall = wav.shortfall(self._path)
            self._plain = wav.plain(self._path)
        except OSError as error:
            raise AudioError(f"the recording cannot be read ({error.strerror})") from None
        if size == 0:
            raise AudioError("the file is empty", code="empty_audio")
        if shortfall > TRUNCATED_SHARE:
            raise AudioError(f"the file is cut off: {shortfall:.0%} of its sound is missing", code="audio_truncated")
        if self._plain:
            self.promised = self._plain.seconds
            self._check_length(self.promised)
        else:
            self._start()
        return self

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            cwd="/",
            start_new_session=True,
            bufsize=0,
        )

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe:
                    pipe.close()

    def _command(self) -> list[str]:
        # prlimit instead of preexec_fn: forking a process with threads and gigabytes of model is slow and unsafe.
        return [
            *("prlimit", f"--as={self._limits.decode_bytes}", f"--cpu={int(self._limits.decode_seconds) + 1}"),
            *("--fsize=0", "--core=0", "--nofile=32", "--"),
            *("ffmpeg", "-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info", "-threads", "1"),
            *("-protocol_whitelist", "file", "-format_whitelist", FORMATS),
            *("-i", f"file:{self._path.absolute()}", "-map", "0:a:0", "-vn", "-sn", "-dn", "-map_metadata", "-1"),
            *("-filter_threads", "1", "-threads", "1", "-f", "f32le", "-ac", "1", "-ar", str(SAMPLE_RATE), "pipe:1"),
        ]

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for block in self._plain.blocks() if self._plain else self._decoded():
            self._seconds += len(block) / SAMPLE_RATE
            self._check_length(self._seconds)
            yield block
        self._check_end()

    def _decoded(self) -> Iterator[NDArray[np.float32]]:
        rest = b""
        for read in self._reads():
            data = rest + read
            whole = len(data) // 4 * 4
            rest = data[whole:]
            # A float file can hold NaN, infinity or values far outside [-1, 1]: the models must not see them.
            block = np.nan_to_num(np.frombuffer(data[:whole], np.float32), nan=0.0, posinf=1.0, neginf=-1.0)
            yield np.clip(block, -1.0, 1.0)

    def _reads(self) -> Iterator[bytes]:
        """What ffmpeg writes, as it comes; keeps its messages, and gives up on it when it is too slow."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        assert process.stderr is not None
        with selectors.DefaultSelector() as selector:
            for pipe in (process.stdout, process.stderr):
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map():
                began = time.monotonic()
                ready = selector.select(timeout=1.0)
                self._waited += time.monotonic() - began  # not the time that our reader takes: it may be days
                self._check_pace()
                for key, _ in ready:
                    data = os.read(key.fd, READ_BYTES)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is process.stderr:
                        self._note(data)
                    else:
                        yield data

    def _check_pace(self) -> None:
        if self._waited > min(self._limits.decode_seconds, STALL_SECONDS + self._seconds / MIN_SPEED):
            raise AudioError(f"decoding took too long ({self._waited:.0f} s for {self._seconds:.0f} s of sound)")

    def _check_length(self, seconds: float) -> None:
        if seconds > self._limits.audio_seconds:
            limit = self._limits.audio_seconds
            raise AudioError(f"the recording is longer than {limit:.0f} s", code="audio_too_long", status=413)

    def _note(self, data: bytes) -> None:
        self._log += data
        if len(self._log) > 2 * LOG_BYTES:  # a broken file can make ffmpeg say a line a frame
            del self._log[LOG_BYTES:-LOG_BYTES]
        if self.promised is None and b"Estimating" not in self._log and (found := DURATION.search(self._log)):
            hours, minutes, seconds = found.groups()
            self.promised = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
            self._check_length(self.promised)

    def _check_end(self) -> None:
        """Judges what came, once nothing more does."""
        if self._process is not None:
            self._check_ffmpeg(self._process)
        if self._seconds == 0:
            raise self._explained()
        lacking = (self.promised or 0.0) - self._seconds
        if lacking > max(TRUNCATED_SECONDS, TRUNCATED_SHARE * self._seconds):
            raise AudioError(
                f"the file is cut off: it promises {self.promised:.1f} s of sound and holds {self._seconds:.1f} s",
                code="audio_truncated",
            )

    def _check_ffmpeg(self, process: subprocess.Popen[bytes]) -> None:
        try:
            status = process.wait(timeout=STALL_SECONDS)
        except subprocess.TimeoutExpired:
            raise AudioError("decoding took too long") from None
        if status in (-signal.SIGXCPU, -signal.SIGKILL):
            raise AudioError(f"decoding took more than {self._limits.decode_seconds:.0f} s of processor time")
        if status != 0:
            raise self._explained()
        if self._seconds < GUESSED_SECONDS and b"misdetection possible" in self._log:
            raise AudioError("the file is not a recording, or it is damaged")

    def _explained(self) -> AudioError:
        for pattern, code, message in EXPLANATIONS:
            if re.search(pattern, self._log):
                return AudioError(message, code=code)
        return AudioError("the file holds no sound that can be decoded")


DURATION = re.compile(rb"Duration: (\d+):(\d\d):(\d\d\.\d+)")
EXPLANATIONS = (  # what ffmpeg says, OpenAI's code, what we say; the first that fits
    (rb"matches no streams|does not contain any stream", "no_audio", "the file has no sound track"),
    (rb"ot on whitelist", "unsupported_format", "the file is a playlist or in a format that is not accepted"),
    (rb"moov atom not found", "audio_truncated", "the file is cut off: its index (moov atom) is missing"),
    (rb"(?i)cannot allocate memory", "invalid_audio", "the file needs more memory to decode than is allowed"),
    (rb"Invalid data found", "invalid_audio", "the file is not a recording, or it is damaged"),
)
