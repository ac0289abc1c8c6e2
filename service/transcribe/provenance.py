"""What a result's record says: the recording, the machine, the model, the options, and the outcome."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from transcribe.config import ServiceConfig
from transcribe.corrections import Corrections
from transcribe.formats import TranscriptionResult, text
from transcribe.records import MachineKey, segments_digest, text_digest
from transcribe.types import DecodeOptions, Transcript

VERSION = 1
PACKAGE = Path(__file__).parent
KEY_FILE = "machine-key"
NONE = Corrections()


@dataclass(frozen=True)
class Work:
    """What became of one recording: `audio` is its `sha256` and `bytes` as it came, `model` an id and a revision,
    `times` are Unix times by name, `job` the job's id, None where there was none."""

    audio: Mapping[str, Any]
    transcript: Transcript
    options: DecodeOptions
    model: str | None
    coverage: Mapping[str, Any] | None
    times: Mapping[str, float | None]
    job: str | None = None
    attempts: int = 1


@dataclass(frozen=True)
class Provenance:
    """Makes and signs records."""

    config: ServiceConfig
    key: MachineKey

    @classmethod
    def of(cls, config: ServiceConfig) -> "Provenance":
        """With this machine's key, which is made when it is first needed: what is in `results` is sealed out of an
        image, so that no two machines share one. Raises RecordError and OSError."""
        return cls(config, MachineKey.at(key_file(config)))

    def record(self, work: Work, corrections: Corrections = NONE) -> dict[str, str]:
        """The signed record of finished work with the text as the model wrote it, and of how it was corrected."""
        return self.key.sign(
            {
                "version": VERSION,
                "job": work.job,
                "audio": {**work.audio, "seconds": work.transcript.duration},
                **_digests(work.transcript),
                "language": work.transcript.language,
                "model": work.model,
                "options": asdict(work.options),
                "coverage": work.coverage,
                "attempts": work.attempts,
                "times": {name: _moment(seconds) for name, seconds in work.times.items()},
                "image": self._image,
                "programs_sha256": PROGRAMS,
            }
            | ({"corrections": _corrected(work.transcript, corrections)} if corrections else {})
        )

    @cached_property
    def _image(self) -> Mapping[str, Any] | None:
        """The image's manifest by its digest, and where the image comes from; None on a machine without."""
        try:
            content = (self.config.root / "manifest.json").read_bytes()
            return {"manifest_sha256": hashlib.sha256(content).hexdigest(), "origin": json.loads(content).get("origin")}
        except (OSError, ValueError):
            return None


def key_file(config: ServiceConfig) -> Path:
    """Where the key is with which records are signed: one for all programs of this root folder."""
    return config.results / KEY_FILE


def _corrected(transcript: Transcript, corrections: Corrections) -> dict[str, Any]:
    """How many names and segments people have changed, and the digest of the text that this makes."""
    corrected = replace(transcript, segments=corrections.apply(transcript.segments))
    return {
        "speakers": len(corrections.speakers),
        "segments": len(corrections.segments),
        **_digests(corrected),
    }


def _digests(transcript: Transcript) -> dict[str, str]:
    """Of the text alone, of the text as it is served, with the names of speakers, and of who says what when."""
    return {
        "text_sha256": text_digest(transcript.text),
        "text_format_sha256": text_digest(text(TranscriptionResult(transcript))),
        "segments_sha256": segments_digest(transcript.segments),
    }


def _programs() -> str:
    """The digest of the service's own programs: of their names and digests, in order."""
    whole = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        whole.update(f"{path.relative_to(PACKAGE)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


PROGRAMS = _programs()  # as they were when the program started


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
