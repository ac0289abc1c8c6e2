"""Puts the pinned model into the cache: download, digests, warm-up, cache_info.json. Imports no torch itself."""

import contextlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from transcribe import gpu
from transcribe.config import ServiceConfig
from transcribe.model_cache import cache_info, speaker_model
from transcribe.model_cache.cache_info import COMMIT, SHA256, CacheError, CacheInfo

PROVENANCE = (
    "provenance.json"  # {"source": …}, in a snapshot whose weights come from somewhere other than the configured hub
)
# What Whisper needs in safetensors form: no pickles, no code, no second copy of the weights in another format.
WANTED = (
    *("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "normalizer.json"),
    PROVENANCE,
    *("vocab.json", "merges.txt", "model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"),
)
ESSENTIAL = ("config.json", "preprocessor_config.json")
WARMUP_SECONDS = 1200  # the longest that loading and compiling may take
TRIES = 3
HUB_HOME = ".hub"  # below the models, while the hub's client runs: where others may write, a link could lead it astray


class DownloadError(Exception):
    """The model could not be downloaded; the message is one line."""


@dataclass(frozen=True)
class CacheUpdate:
    """What `ensure` did: nothing was written when `changed` is False; `reason` says why something was."""

    info: CacheInfo
    changed: bool
    reason: str


def find_problem(config: ServiceConfig, *, hashes: bool) -> str:
    """Why the cache on disk is not what the configuration wants, or ''. Does not use the network."""
    try:
        verified_cache(config, hashes=hashes)
    except CacheError as error:
        return str(error)
    return ""


def verified_cache(config: ServiceConfig, *, hashes: bool) -> CacheInfo:
    """The cache's description, compared with the configuration and the files on disk. Raises CacheError."""
    info = cache_info.read(config.cache_info)
    if wrong := _mismatch(config, info):
        raise CacheError(config.cache_info, wrong)
    cache_info.verify(info, config.prepared, hashes=hashes)
    return info


def _mismatch(config: ServiceConfig, info: CacheInfo) -> str:
    """How the cached model differs from the configured one; '' if it does not."""
    wanted = {
        "model_id": config.model.id,
        "model_revision": config.model.revision,
        "cache_dir": str(config.models),
        "device": info.device if config.device == "auto" else config.device,
    }
    for key, value in wanted.items():
        if (found := getattr(info, key)) != value:
            return f"{key} is {found} but the configuration says {value}"
    speakers = f"{info.speakers.model} at {info.speakers.revision}" if info.speakers else "none"
    asked = f"{config.speakers.model} at {config.speakers.revision}" if config.speakers.model else "none"
    if speakers != asked:
        return f"the speaker model is {speakers} but the configuration says {asked}"
    return ""


def ensure(
    config: ServiceConfig, *, anew: bool = False, warm: Callable[[ServiceConfig, Path], dict[str, Any]] | None = None
) -> CacheUpdate:
    """Brings the cache up to date; writes nothing if it already is, unless the model is to be prepared `anew`.

    Raises DownloadError; a warm-up that fails is recorded, not raised.
    """
    if not COMMIT.fullmatch(config.model.revision):
        raise DownloadError(
            f"model.revision is {config.model.revision!r}, not a commit of 40 hex digits: pin it (the launcher does)"
        )
    _remove_what_others_wrote(config.cache)
    reason = find_problem(config, hashes=True)
    old = None if reason else cache_info.read(config.cache_info)
    versions = installed_versions()
    current = old and old.versions == versions and old.source == source_of(config) and not old.warmup_error
    if old and current and not anew:
        return CacheUpdate(info=old, changed=False, reason="")
    folder = snapshot_dir(config) if old else _download_all(config)
    info = _described(config, folder, versions, warm or warm_up)
    if old and replace(info, timestamp=old.timestamp, warmup_seconds=old.warmup_seconds) == old:
        return CacheUpdate(info=old, changed=False, reason="")  # the warm-up failed as it did before
    cache_info.write(config.cache_info, info)
    remove_other_models(config)
    return CacheUpdate(info=info, changed=True, reason=reason or "the warm-up had to run again")


def _download_all(config: ServiceConfig) -> Path:
    try:
        speaker_model.fetch(config)
    except speaker_model.SpeakerDownloadError as error:
        raise DownloadError(str(error)) from None
    return download(config)


def snapshot_dir(config: ServiceConfig) -> Path:
    """Where the configured commit of the configured model lies."""
    return cache_info.repo_folder(config.models, config.model.id) / "snapshots" / config.model.revision


def source_of(config: ServiceConfig) -> str:
    """Who published the cached weights: as their folder says, or else the hub that they were downloaded from."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        return str(json.loads((snapshot_dir(config) / PROVENANCE).read_text(encoding="utf-8"))["source"])
    return f"{config.model.endpoint.rstrip('/')}/{config.model.id}"


def installed_versions() -> dict[str, str]:
    """The versions that compiled kernels and numbers depend on."""
    return {name: importlib.metadata.version(name) for name in ("torch", "transformers", "numba", "llvmlite")}


def download(config: ServiceConfig) -> Path:
    """The snapshot of the pinned commit. What is on disk already is checked and kept. Raises DownloadError."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    home = config.models / HUB_HOME
    os.environ.setdefault("HF_HOME", str(home))
    from huggingface_hub import snapshot_download

    drop_corrupt(config)
    for attempt in range(1, TRIES + 1):
        try:
            folder: str = snapshot_download(
                config.model.id,
                revision=config.model.revision,
                cache_dir=config.models,
                endpoint=config.model.endpoint,
                allow_patterns=list(WANTED),
            )
            break
        except Exception as error:  # the client raises a dozen types, and each means that there is no model
            if attempt == TRIES or not isinstance(error, OSError):
                raise DownloadError(_line(config, error)) from None
            time.sleep(2**attempt)
    shutil.rmtree(home, ignore_errors=True)
    if corrupt := drop_corrupt(config):
        raise DownloadError(f"{config.model.id}: {', '.join(corrupt)} arrived damaged from {config.model.endpoint}")
    names = {path.name for path in Path(folder).iterdir()}
    lacking = [name for name in ESSENTIAL if name not in names]
    if lacking or not any(name.endswith(".safetensors") for name in names):
        raise DownloadError(
            f"{config.model.id} at {config.model.revision} has no {', '.join(lacking) or 'safetensors weights'}"
        )
    return Path(folder)


def _line(config: ServiceConfig, error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return f"cannot download {config.model.id} at {config.model.revision} from {config.model.endpoint}: {text[:400]}"


def drop_corrupt(config: ServiceConfig) -> list[str]:
    """Removes files whose content does not match the digest the hub named them by; returns their names, in order.

    The hub's client stores each file under its ETag: the sha256 of large files, git's blob id of small ones. So damage
    is found without the network, and the next download fetches only that file.
    """
    dropped = []
    folder = snapshot_dir(config)
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        blob = path.resolve()
        if path.is_symlink() and (not blob.is_file() or not _blob_intact(blob)):
            path.unlink()
            blob.unlink(missing_ok=True)
            dropped.append(path.relative_to(folder).as_posix())
    return dropped


def _blob_intact(blob: Path) -> bool:
    if SHA256.fullmatch(blob.name):
        return cache_info.sha256(blob) == blob.name
    if COMMIT.fullmatch(blob.name):
        return cache_info.git_blob_id(blob) == blob.name
    return True  # the hub uses other ETags: only the digests in cache_info.json protect this file


def _described(
    config: ServiceConfig, folder: Path, versions: dict[str, str], warm: Callable[[ServiceConfig, Path], dict[str, Any]]
) -> CacheInfo:
    files = cache_info.describe(folder)
    began = time.monotonic()
    shutil.rmtree(config.prepared, ignore_errors=True)
    facts = warm(config, folder)
    took = round(time.monotonic() - began, 3)
    _let_the_service_read(config.prepared)
    return CacheInfo(
        model_id=config.model.id,
        cache_dir=str(config.models),
        device=facts["device"],
        torch_dtype=facts["torch_dtype"],
        kernels_compiled=facts["kernels_compiled"],
        timestamp=cache_info.now(),
        model_revision=config.model.revision,
        files=files,
        versions=versions,
        warmup_seconds=took,
        warmup_error=facts.get("warmup_error", ""),
        source=source_of(config),
        prepared=cache_info.describe(config.prepared),
        speakers=speaker_model.describe(config),
    )


def _let_the_service_read(folder: Path) -> None:
    """Only who fills the cache may write it; the driver would let nobody else read its kernels either."""
    for path in (folder, *folder.rglob("*")):
        if path.exists():
            path.chmod(0o755 if path.is_dir() else 0o644)


def _remove_what_others_wrote(cache: Path) -> None:
    """Root trusts nothing that another user could have put into the cache: it is made again. (Until 0.4 the cache
    belonged to the service.) Raises DownloadError if that user still could."""
    if os.geteuid() != 0 or not cache.is_dir():
        return
    if cache.stat().st_uid != 0:
        raise DownloadError(f"{cache} belongs to another user than root: salt-call state.apply changes that")
    if all(path.lstat().st_uid == 0 for path in cache.rglob("*")):
        return
    for path in cache.iterdir():  # in a folder of root's, so these names stay what they are
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)  # by descriptors: no link that appears meanwhile is followed
        else:
            path.unlink()


def warm_up(config: ServiceConfig, folder: Path) -> dict[str, Any]:
    """Loads and runs the model in a child process, so that a crash or a hang cannot lose the cache.

    Returns device, torch_dtype, kernels_compiled and, if it failed, warmup_error.
    """
    command = [sys.executable, "-m", "transcribe.model_cache.warmup", str(folder), config.device, config.dtype]
    command += [str(config.batch.rows or 0), str(config.prepared)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=WARMUP_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return _not_warm(config, f"not finished after {WARMUP_SECONDS} s")
    if done.returncode < 0:
        return _not_warm(config, f"ended by signal {-done.returncode}")
    with contextlib.suppress(ValueError, IndexError):
        answer = json.loads(done.stdout.splitlines()[-1])
        return _not_warm(config, answer["error"]) if "error" in answer else answer
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return _not_warm(config, lines[-1])


def _not_warm(config: ServiceConfig, reason: str) -> dict[str, Any]:
    device = config.device
    if device == "auto":
        device = "cuda" if gpu.devices() else "cpu"
    dtype = "torch.float16" if device == "cuda" else "torch.float32"
    reason = " ".join(reason.split())[:400]
    return {"device": device, "torch_dtype": dtype, "kernels_compiled": False, "warmup_error": reason}


def remove_other_models(config: ServiceConfig) -> None:
    """Removes other models and other commits: an image carries what it serves."""
    ours = cache_info.repo_folder(config.models, config.model.id)
    for repo in config.models.glob("models--*"):
        if repo != ours:
            shutil.rmtree(repo)
    for snapshot in ours.glob("snapshots/*"):
        if snapshot.name != config.model.revision:
            shutil.rmtree(snapshot)
    used = {path.resolve() for path in ours.glob("snapshots/*/**/*")}
    for blob in ours.glob("blobs/*"):
        if blob not in used:
            blob.unlink()
