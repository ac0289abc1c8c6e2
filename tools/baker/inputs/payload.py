"""The payload: salt/ and service/ as one archive. The same tree makes the same bytes on any machine.

It is not compressed: compressed bytes depend on the zlib that made them (zlib and zlib-ng differ), so the same tree
could have two digests; and it is only some hundred kilobytes.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baker.inputs import source_tree

OVERRIDES = "salt/pillar/overrides.sls"


@dataclass(frozen=True)
class Payload:
    """The archive, and for each file in it, by its name, the SHA-256 (hex) of its mode and content."""

    data: bytes
    digests: Mapping[str, str]
    contents: Mapping[str, str]  # the SHA-256 of the content alone, as a machine sees it

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def build(root: Path, overrides: Mapping[str, Any]) -> Payload:
    """Pack the tree's payload files with `overrides`, the pillar that this bake adds."""
    contents = {name: (root / name).read_bytes() for name in source_tree.files(root, source_tree.PAYLOAD_FOLDERS)}
    executable = source_tree.executable(root, list(contents))
    contents[OVERRIDES] = overrides_file(overrides)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(contents):
            tar.addfile(_member(name, len(contents[name]), name in executable), io.BytesIO(contents[name]))
    digests = {
        name: hashlib.sha256(b"x" * (name in executable) + b"\n" + data).hexdigest()
        for name, data in sorted(contents.items())
    }
    plain = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(contents.items())}
    return Payload(archive.getvalue(), digests, plain)


def overrides_file(overrides: Mapping[str, Any]) -> bytes:
    """Overrides as a pillar file: JSON, which is YAML, and marked so that no template engine reads it."""
    return b"#!yaml\n" + json.dumps(overrides, sort_keys=True, indent=1).encode() + b"\n"


def _member(name: str, size: int, executable: bool) -> tarfile.TarInfo:
    """A tar header without the user, the time and the umask of the packing."""
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o755 if executable else 0o644
    return member
