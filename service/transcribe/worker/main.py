"""Loads the model, checks it against cache_info.json, and runs the worker; exit codes tell systemd what to do."""

import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transcribe import gpu, logs, memory
from transcribe.audio.chunking import VadError
from transcribe.config import EXIT_CONFIG, ServiceConfig
from transcribe.engine import Engine, EngineError
from transcribe.jobs.activity import WORKERS_LOCK
from transcribe.jobs.database import set_sharing
from transcribe.jobs.sqlite import sqlite3
from transcribe.jobs.store import Store, StoreError
from transcribe.model_cache import cache_info, fetch
from transcribe.model_cache.cache_info import CacheError, CacheInfo
from transcribe.types import SAMPLE_RATE
from transcribe.worker.status import StatusReporter

if TYPE_CHECKING:
    from transcribe.audio.vad import Vad
    from transcribe.speakers.network import SpeakerNetwork

__all__ = ["EXIT_BROKEN", "EXIT_CONFIG", "VadError", "load", "work"]

NOT_PREPARED = "each start takes longer, since the cache is not for this processor: sudo advanced_cache.py --anew"
SWITCH_SECONDS = 0.001  # the engine's thread comes back from the GPU to find others at work; Python's own is 5 ms
EXIT_OK = 0
EXIT_BROKEN = 70  # EX_SOFTWARE: the engine or the store failed; a new process may do better
EXIT_BUSY = 75  # EX_TEMPFAIL: another worker runs


@dataclass(frozen=True)
class LoadedModel:
    """What was loaded, and what the cache says it is."""

    engine: Engine
    vad: "Vad"
    info: CacheInfo
    speakers: "SpeakerNetwork | None" = None


def load(config: ServiceConfig) -> LoadedModel:
    """The engine and the speech detector. Raises CacheError, EngineError or VadError, each one line.

    The digests of the model's files, and of what was prepared of them, are computed while it loads.
    """
    info = fetch.verified_cache(config, hashes=False)
    with ThreadPoolExecutor(1) as pool:
        verified = pool.submit(cache_info.verify, info, config.prepared, hashes=True)
        try:
            loaded = _load(config, info)
        except Exception:
            verified.result()  # a damaged file is the better reason
            raise
        verified.result()
    return loaded


def _load(config: ServiceConfig, info: CacheInfo) -> LoadedModel:
    from transcribe.audio.vad import Vad, weights_path

    detector = weights_path()
    engine = Engine.load(
        cache_info.snapshot_dir(info),
        device=config.device,
        dtype=config.dtype,
        max_chunks=config.batch.rows,
        cache_dir=config.prepared,
        store=False,
    )
    return LoadedModel(engine, Vad(detector, engine.recurrence), info, _speakers(config, info))


def _speakers(config: ServiceConfig, info: CacheInfo) -> "SpeakerNetwork | None":
    """The speaker model, if the cache has one."""
    from transcribe.speakers.network import SpeakerModelError, SpeakerNetwork

    if info.speakers is None:
        return None
    folder = cache_info.speakers_dir(info)
    try:
        return SpeakerNetwork.load(folder)
    except SpeakerModelError as error:
        raise CacheError(folder, str(error)) from None


def warm_up(loaded: LoadedModel) -> float:
    """Runs detector and engine once, so that the first client does not wait for it; returns the engine's speed."""
    import numpy as np

    loaded.vad.stream().push(np.zeros(SAMPLE_RATE, np.float32))
    return loaded.engine.warm_up()


def facts(loaded: LoadedModel) -> dict[str, Any]:
    """What /health shows of the worker."""
    import torch

    return {
        "device": loaded.engine.device,
        "dtype": loaded.engine.torch_dtype,
        "cuda": torch.cuda.is_available(),
        "torch": torch.__version__,
        "model": loaded.info.model_id,
        "revision": loaded.info.model_revision,
        "engine": loaded.engine.facts,
        "rows": loaded.engine.rows,
        "speakers": f"{loaded.info.speakers.model}@{loaded.info.speakers.revision}" if loaded.info.speakers else None,
        "nvidia_devices": gpu.devices(),
        "gpu": _card() if loaded.engine.device == "cuda" else None,
    }


def _card() -> dict[str, Any]:
    """The GPU that the engine uses."""
    import torch

    card = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "name": card.name,
        "driver": gpu.driver_version(),
        "compute_capability": f"{card.major}.{card.minor}",
        "memory_bytes": card.total_memory,
    }


def work(config: ServiceConfig) -> int:
    """The worker, from start to end; returns the exit code."""
    logs.configure()
    memory.share_arenas()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        with exclusive_lock(config.temp / WORKERS_LOCK):
            set_sharing(config.database, shared=config.fleet.on)
            return _work(config, Store(config.database))
    except StoreError as error:
        return _refuse(str(error), EXIT_BROKEN if error.transient else EXIT_CONFIG)
    except sqlite3.Error as error:
        return _refuse(f"{config.database} cannot be used now ({error})", EXIT_BROKEN)
    except BlockingIOError:
        return _refuse("another worker is running here: stop it, or let it work", EXIT_BUSY)
    except OSError as error:
        return _refuse(f"{error.filename or config.temp}: {error.strerror}", EXIT_BROKEN)


def _work(config: ServiceConfig, store: Store) -> int:
    reporter = StatusReporter(store)
    reporter.start()
    requeued, failed = store.requeue_running()
    logs.event("starting", requeued=len(requeued), failed=len(failed))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_OK))  # nothing is under way yet
    try:
        loaded = load(config)
        reporter.meter.steps = lambda: loaded.engine.steps
        reporter.meter.speed = warm_up(loaded)
        memory.give_back()  # what loading needed, which is more than recordings do
    except (CacheError, EngineError, VadError) as error:
        reporter.set_state("broken", reason=str(error))
        return _refuse(str(error), EXIT_CONFIG)
    except Exception as error:
        logs.failure("loading_failed", error)
        reporter.set_state("broken", reason=f"loading failed ({type(error).__name__})")
        return EXIT_BROKEN
    return _run(config, store, loaded, reporter)


def _run(config: ServiceConfig, store: Store, loaded: LoadedModel, reporter: StatusReporter) -> int:
    from transcribe.worker.listener import Detectors
    from transcribe.worker.loop import Worker

    worker = Worker(config, store, loaded.engine, Detectors(loaded.vad, loaded.speakers), reporter)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    reporter.set_state("ready", **facts(loaded))
    logs.event("ready", device=loaded.engine.device, dtype=loaded.engine.torch_dtype)
    if not loaded.engine.facts["prepared"]:
        logs.warning("model_not_prepared", reason=NOT_PREPARED)
    if idle := gpu.unused(gpu.devices(), wanted=config.device, used=loaded.engine.device):
        logs.warning("gpu_unused", reason=idle)
    try:
        worker.run()
    except Exception as error:  # a broken device context, a full disk: a new process may recover
        logs.failure("worker_failed", error)
        reporter.set_state("broken", reason=f"the worker failed ({type(error).__name__}) and starts again")
        return EXIT_BROKEN
    finally:
        reporter.close()
    logs.event("stopped")
    return EXIT_OK


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Holds the lock file. Raises BlockingIOError if another process does, OSError if it is a link or a pipe."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o640), "w")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _refuse(message: str, code: int) -> int:
    print(f"transcribe-worker: {message}", file=sys.stderr)
    return code
