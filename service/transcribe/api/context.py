"""What the routes share, and how they reach it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import wraps

from flask import Response, current_app, g

from transcribe.api.auth import Keys
from transcribe.api.fair_semaphore import FairSemaphore
from transcribe.api.job_watcher import JobWatcher
from transcribe.jobs.models import Bounds
from transcribe.jobs.store import Store
from transcribe.model_cache import cache_info
from transcribe.provenance import Provenance

from ..config import ServiceConfig
from .elsewhere import FleetClient
from .errors import busy
from .metrics import Metrics
from .params import Offer

EXTENSION = "transcribe"
READING_SECONDS = 2.0  # how long a request waits until it may read a whole text


@dataclass
class AppContext:
    """What one application's request handlers share."""

    config: ServiceConfig
    store: Store
    watcher: JobWatcher
    keys: Keys
    metrics: Metrics
    waiting_slots: FairSemaphore
    storing_slots: FairSemaphore
    asking_slots: FairSemaphore  # for reading slots
    reading_slots: FairSemaphore
    provenance: Provenance
    fleet: FleetClient | None = None  # that this machine belongs to
    started: float = field(default_factory=time.time)
    draining: threading.Event = field(default_factory=threading.Event)  # no new jobs or requests
    closing: threading.Event = field(default_factory=threading.Event)  # no more waiting either

    @property
    def bounds(self) -> Bounds:
        """The queue's limits."""
        limits = self.config.limits
        return Bounds(limits.queue_jobs, limits.queue_audio_seconds, limits.key_jobs, shared=self.keys.several)

    @property
    def revision(self) -> str:
        """The model's revision: as the worker reports it, or as configured."""
        return str(self.watcher.snapshot.worker.get("revision") or self.config.model.revision)

    @property
    def offer(self) -> Offer:
        """What requests may ask for. A worker that is not ready yet may turn out to tell speakers apart."""
        snapshot, model = self.watcher.snapshot, self.config.model
        models = {*self.config.model_names.all, model.id, self.model_in_use, f"{model.id}@{model.revision}"}
        able = bool(snapshot.worker.get("speakers", snapshot.worker_state != "ready"))
        return Offer(self.config, models, tells_speakers_apart=able)

    @property
    def model_in_use(self) -> str:
        """The model and its revision, whatever name the client sent."""
        return f"{self.config.model.id}@{self.revision}"

    @property
    def model_origin(self) -> tuple[int, str]:
        """When the model was cached, as a Unix time, and where it comes from; when the server started, and the hub's
        address, as long as nothing is cached."""
        try:
            cached = cache_info.read(self.config.cache_info)
        except cache_info.CacheError:
            return int(self.started), f"{self.config.model.endpoint}/{self.config.model.id}"
        return int(datetime.fromisoformat(cached.timestamp).timestamp()), cached.source

    @contextmanager
    def waiting_slot(self) -> Iterator[None]:
        """Holds a slot for a request that waits for its text. Raises ApiError when all are taken."""
        with self.waiting_slots.hold(key_id()) as acquired:
            if not acquired:
                snapshot = self.watcher.snapshot
                jobs = max(snapshot.queue.queued + snapshot.queue.running, 1)
                seconds = snapshot.queue.seconds / jobs / snapshot.speed
                message = "Too many requests are waiting; try again soon, or use /v1/jobs."
                raise busy(429, message, "too_many_requests", seconds=seconds)
            with self.metrics.waiting.track_inprogress():
                yield

    @contextmanager
    def storing_slot(self) -> Iterator[None]:
        """Holds a slot for a request that stores a recording and then ends. Raises ApiError when all are taken."""
        with self.storing_slots.hold(key_id()) as acquired:
            if not acquired:
                message = "Too many recordings are being stored at this moment; try again in a few seconds."
                raise busy(429, message, "too_many_requests", seconds=2)
            yield

    @contextmanager
    def reading_slot(self) -> Iterator[None]:
        """Holds a slot for a request that works on a whole text. Raises ApiError when none gets free soon, or so many
        wait for one already that other requests would find no thread."""
        with ExitStack() as held:
            slots = (self.asking_slots, 0.0), (self.reading_slots, READING_SECONDS)
            if not all(held.enter_context(each.hold(key_id(), seconds)) for each, seconds in slots):
                message = "Too many texts are being read at this moment; try again in a few seconds."
                raise busy(429, message, "too_many_requests", seconds=2)
            yield

    def refuse_while_draining(self) -> None:
        """Raises ApiError when the server is about to stop."""
        if self.draining.is_set():
            raise busy(503, "The server is restarting; try again soon.", "restarting", seconds=5)


def context() -> AppContext:
    """The context of the running application."""
    found: AppContext = current_app.extensions[EXTENSION]
    return found


def reads_text(view: Callable[..., Response]) -> Callable[..., Response]:
    """A route that works on a whole text, of which few run at once: other requests need threads as well."""

    @wraps(view)
    def limited(**arguments: str) -> Response:
        with context().reading_slot():
            return view(**arguments)

    return limited


def key_id() -> str:
    """The client's key, as the access check found it."""
    found: str = g.key_id
    return found
