"""The real worker as a process, with real decoders and an engine without a model: `worker_process.py CONFIG`."""

import signal
import sys
from pathlib import Path
from typing import cast

from transcribe import logs
from transcribe.audio.vad import Vad
from transcribe.config import load
from transcribe.engine import ChunkResult, Engine
from transcribe.jobs.store import Store
from transcribe.worker.listener import Detectors
from transcribe.worker.loop import Worker
from transcribe.worker.status import StatusReporter

from support.fake_vad import FakeVad
from support.worker_fixture import FakeEngine

STEP_SECONDS = 0.05


class BatchingEngine(FakeEngine):
    """Finishes all that is in flight with each step, as a batched model does."""

    def step(self) -> list[ChunkResult]:
        results = super().step()
        self.delay = 0.0
        while self.in_flight:
            results += super().step()
        self.delay = STEP_SECONDS
        self.received.clear()
        return results


def main(path: Path) -> None:
    """Works until it is stopped, as transcribe_optimized.py does once the model is loaded."""
    config = load(path)
    logs.configure()
    store = Store(config.database)
    reporter = StatusReporter(store)
    reporter.start()
    store.requeue_running()
    engine = BatchingEngine(capacity=16, delay=STEP_SECONDS)
    worker = Worker(config, store, cast(Engine, engine), Detectors(cast(Vad, FakeVad())), reporter)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    reporter.set_state("ready", device="cpu")
    worker.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
