"""cache_info.json: what model was cached, where, and what every file of it must be. Reading it needs no torch."""

import hashlib
import os
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import msgspec

from transcribe.documents import decode

REMEDY = "run advanced_cache.py again (on the machine: salt-call state.apply)"
BLOCK = 4 * 1024 * 1024  # bytes hashed at a time
HASHING_THREADS = 2
SPEAKERS = "speakers"  # folder of speaker models, below that of the hub's cache
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")


class CacheError(Exception):
    """The model's cache cannot be used. The message is one line: the file, what is wrong with it, and the fix."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}; {REMEDY}")
        self.path = path
        self.problem = problem


class FileInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of the model: its sha256 as 64 hex digits and its size in bytes."""

    sha256: Annotated[str, msgspec.Meta(pattern=rf"^{SHA256.pattern}\Z")]
    bytes: Annotated[int, msgspec.Meta(ge=0)]


class SpeakersInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The speaker model: what was configured, and its `files` by their names in its folder."""

    model: Annotated[str, msgspec.Meta(pattern=r"^[\w.=-]+(/[\w.-]+)?\Z")]
    revision: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{40,64}\Z")]
    files: dict[str, FileInfo]


class CacheInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What cache_info.json says.

    `files` maps names relative to the snapshot, `prepared` those of what the warm-up made of it (weights in this
    machine's precision, kernels); `warmup_error` is '' if the warm-up went well; `source` says who published the
    weights.
    """

    model_id: Annotated[str, msgspec.Meta(pattern=r"^[\w.-]+(/[\w.-]+)?\Z")]
    cache_dir: Annotated[str, msgspec.Meta(pattern=r"^/")]
    device: Literal["cpu", "cuda"]
    torch_dtype: Annotated[str, msgspec.Meta(pattern=r"^torch\.\w+\Z")]  # as torch prints it: torch.float16
    kernels_compiled: bool  # compiled kernels were really stored for reuse
    timestamp: str  # ISO 8601 with offset
    model_revision: Annotated[str, msgspec.Meta(pattern=rf"^{COMMIT.pattern}\Z")]
    files: dict[str, FileInfo]
    versions: dict[str, str]
    warmup_seconds: float
    warmup_error: str = ""
    source: str = ""
    prepared: dict[str, FileInfo] = msgspec.field(default_factory=dict)
    speakers: SpeakersInfo | None = None

    def __post_init__(self) -> None:
        try:
            moment = datetime.fromisoformat(self.timestamp)
        except ValueError:
            raise ValueError(f"timestamp is {self.timestamp!r}, not a time") from None
        if moment.tzinfo is None:
            raise ValueError(f"timestamp is {self.timestamp!r}, without an offset")
        for name in (*self.files, *self.prepared, *(self.speakers.files if self.speakers else ())):
            parts = PurePosixPath(name).parts
            if not parts or parts[0] == "/" or ".." in parts:
                raise ValueError(f"files names {name!r}, outside the model's folder")


def now() -> str:
    """The current time in the form of cache_info.json: to the second, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def repo_folder(cache_dir: Path, model_id: str) -> Path:
    """Where the hub's client keeps everything of one model."""
    return cache_dir / f"models--{model_id.replace('/', '--')}"


def snapshot_dir(info: CacheInfo) -> Path:
    """The transformers directory of the cached model."""
    return repo_folder(Path(info.cache_dir), info.model_id) / "snapshots" / info.model_revision


def speakers_dir(info: CacheInfo) -> Path:
    """The folder of the speaker model, of which the cache has one."""
    assert info.speakers
    return speakers_folder(Path(info.cache_dir), info.speakers.revision)


def speakers_folder(cache_dir: Path, revision: str) -> Path:
    """Where the speaker model of that revision lies."""
    return cache_dir / SPEAKERS / revision


def read(path: Path) -> CacheInfo:
    """The cache's description. Raises CacheError for a file that is missing, truncated or wrong in any field."""
    try:
        return decode(msgspec.json.decode(path.read_bytes()), CacheInfo)
    except FileNotFoundError:
        raise CacheError(path, "is missing") from None
    except OSError as error:
        raise CacheError(path, f"cannot be read ({error.strerror})") from None
    except msgspec.DecodeError as error:
        raise CacheError(path, f"is not valid JSON ({error})") from None
    except ValueError as error:
        raise CacheError(path, str(error)) from None


def write(path: Path, info: CacheInfo) -> None:
    """Replaces the file atomically: a reader sees the old or the new one, even after a power cut."""
    decode(msgspec.to_builtins(info), CacheInfo)  # never write what `read` would refuse
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(info), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)
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


def names_below(folder: Path) -> list[str]:
    """Every file below `folder`, by its path from there (symbolic links of the hub's client are followed)."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def describe(folder: Path) -> dict[str, FileInfo]:
    """Digest and size of every file below `folder`."""
    return {
        name: FileInfo(sha256=sha256(folder / name), bytes=(folder / name).stat().st_size)
        for name in names_below(folder)
    }


def verify(info: CacheInfo, prepared: Path, *, hashes: bool) -> None:
    """Raises CacheError naming a file of the model, or of what is `prepared` of it, that is missing, altered or not
    listed. Without `hashes` only sizes are compared."""
    folder = snapshot_dir(info)
    if not any(name.endswith(".safetensors") for name in info.files):
        raise CacheError(folder, "no safetensors weights are listed")
    if unknown := set(names_below(prepared)) - set(info.prepared):
        raise CacheError(prepared / min(unknown), "was not there when the cache was made")
    listed = {folder / name: file for name, file in info.files.items()}
    if info.speakers:
        listed |= {speakers_dir(info) / name: file for name, file in info.speakers.files.items()}
    listed |= {prepared / name: file for name, file in info.prepared.items()}
    for path, expected in listed.items():
        _verify_file(path, expected, hashes=False)
    if hashes:
        with ThreadPoolExecutor(HASHING_THREADS) as pool:
            list(pool.map(lambda path: _verify_file(path, listed[path], hashes=True), listed))


def _verify_file(path: Path, expected: FileInfo, *, hashes: bool) -> None:
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
