"""A worker to test: with an engine that needs no model, in this process, or with a real one in a process of its own."""

import atexit
import functools
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from transcribe.audio.vad import Vad
from transcribe.config import ServiceConfig
from transcribe.engine import Chunk, ChunkResult, Engine, EngineError
from transcribe.jobs.models import Job, NewJob
from transcribe.jobs.store import Store
from transcribe.model_cache import cache_info, fetch
from transcribe.speakers.network import SpeakerNetwork
from transcribe.types import SAMPLE_RATE, DecodeOptions, Segment
from transcribe.worker.listener import Detectors
from transcribe.worker.loop import Worker
from transcribe.worker.status import StatusReporter

from support import waiting
from support.api_server_fixture import settings
from support.fake_vad import FakeVad

SERVICE = Path(__file__).resolve().parents[2] / "service"
CLIPS = sorted((Path(__file__).resolve().parents[1] / "audio").glob("*.flac"))


@dataclass
class FakeEngine:
    """Each step takes `delay` seconds and finishes the oldest chunk. A segment's text names its job and chunk."""

    device: str = "cpu"
    capacity: int = 4
    rows: int = 4
    windows: int = 1  # that are encoded together
    waiting: int = 0  # chunks that are not begun
    delay: float = 0.0
    most: float = math.inf  # chunks that it finishes
    language: str = "sv"
    heard: Callable[[NDArray[np.float32]], dict[str, float]] = lambda _: {}  # chances of languages
    figures: dict[str, Any] = field(default_factory=dict)  # of every segment
    error: Exception | None = None  # raised by the next step
    hold: threading.Event = field(default_factory=threading.Event)  # while set, no step finishes anything
    in_flight: list[Chunk] = field(default_factory=list)
    received: list[Chunk] = field(default_factory=list)
    discarded: list[object] = field(default_factory=list)
    largest_batch: int = 0
    rested: int = 0  # how often it was told that nothing is under way
    shared_last_try: bool = False  # a job on its third attempt shared the batch with another job

    @classmethod
    def paused(cls, **options: Any) -> "FakeEngine":
        """An engine that finishes nothing until `hold` is cleared."""
        engine = cls(**options)
        engine.hold.set()
        return engine

    def room(self) -> int:
        return self.capacity - len(self.in_flight)

    def add(self, chunk: Chunk) -> None:
        if chunk.options.language == "xx":
            raise EngineError("the model does not know the language 'xx'")
        self.in_flight.append(chunk)
        self.received.append(
            replace(chunk, audio=chunk.audio[:0].copy())
        )  # without its audio: tests measure the memory
        self.largest_batch = max(self.largest_batch, len(self.in_flight))
        tries = {cast(tuple[Any, ...], other.key)[:2] for other in self.in_flight}
        self.shared_last_try |= len(tries) > 1 and any(attempt >= 3 for _, attempt in tries)

    def step(self) -> list[ChunkResult]:
        time.sleep(self.delay)
        if self.error:
            raise self.error
        if self.hold.is_set() or not self.in_flight or self.most < 1:
            time.sleep(0.005)
            return []
        self.most -= 1
        chunk = self.in_flight.pop(0)
        seconds = len(chunk.audio) / SAMPLE_RATE
        job, _, number, *piece = cast(tuple[Any, ...], chunk.key)
        name = f"{number}-{piece[1]}" if piece else number
        segment = Segment(0, 0, 0.0, seconds, f" {job[:8]}/{name}.", (1,), 0.0, -0.1, 1.0, 0.01)
        language = chunk.options.language or self.language
        if chunk.listen:
            return [ChunkResult(chunk.key, language, heard=self.heard(chunk.audio))]
        return [ChunkResult(chunk.key, language, (replace(segment, **self.figures),))]

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def rest(self) -> None:
        self.rested += 1

    def discard(self, key: object) -> None:
        self.discarded.append(key)
        self.in_flight = [chunk for chunk in self.in_flight if chunk.key != key]


