"""ffmpeg and ffprobe in processes of their own that are held short. The file is not trusted.

They get no network and no second file (protocol and format lists: without the latter a playlist named .wav makes them
open other files), no standard input, a memory and a processor limit, and may write nothing but their pipes. Figures are
read from structured output alone: a log repeats the file's tags, which can say anything.
"""

import contextlib
import io
import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transcribe.audio import mp4, wav
from transcribe.audio.errors import AudioError, DecoderError, Limits, explained
from transcribe.types import SAMPLE_RATE

# Every container and codec of one file that Debian's ffmpeg can recognise by its content and that may hold speech. Left
# out: what names other files (playlists, manifests), pictures, subtitles, module music, games' formats, raw samples.
FORMATS = (
    "wav,w64,aiff,au,caf,voc,sox,ircam,nistsphere,avr,pvf,sds,mp3,aac,loas,ac3,eac3,truehd,mlp,dts,dtshd,spdif,s337m,"
    "flac,ogg,wv,tta,ape,tak,mpc,mpc8,shn,amr,amrnb,amrwb,gsm,ilbc,qcp,codec2,sln,aea,oma,dss,iff,dsf,wsd,"
    "wve,adx,xwma,act,mov,matroska,webm,avi,asf,asf_o,flv,live_flv,kux,mpeg,mpegts,mpegtsraw,mxf,gxf,"
    "lxf,dv,nut,nuv,rm,ivr,swf,wtv,ty,smjpeg,dhav,nsv,vivo,pmp,xa,aa"
)
READ_BYTES = 1 << 20
BLOCK_SECONDS = 2.0  # frames are handed on in blocks of about this length
STALL_SECONDS = 30.0  # the longest that we wait for a decoder that gives nothing
WORKED = 0.5  # share of the time it was given: a decoder that used less of the processor waited for the machine
MIN_SPEED = 10.0  # decoding must be faster than this many seconds of sound a second, once STALL_SECONDS are over
DAMAGE = re.compile(
    rb"(?i)packet corrupt|ended prematurely|incomplete frame|partial file|exhausted before|lost sync|size too small|"
    rb"no index at the end|\[error\] (?:file:[^\n]*|error during demuxing): (?:invalid argument|input/output error)"
)
LOG_BYTES = 16_384  # of messages that are kept from either end
HEAD_BYTES = 4096
SPEEX = re.compile(rb"OggS.{24}Speex   ", re.DOTALL)
SYNC, TRANSPORT_PACKETS = ord("G"), (188, 192, 204)  # bytes
NO_THREAD = b"pthread_create() failed"
HARMLESS = re.compile(  # the last is said by newer versions of the list of tracks
    rb"[^\n]*(Guessed Channel Layout|Multiple frames in a packet|Estimating duration|"
    rb"Output file is empty, nothing was encoded)[^\n]*\n?"
)


@dataclass(frozen=True)
class Frames:
    """Decoded frames without a gap: the first one's timestamp in samples from the container's start, and the samples
    as [frames, channels]."""

    timestamp: int
    samples: NDArray[np.float32]


@dataclass
class Run:
    """Frames that follow each other: the first one's timestamp, and the samples and bytes of all."""

    timestamp: int = 0
    samples: int = 0
    size: int = 0

    def apart(self, timestamp: int, samples: int, size: int) -> bool:
        """Whether a frame does not follow those that are in it, or has other channels."""
        if not self.samples:
            return False
        gap = abs(timestamp - self.timestamp - self.samples) > JOINED
        return gap or size * self.samples != self.size * samples

    def add(self, timestamp: int, samples: int, size: int) -> None:
        """Takes the next frame."""
        if not self.samples:
            self.timestamp = timestamp
        self.samples += samples
        self.size += size


@dataclass(frozen=True)
class Span:
    """The part of a file's bytes that is decoded: from `begin` to `end`, 0 being the file's own."""

    begin: int = 0
    end: int = 0


WHOLE = Span()


