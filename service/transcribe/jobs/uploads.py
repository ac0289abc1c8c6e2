"""The files of a job in the folder of uploads: its recording, and one reference recording for each known voice."""

import os
import re
from pathlib import Path

FILE = re.compile(r"([0-9a-f]{32})(?:\.speaker-\d+)?")


def recording(folder: Path, job_id: str) -> Path:
    """What is to be transcribed."""
    return folder / job_id


def reference(folder: Path, job_id: str, index: int) -> Path:
    """The voice of `known_names[index]` of the job's SpeakerOptions: a sound file of any format."""
    return folder / f"{job_id}.speaker-{index}"


def owner(path: Path) -> str | None:
    """The id of the job whose file this is; None for any other file."""
    found = FILE.fullmatch(path.name)
    return found[1] if found else None


def sync(path: Path) -> None:
    """Waits until a file that was just given its name is on the disk: its content first, since the name is then mostly
    there as well, and the folder's sync costs little. Raises OSError."""
    for place in (path, path.parent):
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def files(folder: Path, job_id: str) -> list[Path]:
    """All files of the job that are there."""
    found = (recording(folder, job_id), *folder.glob(f"{job_id}.speaker-*"))
    return [path for path in found if path.exists()]


def remove(folder: Path, job_id: str) -> None:
    """Removes all files of the job that are there."""
    for path in files(folder, job_id):
        path.unlink(missing_ok=True)
