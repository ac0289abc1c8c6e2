"""ffmpeg that is not there, or cannot start, is the machine's fault: no recording fails for it, and /ready says so."""

import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import transcribe_optimized
from support import handmade
from support.api_server_fixture import running
from support.bad_files import ffmpeg as made_by
from support.decoding import DecodeLimits
from support.waiting import until
from support.worker_fixture import CLIPS, FakeEngine, ServiceFixture, running_worker, service_fixture
from transcribe.audio import ffmpeg
from transcribe.audio.decoder import Decoder
from transcribe.audio.errors import DecoderError
from transcribe.audio.streams import audio_streams
from transcribe.worker import loop, status

pytestmark = [pytest.mark.slow, pytest.mark.attack]

BROKEN = "#!/bin/sh\necho 'error while loading shared libraries: libavcodec.so.59' >&2; exit 127\n"
PRESENT = {
    "nothing": (),
    "no ffmpeg": ("prlimit", "ffprobe"),
    "no ffprobe": ("prlimit", "ffmpeg"),
    "no prlimit": ("ffmpeg", "ffprobe"),
}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where decoding looks for its programs; at first all are there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    install(folder, *ffmpeg.PROGRAMS)
    monkeypatch.setitem(ffmpeg.CONTAINED["env"], "PATH", str(folder))
    return folder


def install(folder: Path, *names: str) -> None:
    for name in ffmpeg.PROGRAMS:
        (folder / name).unlink(missing_ok=True)
        if name in names:
            (folder / name).symlink_to(str(shutil.which(name)))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceFixture]:
    found = service_fixture(tmp_path / "root")
    yield found
    found.store.close()


def long_flac(path: Path) -> Path:
    """Large enough that ffprobe is asked first, as it does not say how long it is."""
    path.write_bytes(handmade.flac(path.parent, 0) + bytes(1 << 20))
    return path


@pytest.mark.parametrize("present", PRESENT)
def test_a_recording_is_not_blamed(tmp_path: Path, programs: Path, service: ServiceFixture, present: str) -> None:
    install(programs, *PRESENT[present])
    path, said = long_flac(tmp_path / "long.flac"), "cannot be run; nothing can be decoded without it: apt-get install"
    with pytest.raises(DecoderError, match=said), Decoder(path, service.config.limits) as decoder:
        list(decoder)
    assert "cannot be run" in ffmpeg.missing()


def test_neither_is_it_for_a_library_that_is_missing(programs: Path, service: ServiceFixture) -> None:
    (programs / "ffmpeg").unlink()
    (programs / "ffmpeg").write_text(BROKEN)
    (programs / "ffmpeg").chmod(0o755)
    with pytest.raises(DecoderError, match="ffmpeg cannot be run"), Decoder(CLIPS[0], service.config.limits) as decoder:
        list(decoder)


def test_jobs_wait_until_it_is_back_and_health_says_why(
    programs: Path, service: ServiceFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "REPORT_SECONDS", 0.05)
    with running_worker(service, FakeEngine()) as worker:
        worker.reporter.set_state("ready")
        worker.reporter.start()
        assert service.wait(service.submit(CLIPS[0])).status == "done"
        install(programs, "prlimit")
        job = service.submit(CLIPS[1])
        until(lambda: (service.store.worker() or {})["state"] == "broken")
        until(lambda: service.job(job).setbacks == 1)
        assert (service.store.worker() or {})["reason"].startswith("ffmpeg and ffprobe cannot be run")
        install(programs, *ffmpeg.PROGRAMS)
        until(lambda: (service.store.worker() or {})["state"] == "ready")
        assert service.wait(job).status == "done"
        worker.reporter.close()


def hour(folder: Path) -> Path:
    """Speech for longer than a pipe holds."""
    clip, path = CLIPS[0], folder / "hour.flac"
    made_by("-stream_loop", "200", "-i", clip, path)
    return path


