"""/health, /ready and /metrics. They read values in memory, so that neither disk nor model can delay them."""

import time
from typing import Any

from flask import Blueprint, Response, jsonify

from transcribe import gpu
from transcribe.api.context import AppContext, context

blueprint = Blueprint("health", __name__)

STATUS = {
    "loading": "initializing",
    "ready": "healthy",
    "draining": "draining",
    "broken": "critical",
    "absent": "critical",
}
NEARLY_FULL = 0.9


@blueprint.get("/health")
def health() -> Response:
    """Always 200 while this process runs; the body describes the worker and the queue."""
    return jsonify(health_body(context()))


@blueprint.get("/ready")
def ready() -> tuple[Response, int]:
    """200 if a request sent now would be worked on, else 503 with the reason."""
    reason = not_ready(context())
    return jsonify({"ready": not reason, "reason": reason or None}), 503 if reason else 200


@blueprint.get("/metrics")
def metrics() -> Response:
    """For Prometheus."""
    return Response(context().metrics.text(), content_type="text/plain; version=0.0.4; charset=utf-8")


def not_ready(shared: AppContext) -> str:
    """Why a request would not be worked on now, or ''."""
    snapshot = shared.watcher.snapshot
    if shared.draining.is_set():
        return "the server is draining"
    if not shared.watcher.alive:
        return "the job store cannot be read"
    if snapshot.worker_state != "ready":
        detail = snapshot.worker.get("reason")
        return f"the worker is {snapshot.worker_state}" + (f": {detail}" if detail else "")
    present, used = snapshot.worker.get("nvidia_devices", []), snapshot.worker.get("device")
    return gpu.unused(present, wanted=shared.config.device, used=used)


def _engine(worker: dict[str, Any]) -> dict[str, Any] | None:
    """What the engine chose when it was loaded, and how its steps were done since: see Engine.steps."""
    facts = worker.get("engine")
    if not facts:
        return None
    return {"precision": facts["precision"], "rows": worker.get("rows"), "steps": worker.get("steps", {})}


def health_body(shared: AppContext) -> dict[str, Any]:
    """What /health reports: the model's device and precision, the queue, the worker."""
    snapshot, limits = shared.watcher.snapshot, shared.config.limits
    worker, queue = snapshot.worker, snapshot.queue
    state = "draining" if shared.draining.is_set() else snapshot.worker_state
    status = STATUS.get(state, "critical") if shared.watcher.alive else "critical"
    full = queue.queued + queue.running >= NEARLY_FULL * limits.queue_jobs
    full = full or queue.seconds >= NEARLY_FULL * limits.queue_audio_seconds
    return {
        "status": "degraded" if status == "healthy" and full else status,
        "ready": not not_ready(shared),
        "device": worker.get("device"),
        "dtype": worker.get("dtype"),
        "cuda_available": worker.get("cuda"),
        "torch_version": worker.get("torch"),
        "nvidia_devices": worker.get("nvidia_devices"),
        "gpu": worker.get("gpu"),
        "engine": _engine(worker),
        "model": worker.get("model") or shared.config.model.id,
        "model_revision": shared.revision,
        "speakers": shared.offer.tells_speakers_apart,
        "queue": {"jobs_queued": queue.queued, "jobs_running": queue.running, "audio_seconds": round(queue.seconds, 1)},
        "worker": {
            "state": snapshot.worker_state,
            "reason": worker.get("reason"),
            "speed": snapshot.speed,
            "seconds_since_report": round(time.time() - worker["updated"], 1) if worker else None,
        },
        "uptime_seconds": round(time.time() - shared.started, 1),
    }
