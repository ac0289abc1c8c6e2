"""A worker without a model: it claims jobs from the real store and finishes them with canned segments."""

import sys
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from transcribe.jobs import uploads
from transcribe.jobs.models import Job, JobError
from transcribe.jobs.store import Store
from transcribe.types import Segment, SpeakerOptions, Word

TEXTS = (" Hej och välkomna.", " Nu ska vi tala om Ärendet.", " Tack --> slut & adjö. ")
SURE = {"Ärendet.": 0.05}  # the mean probability of the tokens of words for which it is not 0.9
SEGMENT_SECONDS = 2.5
FACTS: dict[str, Any] = {
    "state": "ready",
    "device": "cpu",
    "dtype": "float32",
    "cuda": False,
    "torch": "2.13.0",
    "model": "KBLab/kb-whisper-small",
    "revision": "0123456789abcdef0123456789abcdef01234567",
    "speed": 10.0,
    "pid": 1,
    "nvidia_devices": [],
    "gpu": None,
    "speakers": True,
    "engine": {"precision": {"encoder": "float32", "decoder": "float32"}},
    "rows": 16,
    "steps": {"wanted": True, "recorded": 9, "plain": 1, "failed_captures": 1, "failure": "x"},
    "metrics": {"fallbacks_total": 3, "memory_bytes": 1e9, "recorded_steps_total": 9},
    "batch_sizes": {"1": 4, "8": 2},
}
COVERAGE = {"speech_seconds": 6.0, "text_seconds": 6.0, "dropped": []}


def canned(*, words: bool) -> list[Segment]:
    """The segments that every recording gets."""
    return [_segment(number, text, words=words) for number, text in enumerate(TEXTS)]


def _segment(number: int, text: str, *, words: bool) -> Segment:
    start = number * SEGMENT_SECONDS
    parts = text.split()
    length = SEGMENT_SECONDS / len(parts)
    timed = tuple(
        Word(f" {w}", start + i * length, start + (i + 1) * length, SURE.get(w, 0.9)) for i, w in enumerate(parts)
    )
    return Segment(
        number, 0, start, start + SEGMENT_SECONDS, text, (number, 7), 0.0, -0.3, 1.1, 0.01, timed if words else None
    )


def spoken(segments: list[Segment], speakers: SpeakerOptions) -> list[Segment]:
    """The same, said in turns by the known speakers and A."""
    names = (*speakers.known_names, "A")
    found = []
    for number, segment in enumerate(segments):
        name = names[number % len(names)]
        words = segment.words and tuple(replace(word, speaker=name) for word in segment.words)
        found.append(replace(segment, speaker=name, words=words))
    return found


def resume_after(segment: Segment) -> dict[str, Any]:
    """What a worker that has heard so far stores to go on from."""
    coverage = {"speech": segment.end, "text": segment.end, "count": 0, "dropped": []}
    state = {"chunks": segment.id + 1, "progress": segment.end, "next_id": segment.id + 1}
    return {**state, "coverage": coverage, "end": segment.end}


@dataclass
class FakeWorker:
    """`delay` seconds pass before each segment. A file that starts with b"bad" fails as audio, one that starts with
    b"crash" fails for the server's own reasons; while `hold` is set nothing is claimed."""

    store: Store
    temp: Path
    delay: float = 0.0
    facts: dict[str, Any] = field(default_factory=lambda: dict(FACTS))
    coverage: dict[str, Any] = field(default_factory=lambda: dict(COVERAGE))
    hold: threading.Event = field(default_factory=threading.Event)
    resumes: bool = False  # goes on after the segments of an earlier attempt, as the real one does
    seen: list[Job] = field(default_factory=list)
    references: list[bytes] = field(default_factory=list)  # of the last job

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> "FakeWorker":
        """Reports ready and begins to work."""
        self.store.set_worker(self.facts)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Ends the thread."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        reported = 0.0
        while not self._stop.wait(0.005):
            if time.monotonic() - reported > 2:
                self.store.set_worker(self.facts)
                reported = time.monotonic()
            if not self.hold.is_set() and (job := self.store.claim(max_attempts=10**6)):
                self.seen.append(job)
                self._work(job)

    def _work(self, job: Job) -> None:
        content = (self.temp / job.id).read_bytes()
        if content.startswith(b"bad"):
            error = JobError("The file has no sound.", "invalid_request_error", "no_audio", "file", 400)
            self.store.fail(job.id, job.attempts, error)
            return
        if content.startswith(b"crash"):
            self.store.fail(job.id, job.attempts, JobError("The model ran out of memory.", code="out_of_memory"))
            return
        segments = canned(words=job.options.words)
        if speakers := job.options.speakers:
            paths = [uploads.reference(self.temp, job.id, index) for index in range(len(speakers.known_names))]
            self.references = [path.read_bytes() for path in paths]
        self.store.set_duration(job.id, job.attempts, segments[-1].end)
        done = len(self.store.segments(job.id)) if job.resume else 0
        for segment in segments[done:]:
            if self._stop.wait(self.delay):
                return
            resume = resume_after(segment) if self.resumes else None
            if not self.store.add_segments(job.id, job.attempts, [segment], progress=segment.end, resume=resume):
                return
        told = spoken(segments, speakers) if speakers and job.options.channels != "separate" else None
        language = job.options.language or "sv"
        self.store.finish(job.id, job.attempts, language=language, coverage=self.coverage, segments=told)


def main() -> None:
    """As a process: `fakeworker.py DATABASE TEMP DELAY`. Like the real one it begins with what an earlier one left."""
    store = Store(Path(sys.argv[1]))
    store.requeue_running(max_attempts=10**6)
    worker = FakeWorker(store, Path(sys.argv[2]), delay=float(sys.argv[3])).start()
    threading.Event().wait()
    worker.stop()


if __name__ == "__main__":
    main()
