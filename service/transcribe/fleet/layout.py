"""Where the objects of a job lie in the bucket, and what the queues are called."""

import hashlib
import re
from dataclasses import dataclass

JOB = re.compile(r"[0-9a-f]{32}")
FINISH_HOOK = "finish-work"  # of a fleet's group: its machines end once they have done what they hold
TRANSCRIPTS = {  # the formats of a transcript, by the end of their objects' names
    "text": "txt",
    "srt": "srt",
    "vtt": "vtt",
    "tsv": "tsv",
    "json": "json",
    "verbose_json": "verbose.json",
    "diarized_json": "diarized.json",  # where speakers are told apart
}


@dataclass(frozen=True)
class Layout:
    """The keys of a job's objects below `prefix`. A job is 32 hexadecimal digits."""

    prefix: str

    def audio(self, job: str) -> str:
        """The recording, as it was sent."""
        return f"{self.prefix}/jobs/{job}/audio"

    def speaker(self, job: str, index: int) -> str:
        """The reference recording of a known voice, counted from 0."""
        return f"{self.prefix}/jobs/{job}/speaker-{index}"

    def request(self, job: str) -> str:
        """What is to be done with it: a Request."""
        return f"{self.prefix}/jobs/{job}/request.json"

    def state(self, job: str) -> str:
        """How far it is: a State. Written only if nobody else has written meanwhile."""
        return f"{self.states}{job}.json"

    def checkpoint(self, job: str) -> str:
        """The text so far, for the machine that goes on: a Checkpoint."""
        return f"{self.prefix}/checkpoint/{job}.json"

    def outcome(self, job: str) -> str:
        """How it ended: an Outcome. It is created once and never replaced, so that there is one result."""
        return f"{self.prefix}/out/{job}/outcome.json"

    def transcript(self, job: str, response_format: str) -> str:
        """The outcome's text in one of the TRANSCRIPTS."""
        return f"{self.prefix}/out/{job}/transcript.{TRANSCRIPTS[response_format]}"

    def everything(self, job: str, speakers: int) -> list[str]:
        """All keys that a job with so many known voices may have. The state is first: without it, nobody works on the
        job. The request is last: it says whose the job is."""
        sounds = [self.audio(job), *(self.speaker(job, index) for index in range(speakers))]
        return [self.state(job), *sounds, *self.written(job), self.request(job)]

    def written(self, job: str) -> list[str]:
        """What machines write besides the state. Where that is gone, nothing of this may stay; what a client sends may
        be there already for the same job anew."""
        texts = [self.transcript(job, response_format) for response_format in TRANSCRIPTS]
        return [self.checkpoint(job), *texts, self.outcome(job)]

    @property
    def drops(self) -> str:
        """What the keys of recordings begin with that are put there by themselves, in a folder for each owner."""
        return f"{self.prefix}/in/"

    @property
    def states(self) -> str:
        """What the keys of all states begin with."""
        return f"{self.prefix}/state/"


def job_id(*parts: str) -> str:
    """The id of the job that these texts describe: the same texts, the same job."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def priority_queue(name: str) -> str:
    """The queue that is looked into first."""
    return f"{name}-priority"


def dead_letter_queue(name: str) -> str:
    """The queue of the messages that were given up."""
    return f"{name}-dead"
