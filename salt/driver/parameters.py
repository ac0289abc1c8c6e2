"""parameters.json: which machine of which bake this is; and addresses.json: where its report, progress and log go."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BAKE, VERIFY, LOOK = "bake", "verify", "look"


class DriverError(Exception):
    """Why the machine failed, in one line."""


@dataclass(frozen=True)
class SampleAudio:
    """A recording to transcribe on the finished image; the address `audio` leads to it."""

    language: str
    suffix: str


@dataclass(frozen=True)
class Parameters:
    """What the launcher wrote into this machine's user-data."""

    build_id: str
    nonce: str = field(repr=False)
    mode: str
    addresses: Path  # the file of signed addresses, which the launcher renews; they are never printed
    payload_sha256: str
    audio: SampleAudio | None
    origin: Mapping[str, Any]  # for the image's manifest: where the image comes from
    keep: bool = False  # after a failure the machine stays up for inspection, until its deadline

    def address(self, name: str) -> str:
        """One of the addresses: report, progress, log, addresses, audio. Raises DriverError."""
        try:
            return str(_read(self.addresses)[f"{name}_url"])
        except KeyError:
            raise DriverError(f"{self.addresses.name} has no address {name}") from None

    def upload_headers(self) -> Mapping[str, str]:
        """What an upload to one of the addresses must carry: their signatures cover it. Raises DriverError."""
        return {str(name): str(value) for name, value in _read(self.addresses).get("upload_headers", {}).items()}


def load(path: Path, payload_file: Path) -> Parameters:
    """The parameters in `path`, with the digest of the payload that this machine was made from.

    A bake gets the digest from the launcher, an image from `payload_file`. Raises DriverError.
    """
    document = _read(path)
    try:
        mode = document["mode"]
        if mode not in (BAKE, VERIFY, LOOK):
            raise DriverError(f"{path}: mode is {mode!r}, none of {BAKE}, {VERIFY}, {LOOK}")
        audio = document.get("audio")
        return Parameters(
            build_id=document["build_id"],
            nonce=document["nonce"],
            mode=mode,
            addresses=path.with_name("addresses.json"),
            payload_sha256=_digest(payload_file) if mode == VERIFY else document["payload"]["sha256"],
            audio=SampleAudio(language=audio["language"], suffix=audio["suffix"]) if audio else None,
            origin=document.get("origin", {}),
            keep=document.get("keep") is True,
        )
    except (KeyError, TypeError) as error:
        raise DriverError(f"{path} lacks {error}") from None


def secrets(parameters: Parameters) -> list[str]:
    """What must not be on the disk when the machine becomes an image."""
    addresses = [str(value) for name, value in _read(parameters.addresses).items() if name.endswith("_url")]
    return [parameters.nonce, *addresses]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise DriverError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise DriverError(f"{path} is not valid JSON") from None


def _digest(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""  # the launcher then reports that the digest differs
