"""The manifest of an image: what this machine consists of, down to single packages and files."""

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

SCHEMA = 1
SOURCE = Path("/srv/transcribe")
SOURCES = ("salt", "service")  # folders of it
DRIVER = Path("/sys/module/nvidia/version")
OS_RELEASE = Path("/etc/os-release")
DPKG = Path("/var/lib/dpkg/info")
Document = dict[str, Any]

__pillar__: dict[str, Any]


def collect() -> Document:
    """The machine as JSON: system, packages, model, sources, sizes.

    `files_sha256` of a package is the SHA-256 of its own list of its files' digests: RECORD for Python, md5sums for
    Debian; None where a package has no such list.
    """
    root = Path(__pillar__["transcribe"]["root"])
    return {
        "schema": SCHEMA,
        "os": _os(),
        "kernel": platform.release(),
        "driver": DRIVER.read_text().strip() if DRIVER.exists() else None,
        "model": _model(root),
        "python": {"service": python_packages(root / "venv"), "salt": python_packages(Path(sys.prefix))},
        "debian": debian_packages(),
        "sources": dict(_sources()),
        "bytes": {
            "disk": _on_disk("/"),
            "venv": _size(root / "venv"),
            "models": _size(root / "models"),
            "salt": _size(Path(sys.prefix)),
        },
    }


def write(origin: Document) -> Document:
    """Write manifest.json, with `origin` as the launcher gave it, and return it."""
    found = {**collect(), "origin": origin}
    path = Path(__pillar__["transcribe"]["root"], "manifest.json")
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    scratch.chmod(0o644)
    scratch.replace(path)
    return found


def read() -> Document:
    """The manifest that was written when the image was made."""
    found: Document = json.loads(Path(__pillar__["transcribe"]["root"], "manifest.json").read_text())
    return found


def python_packages(venv: Path) -> list[Document]:
    """The packages in a virtual environment, by name."""
    site = sorted(str(path) for path in venv.glob("lib/python3*/site-packages"))
    return sorted(map(_python_package, distributions(path=site)), key=lambda package: package["name"])


def _python_package(found: Distribution) -> Document:
    record = found.read_text("RECORD")
    return {
        "name": found.metadata["Name"],
        "version": found.version,
        "license": _license(found.metadata.json),
        "files_sha256": _digest(record.encode()) if record else None,
    }


def _license(metadata: Document) -> str | None:
    """The expression of PEP 639, or what came before it where that is a name and not the text itself."""
    name: str = metadata.get("license_expression") or metadata.get("license") or ""
    return name if 0 < len(name) < 80 and "\n" not in name else None


def debian_packages() -> list[Document]:
    """The installed packages of the distribution, by name."""
    form = "${db:Status-Abbrev}\t${Package}\t${Version}\t${Architecture}\n"
    command = ["dpkg-query", "--show", f"--showformat={form}"]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = (line.split("\t") for line in listing.splitlines())
    return [
        {"name": name, "version": version, "architecture": arch, "files_sha256": _md5sums(name, arch)}
        for status, name, version, arch in sorted(rows, key=lambda row: row[1:])
        if status.startswith(("ii", "hi"))  # installed; held at its version
    ]


def _md5sums(name: str, architecture: str) -> str | None:
    for path in (DPKG / f"{name}.md5sums", DPKG / f"{name}:{architecture}.md5sums"):
        if path.exists():
            return _digest(path.read_bytes())
    return None


def _os() -> Document:
    lines = [line.partition("=") for line in OS_RELEASE.read_text().splitlines()]
    fields = {name: value.strip('"') for name, _, value in lines}
    return {"id": fields.get("ID"), "version": fields.get("VERSION_ID"), "name": fields.get("PRETTY_NAME")}


def _model(root: Path) -> Document:
    info = json.loads((root / "cache/cache_info.json").read_text())
    return {"id": info["model_id"], "revision": info["model_revision"], "files": info["files"]}


def _sources() -> Iterator[tuple[str, str]]:
    """The digest of each file of the declaration and the programs."""
    for path in sorted(path for folder in SOURCES for path in (SOURCE / folder).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield str(path.relative_to(SOURCE)), _digest(path.read_bytes())


def _on_disk(path: str) -> int:
    """What the files of one file system take, without what is mounted below it."""
    command = ["du", "--one-file-system", "--summarize", "--block-size=1", path]
    output = subprocess.run(command, check=False, capture_output=True, text=True).stdout  # a file may go meanwhile
    return int(output.split()[0])


def _size(folder: Path) -> int:
    """Bytes of the files below a folder; links count as links."""
    return sum(os.lstat(f"{at}/{name}").st_size for at, _, names in os.walk(folder) for name in names)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
