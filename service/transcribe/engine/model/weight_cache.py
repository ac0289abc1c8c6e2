"""Weights in the precision of this machine, kept beside the model so that a start need not convert them again."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from transcribe.engine.model.checkpoint import Weights

FORM = 8  # raise it when the layout of the weights or the choice of a precision changes
NAME = "engine-weights.safetensors"
FACTS = "engine.json"


def fingerprint(model_dir: Path) -> str:
    """Names the model's files by their sizes and times, without reading hundreds of megabytes."""
    files = sorted(path for path in model_dir.iterdir() if path.suffix in {".json", ".safetensors"})
    lines = [f"{FORM} {torch.__version__}"]
    for path in files:
        facts = path.stat()
        lines.append(f"{path.name} {facts.st_size} {facts.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read(folder: Path | None, key: Mapping[str, str]) -> dict[str, Any] | None:
    """What was written under `key` (model and wish), or None when there is nothing or something else."""
    if folder is None:
        return None
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text())
    except (OSError, ValueError):
        return None
    return facts if facts.get("key") == dict(key) and (folder / NAME).is_file() else None


def weights(folder: Path) -> Weights | None:
    """The weights, mapped from the file; None when it is damaged."""
    try:
        return load_file(folder / NAME)
    except (OSError, SafetensorError):
        return None


def _write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    (folder / f"{FACTS}.new").write_text(json.dumps(facts, indent=1))
    (folder / f"{FACTS}.new").replace(folder / FACTS)


def amend(folder: Path, more: Mapping[str, Any]) -> bool:
    """Adds to the facts that were written. False when the folder cannot be written."""
    try:
        _write_facts(folder, {**json.loads((folder / FACTS).read_text()), **more})
    except (OSError, ValueError):
        return False
    return True


def write(folder: Path | None, facts: Mapping[str, Any], tensors: Weights) -> bool:
    """Keeps weights and facts for the next start. False when the folder cannot be written."""
    if folder is None:
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FACTS).unlink(missing_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / f"{NAME}.new")
        with (folder / f"{NAME}.new").open("rb") as file:
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)  # who warms the model writes it, the service's user reads it
        (folder / f"{NAME}.new").replace(folder / NAME)
        _write_facts(folder, facts)
    except (OSError, SafetensorError):
        return False
    return True
