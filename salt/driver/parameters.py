"""parameters.json: who this machine is to the launcher, and where its answers go."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BAKE, VERIFY = "bake", "verify"


class DriverError(Exception):
    """Why the machine failed, in one line."""


@dataclass(frozen=True)
class Audio:
    """A recording to transcribe on the finished image."""

    url: str = field(repr=False)
    language: str
    suffix: str


@dataclass(frozen=True)
class Parameters:
    """What the launcher told this machine. The URLs are signed, so they are never printed."""

    build_id: str
    nonce: str = field(repr=False)
    mode: str
    report_url: str = field(repr=False)
    progress_url: str = field(repr=False)
    log_url: str = field(repr=False)
    payload_sha256: str
    audio: Audio | None
    origin: Mapping[str, Any]  # what the image's manifest is to say of where it comes from
    keep: bool = False  # on a failure the machine stays up, to be looked at until its deadline


def load(path: Path, payload_file: Path) -> Parameters:
    """The parameters in `path`, and the digest of the payload that this machine was made from.

    A bake has it from the launcher, an image from `payload_file`. Raises DriverError.
    """
    try:
        told = json.loads(path.read_text())
        mode = told["mode"]
        if mode not in (BAKE, VERIFY):
            raise DriverError(f"{path}: mode is {mode!r}, neither {BAKE} nor {VERIFY}")
        audio = told.get("audio")
        return Parameters(
            build_id=told["build_id"],
            nonce=told["nonce"],
            mode=mode,
            report_url=told["report_url"],
            progress_url=told["progress_url"],
            log_url=told["log_url"],
            payload_sha256=told["payload"]["sha256"] if mode == BAKE else _digest(payload_file),
            audio=Audio(url=audio["url"], language=audio["language"], suffix=audio["suffix"]) if audio else None,
            origin=told.get("origin", {}),
            keep=told.get("keep") is True,
        )
    except OSError as error:
        raise DriverError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise DriverError(f"{path} is not valid JSON") from None
    except (KeyError, TypeError) as error:
        raise DriverError(f"{path} lacks {error}") from None


def secrets(parameters: Parameters) -> list[str]:
    """What must be on no disk when the machine becomes an image."""
    return [parameters.nonce, parameters.report_url, parameters.progress_url, parameters.log_url]


def _digest(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""  # the launcher will say that the digest differs
