"""cache_info.json: always valid, always true, and refused in one line when it is neither."""

import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from transcribe.model_cache import cache_info
from transcribe.model_cache.cache_info import CacheError, CacheInfo

REVISION = "0123456789abcdef0123456789abcdef01234567"
PREPARED = Path("/nonexistent")
FIRST_KEYS = ["model_id", "cache_dir", "device", "torch_dtype", "kernels_compiled", "timestamp"]


@pytest.fixture
def info(tmp_path: Path) -> CacheInfo:
    """A cache as advanced_cache.py leaves it, with the files it names."""
    folder = tmp_path / "models" / "models--KBLab--kb-whisper-small" / "snapshots" / REVISION
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights" * 1000)
    (folder / "config.json").write_text("{}")
    return CacheInfo(
        model_id="KBLab/kb-whisper-small",
        cache_dir=str(tmp_path / "models"),
        device="cuda",
        torch_dtype="torch.float16",
        kernels_compiled=True,
        timestamp=cache_info.now(),
        model_revision=REVISION,
        files=cache_info.describe(folder),
        versions={"torch": "2.13.0", "transformers": "5.23.0"},
        warmup_seconds=12.5,
    )


@pytest.fixture
def path(tmp_path: Path, info: CacheInfo) -> Path:
    path = tmp_path / "cache" / "cache_info.json"
    cache_info.write(path, info)
    return path


def test_it_reads_back_as_it_was_written_with_the_main_keys_first(path: Path, info: CacheInfo) -> None:
    assert cache_info.read(path) == info
    document = json.loads(path.read_text())
    assert list(document)[:6] == FIRST_KEYS
    assert "warmup_error" not in document
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == ["cache_info.json"]  # no scratch file stays


def test_the_timestamp_is_the_real_time_with_an_offset() -> None:
    moment = datetime.fromisoformat(cache_info.now())
    assert moment.utcoffset() is not None
    assert abs((datetime.now(moment.tzinfo) - moment).total_seconds()) < 5


def test_the_fallback_keeps_the_reason_of_the_failed_warm_up(path: Path, info: CacheInfo) -> None:
    fallback = replace(info, kernels_compiled=False, warmup_error="EngineError: CUDA out of memory")
    cache_info.write(path, fallback)
    assert cache_info.read(path) == fallback
    assert json.loads(path.read_text())["kernels_compiled"] is False


@pytest.mark.parametrize("timestamp", ["$(date -Iseconds)", "2024-01-20T15:30:45", "", "yesterday"])
def test_an_unexpanded_date_can_be_neither_written_nor_read(path: Path, info: CacheInfo, timestamp: str) -> None:
    before = path.read_bytes()
    with pytest.raises(ValueError, match="timestamp"):
        cache_info.write(path, replace(info, timestamp=timestamp))
    assert path.read_bytes() == before
    path.write_text(json.dumps({**msgspec.to_builtins(info), "timestamp": timestamp}))
    with pytest.raises(CacheError, match="timestamp"):
        cache_info.read(path)


def drop(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda document: document.pop(key)


def put(key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda document: document.update({key: value})


BROKEN: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    *((f"missing key: {key}", drop(key)) for key in [*FIRST_KEYS, "files", "model_revision", "versions"]),
    ("kernels_compiled must be true or false, not 'true'", put("kernels_compiled", "true")),
    ("kernels_compiled must be true or false, not 1", put("kernels_compiled", 1)),
    ("warmup_seconds must be a number, not True", put("warmup_seconds", True)),
    ("model_id must be a string, not None", put("model_id", None)),
    ("files must be a mapping, not []", put("files", [])),
    ("model_revision must be a string matching regex '^[0-9a-f]{40}\\\\Z', not 'main'", put("model_revision", "main")),
    ("not '../../etc'", put("model_id", "../../etc")),
    ("device must be one of cpu, cuda, not 'tpu'", put("device", "tpu")),
    ("outside the model's folder", put("files", {"../secret": {"sha256": "0" * 64, "bytes": 1}})),
    ("files[...].sha256 must be", put("files", {"model.safetensors": {"sha256": "xyz", "bytes": 1}})),
    ("files[...].bytes must be", put("files", {"model.safetensors": {"sha256": "0" * 64, "bytes": "1"}})),
    ("missing key: files[...].sha256", put("files", {"model.safetensors": {}})),
    ("versions[...] must be a string", put("versions", {"torch": 2})),
    ("unknown key: surprise", put("surprise", 1)),
]


@pytest.mark.parametrize(("problem", "breaks"), BROKEN)
def test_a_wrong_field_is_refused_in_one_line(
    path: Path, problem: str, breaks: Callable[[dict[str, Any]], object]
) -> None:
    document = json.loads(path.read_text())
    breaks(document)
    path.write_text(json.dumps(document))
    with pytest.raises(CacheError) as caught:
        cache_info.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert problem in message
    assert "advanced_cache.py" in message
    assert "\n" not in message


@pytest.mark.parametrize("content", [b"", b"{", b'{"model_id": "KBLab', b"[]", b"null", b"\xff\xfe"])
def test_a_truncated_file_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CacheError, match=r"cache_info\.json: "):
        cache_info.read(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"is missing; run advanced_cache\.py"):
        cache_info.read(tmp_path / "cache_info.json")


def test_a_sound_model_passes(info: CacheInfo) -> None:
    cache_info.verify(info, PREPARED, hashes=True)


@pytest.mark.parametrize("hashes", [True, False])
def test_a_truncated_model_is_named(info: CacheInfo, hashes: bool) -> None:
    weights = cache_info.snapshot_dir(info) / "model.safetensors"
    weights.write_bytes(b"weights")
    with pytest.raises(CacheError, match=r"model\.safetensors: has 7 bytes instead of 7000"):
        cache_info.verify(info, PREPARED, hashes=hashes)


def test_an_altered_byte_is_found_by_its_digest(info: CacheInfo) -> None:
    weights = cache_info.snapshot_dir(info) / "model.safetensors"
    weights.write_bytes(b"Weights" + b"weights" * 999)
    cache_info.verify(info, PREPARED, hashes=False)  # the quick look cannot see it
    with pytest.raises(CacheError, match="sha256 differs"):
        cache_info.verify(info, PREPARED, hashes=True)


def test_a_missing_file_of_the_model_is_named(info: CacheInfo) -> None:
    (cache_info.snapshot_dir(info) / "config.json").unlink()
    with pytest.raises(CacheError, match=r"config\.json: is missing"):
        cache_info.verify(info, PREPARED, hashes=False)


def test_weights_must_be_safetensors(info: CacheInfo) -> None:
    with pytest.raises(CacheError, match="safetensors"):
        cache_info.verify(replace(info, files={"pytorch_model.bin": info.files["config.json"]}), PREPARED, hashes=False)


def test_a_write_that_fails_leaves_the_old_file(path: Path, info: CacheInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        cache_info.write(path, replace(info, device="cpu"))
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["cache_info.json"]