def wav(seconds: float, *, speech: float = 8.0, pause: float = 0.5) -> bytes:
    """A noisy WAV: bursts of `speech` seconds between pauses."""
    period, total = int((speech + pause) * SAMPLE_RATE), int(seconds * SAMPLE_RATE)
    noise = np.random.default_rng(1).normal(0.0, 0.3, period)
    noise[int(speech * SAMPLE_RATE) :] = 0.0
    samples = np.tile(noise, total // period + 1)[:total]
    data = (samples.clip(-1, 1) * 32_767).astype("<i2").tobytes()
    head = b"RIFF" + (36 + len(data)).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    head += b"\x01\x00\x01\x00" + SAMPLE_RATE.to_bytes(4, "little") + (2 * SAMPLE_RATE).to_bytes(4, "little")
    return head + b"\x02\x00\x10\x00data" + len(data).to_bytes(4, "little") + data


@dataclass
class ServiceFixture:
    """A root folder with configuration and job store, used as a client of the service uses it."""

    config: ServiceConfig
    store: Store

    def submit(self, content: bytes | Path, *, estimate: float = 0.0, key: str = "key", **options: Any) -> str:
        """Queues a recording; returns the job's id."""
        new = NewJob(key, DecodeOptions(**{"language": "en", **options}), estimate=estimate, detached=True)
        data = content.read_bytes() if isinstance(content, Path) else content
        (self.config.temp / new.id).write_bytes(data)
        return self.store.create(new).id

    def job(self, job_id: str) -> Job:
        """The job's current state."""
        found = self.store.get(job_id)
        assert found
        return found

    def wait(self, job_id: str, *, seconds: float = 60.0) -> Job:
        """Waits until the job is over."""
        self.until(lambda: self.job(job_id).over, seconds=seconds)
        return self.job(job_id)

    def text(self, job_id: str) -> str:
        """The text so far."""
        return "".join(segment.text for segment in self.store.segments(job_id))

    @staticmethod
    def until(condition: Any, *, seconds: float = 30.0) -> None:
        """Waits until the condition is true; fails after `seconds`."""
        waiting.until(condition, seconds)


def service_fixture(root: Path, **changes: Any) -> ServiceFixture:
    """A root without a model; keyword names are configuration keys with `__` for the dot. Close its store."""
    config = ServiceConfig.from_mapping(settings(root, changes))
    return ServiceFixture(config, Store(config.database))


@dataclass
class Running:
    """A worker in a thread."""

    worker: Worker
    engine: FakeEngine
    reporter: StatusReporter
    failure: BaseException | None = None


@contextmanager
def running_worker(
    service: ServiceFixture, engine: FakeEngine, *, vad: Vad | None = None, speakers: SpeakerNetwork | None = None
) -> Iterator[Running]:
    """The real worker with a fake engine and, if none is given, a fake detector."""
    reporter = StatusReporter(service.store)
    detectors = Detectors(vad or cast(Vad, FakeVad()), speakers)
    worker = Worker(service.config, service.store, cast(Engine, engine), detectors, reporter)
    running = Running(worker, engine, reporter)

    def run() -> None:
        try:
            worker.run()
        except BaseException as error:
            running.failure = error

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield running
    finally:
        engine.hold.clear()
        worker.stop()
        thread.join()


@functools.cache
def prepared(name: str) -> Path:
    """What the warm-up makes of a model, once for all tests."""
    from localcloud.hub.models import model_dir  # the local cloud needs what a machine with a GPU may lack

    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root)
    config = ServiceConfig.from_mapping(settings(root, {}))
    assert not fetch.warm_up(config, model_dir(name)).get("warmup_error")
    return config.prepared


def service_fixture_with_model(root: Path, name: str = "whisper-tiny.en", **changes: Any) -> ServiceFixture:
    """A root with a real small model in its cache, as advanced_cache.py would leave it."""
    from localcloud.hub.models import SOURCES, commit_of, model_dir

    folder = model_dir(name)
    wanted = {"model.id": SOURCES[name].id, "model.revision": commit_of(folder), "model.language": "en"}
    mapping = settings(root, {**wanted, **changes})
    config = ServiceConfig.from_mapping(mapping)
    snapshot = fetch.snapshot_dir(config)
    snapshot.mkdir(parents=True)
    for path in folder.iterdir():
        shutil.copy2(path, snapshot)  # with its time, by which the engine knows what was prepared of it
    shutil.copytree(prepared(name), config.prepared)
    info = cache_info.CacheInfo(
        model_id=config.model.id,
        cache_dir=str(config.models),
        device="cpu",
        torch_dtype="torch.float32",
        kernels_compiled=False,
        timestamp=cache_info.now(),
        model_revision=config.model.revision,
        files=cache_info.describe(snapshot),
        versions=fetch.installed_versions(),
        warmup_seconds=1.0,
        prepared=cache_info.describe(config.prepared),
    )
    cache_info.write(config.cache_info, info)
    (root / "transcribe.json").write_text(json.dumps(mapping))
    return ServiceFixture(config, Store(config.database))


def start_program(service: ServiceFixture, *arguments: str | Path, **options: Any) -> "subprocess.Popen[str]":
    """Starts transcribe_optimized.py with the shop's configuration."""
    environment = {**os.environ, "TRANSCRIBE_CONFIG": str(service.config.root / "transcribe.json"), **options}
    command = [sys.executable, str(SERVICE / "transcribe_optimized.py"), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, **pipes)  # type: ignore[call-overload,no-any-return]