class Ffmpeg:
    """Decodes one audio track to 16 kHz. Use it as a context manager and iterate over `frames`."""

    def __init__(self, path: Path, limits: Limits, track: int, span: Span = WHOLE) -> None:
        self.log = bytearray()
        self._limits = limits
        self._waited = 0.0
        self._samples = 0
        self._bytes = bytearray()
        self._lines = bytearray()
        self._clock: deque[tuple[int, int, int]] = deque()  # timestamp, samples and bytes of frames that are coming
        self._run = Run()  # frames that have come and are not handed on yet
        self._list = bytearray()
        self._pipes = [os.pipe() for _ in range(2)]  # of the clock and of the list of tracks
        writes = tuple(write for _, write in self._pipes)
        try:
            command = [*held(limits), *_command(path, track, span, *writes)]
            self._process = _started(command, stderr=subprocess.PIPE, pass_fds=writes)
        except BaseException:
            self._close_pipes()
            raise
        finally:
            for write in writes:
                os.close(write)

    def __enter__(self) -> "Ffmpeg":
        return self

    def __exit__(self, *_: object) -> None:
        end(self._process)
        self._close_pipes()

    def _close_pipes(self) -> None:
        for read, _ in self._pipes:
            os.close(read)

    @property
    def tracks(self) -> int:
        """How many sound tracks the file has, once frames have come."""
        return len(re.findall(rb"(?m)^#media_type \d+: audio$", self._list))

    @property
    def complained(self) -> bool:
        """Whether it said anything that may mean loss."""
        return bool(HARMLESS.sub(b"", self.log).strip())

    @property
    def found_damage(self) -> bool:
        """Whether it said that sound is lost, without how much."""
        return bool(DAMAGE.search(self.log))

    def frames(self) -> Iterator[Frames]:
        """What it decodes, as it comes. Raises AudioError for a decoder that is too slow, or that nothing came of."""
        for _ in self._reads():
            yield from self._ready(int(BLOCK_SECONDS * SAMPLE_RATE))
        if self._run.samples:
            yield self._joined()
        self._check_end()
        if not self._samples:
            if NO_THREAD in self.log:
                raise DecoderError(
                    "ffmpeg has not the memory for its threads: limits.decode_bytes is too little for it"
                )
            raise explained(bytes(self.log))

    def _check_end(self) -> None:
        worked = cpu_seconds(self._process.pid)  # before it is reaped
        try:
            status = self._process.wait(timeout=STALL_SECONDS)
        except subprocess.TimeoutExpired:
            _check_worked("ffmpeg", cpu_seconds(self._process.pid) - worked, STALL_SECONDS)
            raise AudioError("decoding took too long") from None
        if worked >= self._limits.decode_seconds:  # not told by the status: ffmpeg catches SIGXCPU
            raise AudioError(f"decoding took more than {self._limits.decode_seconds:.0f} s of processor time")
        _check_ran("ffmpeg", status)

    def _reads(self) -> Iterator[None]:
        process = self._process
        assert process.stdout is not None
        assert process.stderr is not None
        sinks = {process.stdout.fileno(): self._bytes, process.stderr.fileno(): self.log}
        sinks |= {read: sink for (read, _), sink in zip(self._pipes, (self._lines, self._list), strict=True)}
        with selectors.DefaultSelector() as selector:
            for pipe in sinks:
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map():
                began = time.monotonic()
                ready = selector.select(timeout=1.0)
                self._waited += time.monotonic() - began  # not the time that our reader takes: it may be days
                self._check_pace()
                for key, _ in ready:
                    if data := os.read(key.fd, READ_BYTES):
                        sinks[key.fd] += data
                    else:
                        selector.unregister(key.fd)
                self._tidy()
                yield

    def _check_pace(self) -> None:
        seconds = self._samples / SAMPLE_RATE
        allowed = min(self._limits.decode_seconds, STALL_SECONDS + seconds / MIN_SPEED)
        if self._waited > allowed:
            _check_worked("ffmpeg", cpu_seconds(self._process.pid), allowed)
            raise AudioError(f"decoding took too long ({self._waited:.0f} s for {seconds:.0f} s of sound)")

    def _tidy(self) -> None:
        if len(self.log) > 2 * LOG_BYTES:  # a broken file can make ffmpeg say a line a frame
            del self.log[LOG_BYTES:-LOG_BYTES]
        *whole, rest = self._lines.split(b"\n")
        for line in whole:
            if line and not line.startswith(b"#"):
                timestamp, samples, size = line.split(b",", 5)[2:5]
                self._clock.append((int(timestamp), int(samples), int(size)))
        self._lines[:] = rest

    def _ready(self, least: int) -> Iterator[Frames]:
        """Complete frames, joined where no gap lies between them, in blocks of at least so many samples."""
        while self._clock:
            timestamp, samples, size = frame = self._clock[0]
            if self._run.apart(*frame):
                yield self._joined()
            elif self._run.size + size > len(self._bytes):
                return
            else:
                self._clock.popleft()
                self._run.add(timestamp, samples, size)
            if self._run.samples >= least:  # and no more, so that blocks do not depend on how fast the pipe was read
                yield self._joined()

    def _joined(self) -> Frames:
        """The frames that follow each other, and of which there are enough."""
        run, self._run = self._run, Run()
        decoded = np.frombuffer(self._bytes[: run.size], np.float32).reshape(run.samples, -1)
        del self._bytes[: run.size]
        self._samples += run.samples
        return Frames(run.timestamp, decoded)


