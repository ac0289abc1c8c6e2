"""The text of an unfinished job in the bucket, so that another machine goes on where this one was."""

from transcribe import logs
from transcribe.feeder.fleet import Fleet
from transcribe.fleet.documents import Checkpoint, decoded
from transcribe.jobs import resume
from transcribe.jobs.tickets import Start


def save(fleet: Fleet, job_id: str) -> float | None:
    """Stores what the worker has committed; returns the seconds of audio in it, None if there is nothing yet."""
    found = fleet.store.tickets.snapshot(job_id)
    if found is None or found[0].resume is None:
        return None
    job, segments = found
    assert job.resume is not None
    checkpoint = Checkpoint(
        job=job_id,
        program=fleet.program,
        revision=fleet.config.model.revision,
        progress=job.progress,
        duration=job.duration,
        resume=job.resume,
        segments=tuple(segments),
    )
    fleet.bucket.put(fleet.layout.checkpoint(job_id), checkpoint.encoded())
    return job.progress


def load(fleet: Fleet, job_id: str) -> Start | None:
    """Where to go on; None: from the beginning, as after a change of the program or of the model, or where nobody could
    go on from what is stored."""
    stored = fleet.bucket.read(fleet.layout.checkpoint(job_id))
    if stored is None:
        return None
    try:
        found = decoded(stored.data, Checkpoint)
        if found.job != job_id:
            raise ValueError(f"the checkpoint is that of the job {found.job}")
        if (found.program, found.revision) != (fleet.program, fleet.config.model.revision):
            logs.event("checkpoint_of_another_program", job=job_id)
            return None
        resume.check(found.resume, found.segments)
    except ValueError as error:
        logs.failure("checkpoint_unreadable", error, job=job_id)
        return None
    logs.event("job_continued", job=job_id, audio_seconds=round(found.progress, 1))
    return Start(found.progress, found.duration, found.resume, found.segments)
