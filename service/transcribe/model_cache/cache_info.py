"""cache_info.json: what model was cached, where, and what every file of it must be. Reading it needs no torch."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

REMEDY = "run advanced_cache.py again (on the machine: salt-call state.apply)"
BLOCK = 4 * 1024 * 1024  # bytes hashed at a time
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")


class CacheError(Exception):
    """The model's cache cannot be used. The message is one line: the file, what is wrong with it, the mend."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}; {REMEDY}")
        self.path = path
        self.problem = problem


@dataclass(frozen=True)
class FileInfo:
    """One file of the model: its sha256 as 64 hex digits and its size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class CacheInfo:
    """What cache_info.json says; the first six fields are the seed's.

    `files` maps names relative to the snapshot; `warmup_error` is '' if the warm-up went well.
    """

    model_id: str
    cache_dir: str
    device: str  # cpu | cuda
    torch_dtype: str  # as torch prints it: torch.float16
    kernels_compiled: bool  # compiled kernels were really stored for reuse
    timestamp: str  # ISO 8601 with offset
    model_revision: str  # commit, 40 hex digits
    files: Mapping[str, FileInfo]
    versions: Mapping[str, str]
    warmup_seconds: float
    warmup_error: str = field(default="")


def now() -> str:
    """The present moment as cache_info.json wants it, to the second, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def repo_folder(cache_dir: Path, model_id: str) -> Path:
    """Where the hub's client keeps everything of one model."""
    return cache_dir / f"models--{model_id.replace('/', '--')}"


def snapshot_dir(info: CacheInfo) -> Path:
    """The transformers directory of the cached model."""
    return repo_folder(Path(info.cache_dir), info.model_id) / "snapshots" / info.model_revision


def read(path: Path) -> CacheInfo:
    """The cache's description. Raises CacheError for a file that is missing, truncated or wrong in any field."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CacheError(path, "is missing") from None
    except OSError as error:
        raise CacheError(path, f"cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise CacheError(path, f"is not valid JSON ({' '.join(str(error).split())})") from None
    try:
        return from_mapping(found)
    except ValueError as error:
        raise CacheError(path, str(error)) from None


def from_mapping(found: object) -> CacheInfo:
    """Builds and checks a CacheInfo. Raises ValueError that names the key."""
    if not isinstance(found, dict):
        raise ValueError("must hold a JSON object")
    required = set(CacheInfo.__dataclass_fields__) - {"warmup_error"}
    if missing := sorted(required - set(found)):
        raise ValueError(f"lacks {', '.join(missing)}")
    if unknown := sorted(set(found) - required - {"warmup_error"}):
        raise ValueError(f"has the unknown key {', '.join(map(str, unknown))}")
    for key, kind in TYPES.items():
        if key in found and (not isinstance(found[key], kind) or (kind is not bool and isinstance(found[key], bool))):
            raise ValueError(f"{key} has the wrong type ({type(found[key]).__name__})")
    for key, pattern in PATTERNS.items():
        if not pattern.fullmatch(found[key]):
            raise ValueError(f"{key} is {found[key]!r}, which it cannot be")
    _check_timestamp(found["timestamp"])
    if not all(isinstance(name, str) and isinstance(version, str) for name, version in found["versions"].items()):
        raise ValueError("versions must map names to strings")
    return CacheInfo(**{**found, "files": {name: _file(name, entry) for name, entry in found["files"].items()}})


TYPES: dict[str, Any] = {
    **dict.fromkeys(("model_id", "cache_dir", "device", "torch_dtype", "timestamp", "model_revision"), str),
    **dict.fromkeys(("files", "versions"), dict),
    "kernels_compiled": bool,
    "warmup_seconds": (int, float),
    "warmup_error": str,
}
PATTERNS = {
    "model_id": re.compile(r"[\w.-]+(/[\w.-]+)?"),
    "cache_dir": re.compile(r"/.*"),
    "device": re.compile(r"cpu|cuda"),
    "torch_dtype": re.compile(r"torch\.\w+"),
    "model_revision": COMMIT,
}


def _check_timestamp(text: str) -> None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"timestamp is {text!r}, not a time") from None
    if moment.tzinfo is None:
        raise ValueError(f"timestamp is {text!r}, without an offset")


def _file(name: str, entry: object) -> FileInfo:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts:
        raise ValueError(f"files names {name!r}, outside the model's folder")
    if not isinstance(entry, dict) or set(entry) != {"sha256", "bytes"}:
        raise ValueError(f"files: {name} must have sha256 and bytes")
    digest, size = entry["sha256"], entry["bytes"]
    if not isinstance(digest, str) or not SHA256.fullmatch(digest):
        raise ValueError(f"files: {name} has no proper sha256")
    if type(size) is not int or size < 0:
        raise ValueError(f"files: {name} has no proper size in bytes")
    return FileInfo(sha256=digest, bytes=size)


def write(path: Path, info: CacheInfo) -> None:
    """Replaces the file at once: whoever reads it sees the old one or the new one, through a power cut as well."""
    document = asdict(info)
    if not info.warmup_error:
        del document["warmup_error"]
    from_mapping(document)  # what we would refuse to read must never be written
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(scratch).chmod(0o644)
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sha256(path: Path) -> str:
    """The file's digest in hex; releases the GIL while it works."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def git_blob_id(path: Path) -> str:
    """The name git gives to a small file's content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def describe(folder: Path) -> dict[str, FileInfo]:
    """Digest and size of every file below `folder` (symbolic links of the hub's client are followed)."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): FileInfo(sha256=sha256(path), bytes=path.stat().st_size) for path in files
    }


def verify(info: CacheInfo, *, hashes: bool) -> None:
    """Raises CacheError naming the first file that is missing or altered. Without `hashes` only sizes are compared."""
    folder = snapshot_dir(info)
    if not any(name.endswith(".safetensors") for name in info.files):
        raise CacheError(folder, "no safetensors weights are listed")
    for name, expected in info.files.items():
        path = folder / name
        try:
            size = path.stat().st_size
            if size != expected.bytes:
                raise CacheError(path, f"has {size} bytes instead of {expected.bytes}")
            if hashes and sha256(path) != expected.sha256:
                raise CacheError(path, "its content is not what was cached (sha256 differs)")
        except FileNotFoundError:
            raise CacheError(path, "is missing") from None
        except OSError as error:
            raise CacheError(path, f"cannot be read ({error.strerror})") from None
