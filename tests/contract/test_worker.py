"""The worker as systemd runs it: a process of its own with a real small model, killed and asked in every way."""

import json
import os
import random
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jiwer
import pytest
from support.worker_fixture import CLIPS, ServiceFixture, service_fixture_with_model, start_program
from transcribe.api.job_watcher import Snapshot
from transcribe.model_cache import fetch

pytestmark = pytest.mark.model
REFERENCE = "unless to be rather cold-hearted and rather selfish is to be ill-disposed"
CONFIG = 78


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceFixture]:
    found = service_fixture_with_model(tmp_path, batch__max_chunks=4)
    yield found
    found.store.close()


@contextmanager
def running(service: ServiceFixture, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    process = start_program(service, "--worker", **environment)
    try:
        service.until(lambda: state(service) == "ready" or process.poll() is not None, seconds=120)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate()


def state(service: ServiceFixture) -> str:
    return str((service.store.worker() or {}).get("state"))


def close_to_reference(text: str) -> bool:
    """Processors choose different number formats, and a model this small hears a word in ten otherwise in each."""
    plain = "".join(letter for letter in text.lower() if letter.isalnum() or letter in " -").strip()
    return bool(jiwer.wer(REFERENCE, plain) <= 0.2)


def test_a_recording_becomes_text_with_words_and_the_worker_stops_when_asked(service: ServiceFixture) -> None:
    with running(service) as process:
        job = service.wait(service.submit(CLIPS[1], words=True))
        facts = service.store.worker()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert job.status == "done"
    assert close_to_reference(service.text(job.id))
    for segment in service.store.segments(job.id):
        assert segment.words
        times = [time for word in segment.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert segment.start <= times[0]
        assert times[-1] <= segment.end <= (job.duration or 0)
    assert facts is not None
    assert facts["model"] == service.config.model.id
    assert facts["revision"] == service.config.model.revision
    assert facts["torch"]
    assert facts["speed"] > 0


def test_systemd_is_notified_once_the_model_is_warm_and_the_watchdog_is_fed(
    service: ServiceFixture, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(60)
        settings = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        with running(service, **settings):
            messages = [listener.recv(4096).decode() for _ in range(4)]
    assert sum(message.startswith("READY=1") for message in messages) == 1
    assert messages.count("WATCHDOG=1") == 3


def test_kill_9_at_any_moment_loses_nothing(service: ServiceFixture) -> None:
    chance = random.Random(7)
    jobs = [service.submit(clip) for clip in [*CLIPS, *CLIPS]]
    for _ in range(2):
        with running(service) as process:
            service.until(lambda: service.store.queue_stats().running, seconds=30)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0.0, 0.5))
            os.kill(process.pid, signal.SIGKILL)
    with running(service):
        ended = [service.wait(job) for job in jobs]
    assert [job.status for job in ended] == ["done"] * len(jobs)
    assert max(job.attempts for job in ended) <= 3
    for job in ended:
        ids = [segment.id for segment in service.store.segments(job.id)]
        assert ids == list(range(len(ids)))
        assert ids


def test_two_workers_do_not_share_a_store(service: ServiceFixture) -> None:
    with running(service):
        second = start_program(service, "--worker")
        _, errors = second.communicate(timeout=60)
    assert second.returncode == 75
    assert "another worker" in errors


def swap_tensors(service: ServiceFixture) -> None:
    """The same tensors with other values, in a file of the same size and time."""
    path = service.config.prepared / "prepared/engine-weights.safetensors"
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(-(1 << 20), os.SEEK_END)
        file.write(b"\x01" * (1 << 20))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


BREAKS: dict[str, Callable[[ServiceFixture], object]] = {
    "no description": lambda service: service.config.cache_info.unlink(),
    "truncated description": lambda service: service.config.cache_info.write_text('{"model_id"'),
    "a wrong type": lambda service: change(service, "kernels_compiled", "yes"),
    "another model": lambda service: change(service, "model_id", "openai/whisper-other"),
    "no weights": lambda service: weights(service).unlink(),
    "truncated weights": lambda service: weights(service).write_bytes(weights(service).read_bytes()[:-10]),
    "altered weights": lambda service: weights(service).write_bytes(b"\x01" * weights(service).stat().st_size),
    "swapped prepared tensors": swap_tensors,
    "kernels from elsewhere": lambda service: (service.config.prepared / "prepared/kernels-0.o").write_bytes(b"code"),
}


def change(service: ServiceFixture, key: str, value: object) -> None:
    path = service.config.cache_info
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


def weights(service: ServiceFixture) -> Path:
    return fetch.snapshot_dir(service.config) / "model.safetensors"


@pytest.mark.attack
@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_cache_is_refused_in_one_line_and_not_retried(service: ServiceFixture, name: str) -> None:
    BREAKS[name](service)
    process = start_program(service, "--worker")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == CONFIG
    assert len(errors.splitlines()) == 1
    named = "cache_info.json" if "description" in name or name.startswith(("a wrong", "another")) else "safetensors"
    named = "kernels-0.o" if name.startswith("kernels") else named
    assert named in errors
    assert "advanced_cache.py" in errors
    assert state(service) == "broken"
    later = Snapshot(worker={**(service.store.worker() or {}), "updated": 0.0})
    assert later.worker_state == "broken"  # nobody comes after it
    assert named in later.worker["reason"]
    assert "Traceback" not in output + errors


def test_the_command_line_writes_the_result_files(service: ServiceFixture) -> None:
    process = start_program(service, CLIPS[1], "--format", "txt,srt,verbose_json", "--words")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert close_to_reference(output)
    (text,) = service.config.results.glob("optimized_result_*.txt")
    assert text.read_text().strip() == output.strip()
    (subtitles,) = service.config.results.glob("optimized_result_*.srt")
    assert subtitles.read_text().startswith("1\n00:00:0")
    (verbose,) = service.config.results.glob("optimized_result_*.verbose.json")
    assert json.loads(verbose.read_text())["words"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [([], 2), (["--worker", "x"], 2), (["missing.wav"], 1), ([__file__], 1), ([CLIPS[0], "--language", "xx"], 2)],
)
def test_bad_input_is_refused_in_one_line_with_its_code(
    service: ServiceFixture, arguments: list[str], code: int
) -> None:
    process = start_program(service, *arguments)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert errors.splitlines()[-1].startswith(("transcribe_optimized: ", "transcribe_optimized.py: "))
    assert "Traceback" not in errors
