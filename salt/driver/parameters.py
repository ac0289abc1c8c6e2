"""parameters.json: which machine of which bake this is, and where its report, progress and log are uploaded to."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BAKE, VERIFY = "bake", "verify"


class DriverError(Exception):
    """Why the machine failed, in one line."""


@dataclass(frozen=True)
class SampleAudio:
    """A recording to transcribe on the finished image."""

    url: str = field(repr=False)
    language: str
    suffix: str


@dataclass(frozen=True)
class Parameters:
    """What the launcher wrote into this machine's user-data. The URLs are signed, so they are never printed."""

    build_id: str
    nonce: str = field(repr=False)
    mode: str
    report_url: str = field(repr=False)
    progress_url: str = field(repr=False)
    log_url: str = field(repr=False)
    payload_sha256: str
    audio: SampleAudio | None
    origin: Mapping[str, Any]  # for the image's manifest: where the image comes from
    keep: bool = False  # after a failure the machine stays up for inspection, until its deadline


def load(path: Path, payload_file: Path) -> Parameters:
    """The parameters in `path`, with the digest of the payload that this machine was made from.

    A bake gets the digest from the launcher, an image from `payload_file`. Raises DriverError.
    """
    try:
        document = json.loads(path.read_text())
        mode = document["mode"]
        if mode not in (BAKE, VERIFY):
            raise DriverError(f"{path}: mode is {mode!r}, neither {BAKE} nor {VERIFY}")
        audio = document.get("audio")
        return Parameters(
            build_id=document["build_id"],
            nonce=document["nonce"],
            mode=mode,
            report_url=document["report_url"],
            progress_url=document["progress_url"],
            log_url=document["log_url"],
            payload_sha256=document["payload"]["sha256"] if mode == BAKE else _digest(payload_file),
            audio=SampleAudio(url=audio["url"], language=audio["language"], suffix=audio["suffix"]) if audio else None,
            origin=document.get("origin", {}),
            keep=document.get("keep") is True,
        )
    except OSError as error:
        raise DriverError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise DriverError(f"{path} is not valid JSON") from None
    except (KeyError, TypeError) as error:
        raise DriverError(f"{path} lacks {error}") from None


def secrets(parameters: Parameters) -> list[str]:
    """What must not be on the disk when the machine becomes an image."""
    return [parameters.nonce, parameters.report_url, parameters.progress_url, parameters.log_url]


def _digest(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""  # the launcher then reports that the digest differs