PROGRAMS = ("prlimit", "ffmpeg", "ffprobe")
REMEDY = "nothing can be decoded without it: apt-get install ffmpeg util-linux"
CANNOT_RUN = (
    126,
    127,
)  # what prlimit, shells and the dynamic linker end with when a program, or a library of it, is not there
STOPPED = (255, 123)  # what ffmpeg ends with when it is asked to stop once, and when it is asked four times
OUTSIDE = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGBUS, signal.SIGKILL)
JOINED = SAMPLE_RATE // 100  # frames whose timestamps are less apart than this follow each other
CONTAINED: dict[str, Any] = {
    # ffmpeg 7 has a dozen threads, for each of which malloc would claim 64 MiB of what the process may have at all.
    "env": {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "MALLOC_ARENA_MAX": "1"},
    "cwd": "/",
    "start_new_session": True,
    "bufsize": 0,
}


def held(limits: Limits) -> list[str]:
    """What a decoder's command begins with. prlimit instead of preexec_fn: forking a process with threads and gigabytes
    of model is slow and unsafe."""
    seconds = int(limits.decode_seconds) + 1
    bounds = f"--as={limits.decode_bytes}", f"--cpu={seconds}:{seconds + 5}"  # a signal of its own before SIGKILL
    return ["prlimit", *bounds, "--fsize=0", "--core=0", "--nofile=32", "--"]


def _input(path: Path, span: Span = WHOLE) -> list[str]:
    name, protocols, options = f"file:{path.absolute()}", "file", list[str]()
    if span.begin or span.end:
        name, protocols = f"subfile,,start,{span.begin},end,{span.end},,:{name}", "file,subfile"
    elif wav.runs_on(path):
        options = ["-ignore_length", "1"]
    return ["-protocol_whitelist", protocols, "-format_whitelist", FORMATS, *options, "-i", name]


def _command(path: Path, track: int, span: Span, clock: int, tracks: int) -> list[str]:
    graph = f"[0:a:{track}]aresample={SAMPLE_RATE},aformat=sample_fmts=flt,asplit[samples][clock]"
    return [
        *("ffmpeg", "-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+warning", "-threads", "1"),
        *("-copyts", *_from_zero(path, span), *_samples(path, span), *_input(path, span)),
        *("-filter_threads", "1", "-filter_complex", graph),
        *("-map", "[samples]", "-c:a", "pcm_f32le", "-f", "f32le", "pipe:1"),
        *("-map", "[clock]", "-c:a", "pcm_f32le", "-flush_packets", "1", "-f", "framecrc", f"pipe:{clock}"),
        *("-map", "0:a", *_clock_streams(path, span.begin), "-c", "copy"),
        *("-t", "0", "-f", "framecrc", f"pipe:{tracks}"),  # its head
    ]


def _from_zero(path: Path, span: Span) -> tuple[str, ...]:
    """The first sound or picture is the container's start, except where the container itself has one."""
    return () if mp4.begins_late(path, span.begin) else ("-start_at_zero",)


