"""Publishes the worker's state: facts and metrics in the store for the API, readiness and watchdog to systemd."""

import os
import resource
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transcribe import logs, sdnotify
from transcribe.audio import ffmpeg
from transcribe.jobs.store import Store

REPORT_SECONDS = 3.0
STUCK_SECONDS = 90.0  # without a sign of life from the engine's loop the worker is reported as broken
BROKEN_AFTER = 2  # failed starts in a row
START_FAILED = "keeps failing to start: "
SPEED_SECONDS = 5.0  # of work between two measurements of the speed
STEP_COUNTS = {  # of the decoder: by their names in the engine, and here
    "recorded": "recorded_steps_total",
    "plain": "plain_steps_total",
    "sampled": "sampled_steps_total",
    "failed_captures": "failed_captures_total",
    "out_of_memory": "out_of_memory_total",
}
SPEED_WEIGHT = 0.3  # of the newest measurement in the average


class Meter:
    """Counts the work of the engine's loop. `speed` is seconds of audio in a second of work, a moving average."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self.batch_sizes: Counter[int] = Counter()
        self.speed: float | None = None
        self.steps: Callable[[], dict[str, Any]] = dict  # of the engine
        self._busy = 0.0
        self._audio = 0.0

    def worked(self, seconds: float, chunks: int) -> None:
        """The engine made a step with so many chunks in it."""
        self.totals["busy_seconds_total"] += seconds  # type: ignore[assignment]  # a counter of seconds
        self.batch_sizes[chunks] += 1
        self._busy += seconds

    def wrote(self, audio_seconds: float) -> None:
        """A chunk is done."""
        self.totals["chunks_total"] += 1
        self.totals["audio_seconds_total"] += audio_seconds  # type: ignore[assignment]
        self._audio += audio_seconds
        if self._busy >= SPEED_SECONDS or self.speed is None:
            measured = self._audio / max(self._busy, 1e-3)
            weight = SPEED_WEIGHT if self.speed is not None else 1.0
            self.speed = (1 - weight) * (self.speed or 0.0) + weight * measured
            self._busy = self._audio = 0.0

    def figures(self) -> dict[str, float]:
        """Counters (named …_total) and gauges for /metrics."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        memory = {"memory_bytes": pages * resource.getpagesize(), "memory_peak_bytes": peak}
        steps = self.steps()
        counts = {name: steps[key] for key, name in STEP_COUNTS.items() if key in steps}
        return {name: round(value, 3) for name, value in {**self.totals, **counts, **memory}.items()}


class StatusReporter:
    """Publishes the worker's state every few seconds from its own thread, so that a loop that is stuck is reported."""

    def __init__(self, store: Store) -> None:
        """Raises sqlite3.Error if the store cannot be read."""
        self.meter = Meter()
        self._store = store
        self._facts: dict[str, Any] = {"pid": os.getpid(), **_first_state(store.worker() or {})}
        self._last_heartbeat = time.monotonic()
        self._watchdog_notified = 0.0
        self._watchdog = sdnotify.watchdog_seconds()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        """Reports at once and from now on."""
        self._publish()
        self._thread.start()

    def close(self) -> None:
        """Ends the thread; the last report stands."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def set_state(self, state: str, **facts: Any) -> None:
        """Changes the state (loading | ready | draining | broken) and facts, and reports at once."""
        self._facts = {**self._facts, **facts, "state": state}
        self.heartbeat()
        self._publish()
        if state == "ready":
            sdnotify.notify("READY=1\nSTATUS=ready")
            self._facts.pop("failed_starts", None)
        elif state == "draining":
            sdnotify.notify("STOPPING=1\nSTATUS=draining")

    def heartbeat(self) -> None:
        """Call this in the engine's loop and nowhere else: it also notifies systemd's watchdog."""
        self._last_heartbeat = time.monotonic()
        if self._watchdog and self._last_heartbeat - self._watchdog_notified > self._watchdog / 4:
            sdnotify.notify("WATCHDOG=1")
            self._watchdog_notified = self._last_heartbeat

    def _run(self) -> None:
        while not self._closing.wait(REPORT_SECONDS):
            self._publish()

    def _publish(self) -> None:
        facts = {**self._facts, "speed": self.meter.speed, "metrics": self.meter.figures(), "steps": self.meter.steps()}
        facts["batch_sizes"] = {str(size): count for size, count in list(self.meter.batch_sizes.items())}
        silent = time.monotonic() - self._last_heartbeat
        if facts["state"] == "ready" and silent > STUCK_SECONDS:
            facts |= {"state": "broken", "reason": f"the model has not moved for {silent:.0f} s"}
        if facts["state"] == "ready" and (lacking := ffmpeg.missing()):
            facts |= {"state": "broken", "reason": lacking}
        try:
            self._store.set_worker(facts)
        except Exception as error:  # a full disk must not end a worker that is otherwise well
            logs.failure("report_failed", error)


def _first_state(before: Mapping[str, Any]) -> dict[str, Any]:
    """The first state, given the last report of the previous process: broken after BROKEN_AFTER failed starts."""
    failed = int(before.get("failed_starts", 0)) + 1 if before.get("state") in ("loading", "broken") else 0
    if failed < BROKEN_AFTER:
        return {"state": "loading", "failed_starts": failed}
    last = str(before.get("reason") or "it ends while it loads the model").removeprefix(START_FAILED)
    return {"state": "broken", "reason": START_FAILED + last, "failed_starts": failed}
