"""What serve.py prepares: the model in the form of the hub's cache, in a folder like the machine's."""

import argparse
import getpass
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baker.errors import UsageError
from baker.inputs import pillar
from baker.inputs.model_hub import resolve
from localcloud.hub import models

ROOT = Path(__file__).resolve().parents[2]
SERVICE = ROOT / "service"
CACHE = ROOT / ".cache"
DEFAULT_MODEL = "whisper-base"
LOCAL_OWNER = "local"  # as the hub would call the owner of a model that is only a folder
EXIT_FAILED, EXIT_USAGE = 1, 2


class ServeError(Exception):
    """One line for the user; `code` is the exit code."""

    def __init__(self, message: str, code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Model:
    """Which model: a commit of the hub's, or the same made of a folder (then `folder` is not None)."""

    id: str
    commit: str
    folder: Path | None = None

    @property
    def slug(self) -> str:
        return re.sub(r"[^\w.-]+", "--", self.id)


def find_model(wanted: str, endpoint: str) -> Model:
    """The model that is asked for. Raises ServeError."""
    if not wanted:
        try:
            folder = models.model_dir(DEFAULT_MODEL)
        except models.ModelError as error:
            raise ServeError(str(error)) from None
        return Model(models.SOURCES[DEFAULT_MODEL].id, models.commit_of(folder), folder)
    folder = Path(wanted).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ServeError(
                f"--model {wanted}: there is no config.json, so it is no transformers directory", EXIT_USAGE
            )
        return Model(f"{LOCAL_OWNER}/{folder.resolve().name}", models.commit_of(folder), folder.resolve())
    if wanted.startswith((".", "/", "~")):
        raise ServeError(f"--model {wanted}: there is no such folder", EXIT_USAGE)
    model_id, _, revision = wanted.partition("@")
    try:
        return Model(model_id, resolve(endpoint, model_id, revision or "main"))
    except UsageError as error:
        raise ServeError(str(error)) from None


def machine_folder(options: argparse.Namespace, declared: Mapping[str, Any], model: Model) -> Path:
    """A folder like the machine's root; returns its configuration file."""
    root = CACHE / "serve" / f"{model.slug}-{options.port}"
    shared = CACHE / "serve/models" / model.slug  # one download for every port
    for folder in (root, shared, *(root / name for name in ("cache", "config", "temp", "logs", "results"))):
        folder.mkdir(parents=True, exist_ok=True)
    if not (root / "models").exists():
        (root / "models").symlink_to(shared)
    if model.folder is not None:
        lay_out(model, shared / f"models--{model.id.replace('/', '--')}" / "snapshots" / model.commit)
    told = {
        "root": str(root),
        "user": getpass.getuser(),
        "group": getpass.getuser(),
        "host": options.host,
        "port": options.port,
        "model": {"id": model.id, "revision": model.commit, "language": options.language},
    }
    path = root / "config/transcribe.json"
    path.write_text(json.dumps(pillar.merge(declared, told), indent=1) + "\n", encoding="utf-8")
    return path


def lay_out(model: Model, snapshot: Path) -> None:
    """Give a model's folder the form of the hub's cache. Linked where possible: nothing is copied, nothing shared."""
    assert model.folder is not None
    snapshot.mkdir(parents=True, exist_ok=True)
    for file in model.folder.iterdir():
        target = snapshot / file.name
        if file.is_file() and not target.exists():
            try:
                os.link(file.resolve(), target)
            except OSError:  # another file system, or another owner's file
                shutil.copyfile(file, target)


def environment(config: Path, *, offline: bool) -> dict[str, str]:
    """What the service's programs are given; on a machine its units say the same."""
    told = {**os.environ, "TRANSCRIBE_CONFIG": str(config), "PYTHONUNBUFFERED": "1"}
    return told | {"HF_HUB_OFFLINE": "1"} if offline else told


def fill_cache(config: Path, model: Model) -> None:
    """Download, check and warm the model, exactly as a bake does. Raises ServeError."""
    command = [sys.executable, str(SERVICE / "advanced_cache.py")]
    done = subprocess.run(command, check=False, env=environment(config, offline=model.folder is not None))
    if done.returncode != 0:
        raise ServeError(f"the model {model.id} could not be put into the cache")
