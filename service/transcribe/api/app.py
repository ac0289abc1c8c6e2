"""Puts the application together."""

from flask import Flask

from transcribe.api import errors, middleware
from transcribe.api.auth import Keys
from transcribe.api.fair_semaphore import FairSemaphore
from transcribe.api.job_watcher import GRACE_SECONDS, JobWatcher
from transcribe.api.paths import CleanPaths
from transcribe.api.routes import corrections, health, jobs, machine_key, models, openapi, page, transcriptions
from transcribe.jobs.store import Store
from transcribe.provenance import Provenance

from ..config import ServiceConfig
from .context import EXTENSION, AppContext
from .elsewhere import FleetClient
from .metrics import Metrics
from .upload import ROOM_FOR_FIELDS, SpoolingRequest

STORING_REQUESTS = 8  # at once; they take seconds, and threads that others need as well
READING_REQUESTS = 8  # at once
ASKING_REQUESTS = 2 * READING_REQUESTS  # those that read, and as many that wait for it


def create_app(config: ServiceConfig, store: Store, *, grace: float = GRACE_SECONDS) -> Flask:
    """The WSGI application. Its watcher runs; call `close` on `context_of(app)` when it is no longer needed."""

    class SpooledRequest(SpoolingRequest):
        spool_folder = config.temp
        upload_bytes = config.limits.upload_bytes

    app = Flask("transcribe", static_folder=None)
    app.request_class = SpooledRequest
    app.config["MAX_CONTENT_LENGTH"] = config.limits.upload_bytes + ROOM_FOR_FIELDS
    app.json.sort_keys = False  # type: ignore[attr-defined]
    watcher, metrics = JobWatcher(store, grace=grace), Metrics()
    shared = AppContext(
        config=config,
        store=store,
        watcher=watcher,
        keys=Keys.of(config.auth),
        metrics=metrics,
        waiting_slots=FairSemaphore(config.limits.waiting_requests),
        storing_slots=FairSemaphore(STORING_REQUESTS),
        asking_slots=FairSemaphore(ASKING_REQUESTS),
        reading_slots=FairSemaphore(READING_REQUESTS),
        provenance=Provenance.of(config),
        fleet=FleetClient(config.fleet.socket) if config.fleet.on else None,
    )
    metrics.watch(lambda: watcher.snapshot, store.counts)
    app.extensions[EXTENSION] = shared
    app.wsgi_app = CleanPaths(app.wsgi_app)  # type: ignore[method-assign]
    errors.register(app)
    middleware.register(app, shared)
    for part in (transcriptions, jobs, corrections, models, machine_key, health, openapi, page):
        app.register_blueprint(part.blueprint)
    watcher.start()
    return app


def context_of(app: Flask) -> AppContext:
    """The application's shared parts."""
    found: AppContext = app.extensions[EXTENSION]
    return found
