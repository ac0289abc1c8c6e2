"""The signed records of jobs."""

from transcribe.api.errors import ApiError
from transcribe.corrections import Corrections
from transcribe.jobs.models import Job
from transcribe.provenance import NONE, Provenance, Work
from transcribe.types import Transcript


def record_of(
    provenance: Provenance, job: Job, transcript: Transcript, corrections: Corrections = NONE
) -> dict[str, str]:
    """The signed record of a finished job with the text as the model wrote it, and of how it was corrected. Raises
    ApiError for a job whose recording's digest is not known."""
    heard = job.request.get("audio")
    if not heard:
        message = "This job has no record: the digest of its recording was not kept."
        raise ApiError(404, message, "id", "record_not_found")
    work = Work(
        audio=heard,
        transcript=transcript,
        options=job.options,
        model=job.request.get("model"),
        coverage=job.coverage,
        times={"created": job.created, "started": job.started, "finished": job.finished},
        job=job.id,
        attempts=job.attempts,
    )
    return provenance.record(work, corrections)
