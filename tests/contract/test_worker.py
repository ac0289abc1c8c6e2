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
from support.worker_shop import CLIPS, Shop, program, with_model
from transcribe.model_cache import fetch

pytestmark = pytest.mark.model
REFERENCE = "unless to be rather cold-hearted and rather selfish is to be ill-disposed"
CONFIG = 78


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Shop]:
    found = with_model(tmp_path, batch__max_chunks=4)
    yield found
    found.store.close()


@contextmanager
def running(place: Shop, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    process = program(place, "--worker", **environment)
    try:
        place.until(lambda: state(place) == "ready" or process.poll() is not None, seconds=120)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate()


def state(place: Shop) -> str:
    return str((place.store.worker() or {}).get("state"))


def close_to_reference(text: str) -> bool:
    """Processors choose different number formats, and a model this small hears a word in ten otherwise in each."""
    plain = "".join(letter for letter in text.lower() if letter.isalnum() or letter in " -").strip()
    return bool(jiwer.wer(REFERENCE, plain) <= 0.2)


def test_a_recording_becomes_text_with_words_and_the_worker_stops_when_asked(place: Shop) -> None:
    with running(place) as process:
        job = place.ended(place.submit(CLIPS[1], words=True))
        facts = place.store.worker()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert job.status == "done"
    assert close_to_reference(place.text(job.id))
    for segment in place.store.segments(job.id):
        assert segment.words
        times = [time for word in segment.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert segment.start <= times[0]
        assert times[-1] <= segment.end <= (job.duration or 0)
    assert facts is not None
    assert facts["model"] == place.config.model.id
    assert facts["revision"] == place.config.model.revision
    assert facts["torch"]
    assert facts["speed"] > 0


def test_readiness_is_told_once_the_model_is_warm_and_the_watchdog_is_fed(place: Shop, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(60)
        settings = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        with running(place, **settings):
            heard = [listener.recv(4096).decode() for _ in range(4)]
    assert sum(message.startswith("READY=1") for message in heard) == 1
    assert heard.count("WATCHDOG=1") == 3


def test_kill_9_at_any_moment_loses_nothing(place: Shop) -> None:
    chance = random.Random(7)
    jobs = [place.submit(clip) for clip in [*CLIPS, *CLIPS]]
    for _ in range(2):
        with running(place) as process:
            place.until(lambda: place.store.queue_stats().running, seconds=30)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0.0, 0.5))
            os.kill(process.pid, signal.SIGKILL)
    with running(place):
        ended = [place.ended(job) for job in jobs]
    assert [job.status for job in ended] == ["done"] * len(jobs)
    assert max(job.attempts for job in ended) <= 3
    for job in ended:
        ids = [segment.id for segment in place.store.segments(job.id)]
        assert ids == list(range(len(ids)))
        assert ids


def test_two_workers_do_not_share_a_store(place: Shop) -> None:
    with running(place):
        second = program(place, "--worker")
        _, errors = second.communicate(timeout=60)
    assert second.returncode == 75
    assert "another worker" in errors


BREAKS: dict[str, Callable[[Shop], object]] = {
    "no description": lambda place: place.config.cache_info.unlink(),
    "truncated description": lambda place: place.config.cache_info.write_text('{"model_id"'),
    "a wrong type": lambda place: change(place, "kernels_compiled", "yes"),
    "another model": lambda place: change(place, "model_id", "openai/whisper-other"),
    "no weights": lambda place: weights(place).unlink(),
    "truncated weights": lambda place: weights(place).write_bytes(weights(place).read_bytes()[:-10]),
    "altered weights": lambda place: weights(place).write_bytes(b"\x01" * weights(place).stat().st_size),
}


def change(place: Shop, key: str, value: object) -> None:
    path = place.config.cache_info
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


def weights(place: Shop) -> Path:
    return fetch.snapshot_dir(place.config) / "model.safetensors"


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_cache_is_refused_in_one_line_and_not_retried(place: Shop, name: str) -> None:
    BREAKS[name](place)
    process = program(place, "--worker")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == CONFIG
    assert len(errors.splitlines()) == 1
    named = "cache_info.json" if "description" in name or name.startswith(("a wrong", "another")) else "safetensors"
    assert named in errors
    assert "advanced_cache.py" in errors
    assert state(place) == "broken"
    assert "Traceback" not in output + errors


def test_the_command_line_writes_the_seeds_result_file(place: Shop) -> None:
    process = program(place, CLIPS[1], "--format", "txt,srt,verbose_json", "--words")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert close_to_reference(output)
    (text,) = place.config.results.glob("optimized_result_*.txt")
    assert text.read_text().strip() == output.strip()
    (subtitles,) = place.config.results.glob("optimized_result_*.srt")
    assert subtitles.read_text().startswith("1\n00:00:0")
    (verbose,) = place.config.results.glob("optimized_result_*.verbose.json")
    assert json.loads(verbose.read_text())["words"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [([], 2), (["--worker", "x"], 2), (["missing.wav"], 1), ([__file__], 1), ([CLIPS[0], "--language", "xx"], 2)],
)
def test_bad_input_is_refused_in_one_line_with_its_code(place: Shop, arguments: list[str], code: int) -> None:
    process = program(place, *arguments)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert errors.splitlines()[-1].startswith(("transcribe_optimized: ", "transcribe_optimized.py: "))
    assert "Traceback" not in errors
