"""Records of results that can be checked later: what was heard, by what, and with which outcome, signed by the machine.

A signed record is a JSON object: `payload` is the record itself as JSON text, `signature` the Ed25519 signature (RFC
8032) of that text in UTF-8, `public_key` the machine's key; both in base64. The text is signed as it stands, so nobody
has to agree on how JSON is written.
"""

import base64
import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from transcribe.types import Segment

BLOCK = 1024 * 1024
SEED_BYTES = 32
MODE = 0o600  # the key's file: its user alone
NO_RECORD = "this is no signed record of a result"


class RecordError(ValueError):
    """A key or a record cannot be used. The message is one line."""


class MachineKey:
    """The key with which this machine signs."""

    def __init__(self, seed: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)

    @classmethod
    def at(cls, path: Path) -> "MachineKey":
        """The key in the file, which is made if there is none. Raises RecordError and OSError."""
        if not path.exists():
            _make(path)
        seed = _own(path)
        if len(seed) != SEED_BYTES:
            message = f"{path} holds no key, which would have {SEED_BYTES} bytes; remove it for a new one"
            raise RecordError(message)
        return cls(seed)

    @property
    def public(self) -> str:
        """The public half in base64."""
        return base64.b64encode(self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()

    def sign(self, record: Mapping[str, Any]) -> dict[str, str]:
        """The record with its signature."""
        payload = json.dumps(record, ensure_ascii=False, sort_keys=True)
        signature = base64.b64encode(self._private.sign(payload.encode())).decode()
        return {"payload": payload, "public_key": self.public, "signature": signature}


def _make(path: Path) -> None:
    """A new key, whole or not at all; of two that are made at once, the first stays."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix="machine-key.") as scratch:  # only its user may read it
        scratch.write(os.urandom(SEED_BYTES))
        scratch.flush()
        os.fchmod(scratch.fileno(), MODE)
        os.fsync(scratch.fileno())
        try:
            os.link(scratch.name, path)
        except FileExistsError:
            return


def _own(path: Path) -> bytes:
    """What is in the key's file, if nobody but this process's user can have put it there or read it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe would block
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise RecordError(f"{path} is a link and not a key; remove it for a new key") from None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise RecordError(f"{path} is no file; remove it for a new key")
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            message = f"{path} is not this user's alone (owner {found.st_uid}, mode {found.st_mode & 0o777:04o})"
            raise RecordError(f"{message}: others may know the key; remove it for a new one")
        return file.read(SEED_BYTES + 1)


@dataclass(frozen=True)
class Check:
    """One thing that was checked, and what was found."""

    name: str
    good: bool
    found: str

    def __str__(self) -> str:
        return _on_one_line(f"{'good' if self.good else 'BAD '}  {self.name}: {self.found}")


class _Texts(msgspec.Struct):
    """The digests of a text, alone and as it is served."""

    text_sha256: str | None = None
    text_format_sha256: str | None = None


class _Audio(msgspec.Struct):
    sha256: str
    seconds: float | None = None


class _Record(msgspec.Struct):
    """What is looked at in a record; what others add is passed over."""

    audio: _Audio
    text_sha256: str
    text_format_sha256: str | None = None
    corrections: _Texts | None = None
    model: str | None = None
    times: dict[str, Any] | None = None


def _decoded(payload: str) -> _Record:
    """The record in a payload. Raises RecordError."""
    try:
        return msgspec.json.decode(payload, type=_Record)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise RecordError(NO_RECORD) from None


def _on_one_line(text: str) -> str:
    """Without what would make a second line of it, or cannot be written: a record may come from anybody."""
    return "".join(character if character.isprintable() else "?" for character in text)


def verify(signed: Mapping[str, Any], audio: Path, *, key: str = "", text: Path | None = None) -> list[Check]:
    """Checks a signed record against a recording, and if they are given a machine's public key in base64 and the text
    in a file. Raises RecordError for what is no signed record, and OSError."""
    try:
        payload, public, signature = (str(signed[name]) for name in ("payload", "public_key", "signature"))
    except (KeyError, TypeError):
        raise RecordError(NO_RECORD) from None
    record = _decoded(payload)
    checks = [_signature(payload, public, signature)]
    if key:
        same = key.strip() == public
        checks.append(Check("machine", same, "it has the key that you named" if same else f"its key is {public}"))
    digest = digest_of(audio)
    found = f"it has the SHA-256 {digest}"
    same = digest == record.audio.sha256
    checks.append(Check("audio", same, found if same else f"{found}, not {record.audio.sha256}"))
    if text is not None:
        checks.append(_text(text_digest(_read(text)), record))
    return checks


def summary(signed: Mapping[str, Any]) -> str:
    """What a record says, in one line, as far as it says it. Raises RecordError."""
    record = _decoded(str(signed["payload"]))
    finished = (record.times or {}).get("finished")
    return _on_one_line(f"{record.model} heard {record.audio.seconds} s of sound; finished {finished}")


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, in hex. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def text_digest(text: str) -> str:
    """The SHA-256 of a text without white space around it, in hex."""
    return hashlib.sha256(text.strip().encode()).hexdigest()


def _text(digest: str, record: _Record) -> Check:
    if digest in (record.text_sha256, record.text_format_sha256):
        return Check("text", True, "it is what the machine wrote")
    corrected = record.corrections or _Texts()
    if digest in (corrected.text_sha256, corrected.text_format_sha256):
        return Check("text", False, "it is not what the machine wrote, but what people made of it on the machine")
    return Check("text", False, "it is not what the machine wrote")


def segments_digest(segments: Iterable[Segment]) -> str:
    """The SHA-256, in hex, of who says what and when: a list of objects with `start` and `end` in whole milliseconds,
    `text` without white space around it, and `speaker`, which may be null, as canonical JSON (RFC 8785)."""
    rows = [
        {
            "start": round(one.start * 1000),
            "end": round(one.end * 1000),
            "text": one.text.strip(),
            "speaker": one.speaker,
        }
        for one in segments
    ]
    canonical = json.dumps(rows, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise RecordError(f"the text to check, {path}, is not in UTF-8") from None


def _signature(payload: str, public: str, signature: str) -> Check:
    try:
        Ed25519PublicKey.from_public_bytes(base64.b64decode(public)).verify(
            base64.b64decode(signature), payload.encode()
        )
    except (InvalidSignature, ValueError):
        return Check("signature", False, "the record was changed, or another key signed it")
    return Check("signature", True, f"signed with the key {public}")