@pytest.fixture
def hangs_up() -> Iterator[None]:
    """SIGHUP has its effect on new processes: whoever runs these tests by nohup has them ignore it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangs_up")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT", "SIGBUS", "SIGKILL"])
def test_a_decoder_that_is_killed_halfway_is_no_end_of_the_recording(
    tmp_path: Path, service: ServiceFixture, name: str
) -> None:
    with Decoder(hour(tmp_path), service.config.limits) as decoder:
        blocks = iter(decoder)
        next(blocks)
        assert decoder._ffmpeg is not None
        decoder._ffmpeg._process.send_signal(signal.Signals[name])
        with pytest.raises(DecoderError, match="ended from outside"):
            list(blocks)


def test_a_job_whose_decoder_is_killed_is_worked_on_again(
    tmp_path: Path, service: ServiceFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LONGEST_DELAY", 0.1)
    whole, started = hour(tmp_path), ffmpeg._started
    killed: list[int] = []

    def start(command: list[str], **options: Any) -> "subprocess.Popen[bytes]":
        process = started(command, **options)
        if not killed and "framecrc" in command:
            killed.append(process.pid)
            threading.Timer(0.3, process.send_signal, [signal.SIGTERM]).start()
        return process

    monkeypatch.setattr(ffmpeg, "_started", start)
    with running_worker(service, FakeEngine()):
        job = service.wait(service.submit(whole))
    assert (job.status, job.setbacks, len(killed)) == ("done", 1, 1)
    with Decoder(whole, service.config.limits) as decoder:
        assert (job.progress or 0) > 0.95 * sum(map(len, decoder)) / 16_000


@pytest.mark.parametrize("name", ["SIGTERM", "SIGBUS", "SIGKILL"])
def test_a_probe_that_is_killed_chooses_no_other_track(
    service: ServiceFixture, monkeypatch: pytest.MonkeyPatch, programs: Path, name: str
) -> None:
    (programs / "ffprobe").unlink()
    (programs / "ffprobe").write_text(f"#!/bin/sh\nkill -{name.removeprefix('SIG')} $$\n")
    (programs / "ffprobe").chmod(0o755)
    with pytest.raises(DecoderError, match="ffprobe was ended from outside"):
        audio_streams(CLIPS[0], service.config.limits)


def test_a_decoder_that_waits_for_the_machine_is_not_the_recordings_fault(
    tmp_path: Path, service: ServiceFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ffmpeg, "STALL_SECONDS", 0.3)
    monkeypatch.setattr(ffmpeg, "MIN_SPEED", 1e6)
    with Decoder(hour(tmp_path), service.config.limits) as decoder:
        assert decoder._ffmpeg is not None
        decoder._ffmpeg._process.send_signal(signal.SIGSTOP)
        with pytest.raises(DecoderError, match="waited for the disk"):
            list(decoder)


def test_clients_are_told_that_it_is_the_service(tmp_path: Path) -> None:
    with running(tmp_path / "root") as api:
        api.worker.stop()
        api.store.set_worker({"state": "broken", "reason": "ffmpeg cannot be run"})
        until(lambda: api.get("/ready").status == 503)
        assert "ffmpeg cannot be run" in api.get("/ready").json["reason"]
        refused = api.upload("/v1/audio/transcriptions")
        assert (refused.status, refused.code) == (503, "worker_unavailable")


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), OSError(5, "Input/output error"), MemoryError()])
def test_what_passes_is_not_the_recordings_fault(
    service: ServiceFixture, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A full table of open files, a disk that stalls, no memory: the job is worked on again."""
    with running_worker(service, FakeEngine()):
        with monkeypatch.context() as patch:
            patch.setattr("transcribe.audio.wav.plain", raising(error))
            job = service.submit(CLIPS[0])
            until(lambda: service.job(job).setbacks == 1)
        assert service.wait(job).status == "done"


def raising(error: Exception) -> Callable[..., None]:
    def call(*_: object) -> None:
        raise error

    return call


def test_the_command_line_says_it_in_one_line(
    programs: Path, service: ServiceFixture, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(programs, "prlimit")
    monkeypatch.setattr(transcribe_optimized, "load_or_exit", lambda *_, **__: service.config)
    assert transcribe_optimized.main([str(CLIPS[0])]) == 70
    assert capsys.readouterr().err == f"transcribe_optimized: ffmpeg cannot be run; {ffmpeg.REMEDY}\n"


# What version 7 of ffmpeg says, in what it wraps: the real one runs first.
EMPTY = "[out#2/framecrc @ 0x1] [warning] Output file is empty, nothing was encoded"
CUT = "[in#0/gsm @ 0x1] [error] Error during demuxing: Input/output error"
NO_THREAD = "[out#0/f32le @ 0x1] [error] pthread_create() failed: Resource temporarily unavailable"


def wrap(programs: Path, said: str, *, runs: bool = True) -> None:
    """Lets ffmpeg say this line as well, or only this."""
    real = (programs / "ffmpeg").resolve()
    (programs / "ffmpeg").unlink()
    (programs / "ffmpeg").write_text(
        f"#!/bin/sh\n{real if runs else 'false'} \"$@\"\ncode=$?\necho '{said}' >&2\nexit $code\n"
    )
    (programs / "ffmpeg").chmod(0o755)


@pytest.mark.parametrize(("said", "complained", "damage"), [(EMPTY, False, False), (CUT, True, True)])
def test_what_newer_versions_say_is_understood(programs: Path, said: str, complained: bool, damage: bool) -> None:
    wrap(programs, said)
    with ffmpeg.Ffmpeg(CLIPS[0], DecodeLimits(), 0) as decoder:
        assert list(decoder.frames())
    assert (decoder.complained, decoder.found_damage) == (complained, damage)


def test_an_ffmpeg_that_has_no_memory_for_its_threads_is_no_fault_of_the_recording(programs: Path) -> None:
    wrap(programs, NO_THREAD, runs=False)
    with pytest.raises(DecoderError, match="decode_bytes is too little"), Decoder(CLIPS[0], DecodeLimits()) as decoder:
        list(decoder)


def test_speex_is_decoded_by_its_own_library(tmp_path: Path) -> None:
    """ffmpeg's own decoder gives all sound twice in version 7."""
    path = tmp_path / "a"
    made_by("-i", CLIPS[0], "-c:a", "libspeex", "-f", "ogg", path)
    assert "-c:a libspeex -protocol_whitelist" in " ".join(ffmpeg._command(path, 0, ffmpeg.WHOLE, 3, 4))