def _samples(path: Path, span: Span) -> tuple[str, ...]:
    """The decoder, where ffmpeg does not choose the right one: its own of Speex gives all sound twice in version 7."""
    with path.open("rb") as file:
        file.seek(span.begin)
        speex = SPEEX.match(file.read(HEAD_BYTES))
    codec = "libspeex" if speex else "" if span.begin else wav.swapped(path)
    return ("-c:a", codec) if codec else ()


def _clock_streams(path: Path, begin: int) -> tuple[str, ...]:
    """In formats whose clock may jump ffmpeg takes the first of the streams that it uses for the container's start."""
    with path.open("rb") as file:
        file.seek(begin)
        head = file.read(HEAD_BYTES)
    jumpy = head.startswith((b"OggS", b"\0\0\1\xba")) or _transport_stream(head)
    return ("-map", "0:V?") if jumpy else ()  # V: not its cover


def _transport_stream(head: bytes) -> bool:
    """Whether MPEG's transport packets begin somewhere: cameras put a clock before each, and a cut may begin inside."""
    return any(
        head[at] == SYNC == head[at + size] == head[at + 2 * size]
        for size in TRANSPORT_PACKETS
        for at in range(min(size, len(head) - 2 * size))
    )


def end(process: "subprocess.Popen[bytes]") -> None:
    """Kills it with all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe:
            pipe.close()


def probe(path: Path, limits: Limits, *entries: str) -> dict[str, Any]:
    """What ffprobe says of these entries, and under `log` what it complained of. {} when it fails."""
    with _ffprobe(path, limits, ":".join(entries), "json") as process:
        try:
            out, log = process.communicate(timeout=limits.decode_seconds)
            _check_ran("ffprobe", process.returncode)
            found = json.loads(out or b"{}")
        except subprocess.TimeoutExpired:
            _check_worked("ffprobe", cpu_seconds(process.pid), limits.decode_seconds)
            return {}
        except ValueError:
            return {}
        finally:
            end(process)
    return {**found, "log": log} if isinstance(found, dict) else {}


def probe_lines(path: Path, limits: Limits, entries: str, *options: str) -> Iterator[bytes]:
    """ffprobe's answer as it comes, a line of comma-separated values for each packet."""
    with _ffprobe(path, limits, entries, "csv=p=0", *options, errors=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            with io.BufferedReader(process.stdout) as lines:  # type: ignore[type-var]  # a raw file, as bufsize is 0
                yield from lines
            _check_ran("ffprobe", process.wait(STALL_SECONDS))
        finally:
            end(process)


def _ffprobe(
    path: Path, limits: Limits, entries: str, form: str, *options: str, errors: int = subprocess.PIPE
) -> "subprocess.Popen[bytes]":
    command = [*held(limits), "ffprobe", "-hide_banner", "-loglevel", "level+warning", "-of", form, *options]
    command += ["-show_entries", entries, *_input(path)]
    return _started(command, stderr=errors)


def _started(command: list[str], **options: Any) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, **options, **CONTAINED)
    except FileNotFoundError:
        raise DecoderError(f"{command[0]} cannot be run; {REMEDY}") from None


def _check_ran(program: str, status: int) -> None:
    """Raises DecoderError if the program failed to start or was ended from outside: no recording is to blame."""
    if status in CANNOT_RUN:
        raise DecoderError(f"{program} cannot be run; {REMEDY}")
    if status in STOPPED or -status in OUTSIDE:
        raise DecoderError(f"{program} was ended from outside (status {status}), perhaps for want of memory")


def _check_worked(program: str, worked: float, given: float) -> None:
    """Raises DecoderError if it spent the time that it was given waiting for the machine, such as for a disk."""
    if worked < WORKED * given:
        raise DecoderError(f"{program} waited for the disk or the processor: {worked:.1f} s of work in {given:.0f} s")


def cpu_seconds(pid: int) -> float:
    """The processor time that a process of ours has used, until it is reaped."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def missing() -> str:
    """Why nothing can be decoded on this machine, or ''."""
    lacking = [name for name in PROGRAMS if shutil.which(name, path=CONTAINED["env"]["PATH"]) is None]
    return f"{' and '.join(lacking)} cannot be run; {REMEDY}" if lacking else ""
