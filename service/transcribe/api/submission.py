"""From a request to a durable job."""

import contextlib
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from flask import request

from transcribe import logs
from transcribe.api.context import AppContext, context, key_id
from transcribe.api.elsewhere import FleetClient, Recording, repeatable
from transcribe.api.errors import ApiError, busy
from transcribe.api.params import Params
from transcribe.api.spool import Spool
from transcribe.api.upload import reference_recordings, uploaded
from transcribe.jobs import uploads
from transcribe.jobs.models import Job, NewJob, QueueFullError
from transcribe.jobs.sqlite import sqlite3

REUSE_SECONDS = 600.0  # a repeat within this time is the same job
MESSAGES = {
    "key_jobs": "Your API key has too many unfinished jobs; wait for one to end.",
    "jobs": "Too many jobs are waiting; try again later.",
    "key_audio_seconds": "Too much audio of your API key is waiting; wait for some of it to be done.",
    "audio_seconds": "Too much audio is waiting; try again later.",
}


def submit(params: Params, *, detached: bool) -> Job:
    """Stores the upload and its job, or finds the job that it repeats. Raises ApiError."""
    shared = context()
    spool, suffix = uploaded(request)
    references = reference_recordings(request)
    shared.metrics.uploads.inc(sum(part.size for part in (spool, *references)))
    new = NewJob(
        key_id=key_id(),
        options=params.options,
        suffix=suffix,
        estimate=min(spool.estimate(), shared.config.limits.audio_seconds),
        channels=1 if params.options.channels == "mix" else spool.channels(),
        request={**params.request(), "audio": spool.facts(), "model": shared.model_in_use},
        fingerprint=_fingerprint([part.digest.hexdigest() for part in (spool, *references)], params, detached=detached),
        detached=detached,
        callback=params.callback,
    )
    if shared.fleet and detached:
        return _submit_to_fleet(shared.fleet, new, spool, references)
    job = _store(shared, new, spool, references)
    if job.id == new.id:
        logs.event("job_created", job=job.id, bytes=spool.size, estimate=round(new.estimate, 1), detached=detached)
    else:
        if detached:  # it may be a waiting request's, whose files need not be on the disk
            _sync_files(shared.config.temp, job)
        logs.event("job_repeated", job=job.id)
    return job


def _store(shared: AppContext, new: NewJob, spool: Spool, references: Sequence[Spool]) -> Job:
    """The new job with its files, or the one that it repeats. Raises ApiError."""
    folder, job = shared.config.temp, None
    try:
        spool.keep(uploads.recording(folder, new.id), durable=new.detached)
        for index, part in enumerate(references):
            part.keep(uploads.reference(folder, new.id, index), durable=new.detached)
        job = shared.store.create(new, bounds=shared.bounds, reuse_since=_reuse_since())
    except QueueFullError as error:
        raise _full(shared, error) from None
    except sqlite3.Error:
        with contextlib.suppress(sqlite3.Error):  # the disk may have what it denied to have
            shared.store.delete(new.id)
        raise
    finally:
        if job is None or job.id != new.id:
            uploads.remove(folder, new.id)
    return job


def _sync_files(folder: Path, job: Job) -> None:
    for path in uploads.files(folder, job.id):
        with contextlib.suppress(FileNotFoundError):  # the worker is done with it
            uploads.sync(path)


def _submit_to_fleet(fleet: FleetClient, new: NewJob, spool: Spool, references: Sequence[Spool]) -> Job:
    """The same where every machine of the fleet finds it. The files stay those of the request, which removes them."""
    recording = Recording(
        spool.path.name, spool.digest.hexdigest(), spool.size, tuple(part.path.name for part in references)
    )
    job = None if request.cache_control.no_cache else fleet.submit(repeatable(new, REUSE_SECONDS), recording)
    if job is None or job.status in ("failed", "cancelled"):  # such a one stands in for nothing
        job = fleet.submit(new, recording)
    logs.event("job_submitted", job=job.id, bytes=spool.size, estimate=round(new.estimate, 1))
    return job


def _fingerprint(digests: list[str], params: Params, *, detached: bool) -> str:
    """Equal for the same recordings and the same options; the format of the answer does not matter. Whether its result
    has a record is kept with a job; a request that waits knows it itself."""
    work = [digests, asdict(params.options), params.chunking, params.callback, detached and params.record]
    return hashlib.sha256(json.dumps(work).encode()).hexdigest()


def _reuse_since() -> float | None:
    """The oldest job that may stand in for this request; None if the client wants it worked on anew."""
    return None if request.cache_control.no_cache else time.time() - REUSE_SECONDS


def _full(shared: AppContext, error: QueueFullError) -> ApiError:
    """A 429 whose Retry-After is the time until there is room, at the worker's present speed."""
    seconds = error.excess / shared.watcher.snapshot.speed
    code = "rate_limit_exceeded" if error.bound.startswith("key_") else "queue_full"
    return busy(429, MESSAGES[error.bound], code, seconds=seconds)
