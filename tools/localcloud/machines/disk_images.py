"""The registry of images: the layers of each one's disk, and its record in the EC2 API. Survives restarts."""

import ctypes
import json
import os
import secrets
import shutil
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from localcloud.common import Folders, LocalCloudError, run, write_json
from localcloud.machines import base_image


@dataclass(frozen=True)
class DiskImage:
    """`layers` are names of folders, top first; `root` is the base below them; `facts` are the EC2 API's own."""

    id: str
    root: str
    layers: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


class DiskImages:
    """The registry. Thread-safe; every change is on disk before the call returns."""

    def __init__(self, folders: Folders) -> None:
        self.folders = folders
        self._lock = threading.RLock()
        self._images: dict[str, DiskImage] = {}
        for entry in json.loads(folders.images.read_text()) if folders.images.exists() else []:
            image = DiskImage(**{**entry, "layers": tuple(entry["layers"])})
            if image.root.startswith(base_image.OWNED) and all(path.is_dir() for path in self.disk(image)):
                self._images[image.id] = image

    def all(self) -> list[DiskImage]:
        with self._lock:
            return list(self._images.values())

    def source(self, base: str = base_image.DEFAULT_BASE) -> DiskImage:
        """The image that a bake on this base starts from. It is not in the registry: it can be made again any time."""
        return DiskImage(id=base_image.source_ami(base), root=base_image.folder(self.folders, base).name)

    def sources(self) -> dict[str, DiskImage]:
        """The images that bakes start from, by their ids."""
        return {image.id: image for image in map(self.source, base_image.BASES)}

    def get(self, image_id: str) -> DiskImage:
        """Raises LocalCloudError if there is no such image."""
        with self._lock:
            found = self._images.get(image_id) or self.sources().get(image_id)
            if found is None:
                raise LocalCloudError(f"the local cloud has no image {image_id}")
            return found

    def disk(self, image: DiskImage) -> tuple[Path, ...]:
        """The read-only folders that make up an image's disk, top first."""
        return (*(self.folders.layers / layer for layer in image.layers), self.folders.roots / image.root)

    def add(self, image: DiskImage) -> None:
        with self._lock:
            self._images[image.id] = image
            self._save()

    def describe(self, image_id: str, facts: dict[str, Any]) -> None:
        """Save an image's record in the EC2 API."""
        with self._lock:
            if image_id in self._images and self._images[image_id].facts != facts:
                self._images[image_id] = replace(self._images[image_id], facts=facts)
                self._save()

    def remove(self, image_id: str) -> None:
        with self._lock:
            if self._images.pop(image_id, None):
                self._save()

    def collect(self, in_use: Iterable[Path]) -> None:
        """Delete every layer and old root that no image and no machine (`in_use`) uses."""
        with self._lock:
            kept = set(in_use)
            for image in (*self._images.values(), *self.sources().values()):
                kept.update(self.disk(image))
            for parent in (self.folders.layers, self.folders.roots):
                for path in parent.iterdir() if parent.is_dir() else ():
                    if path not in kept and path.suffix != ".making":
                        shutil.rmtree(path, ignore_errors=True)

    def freeze(self, upper: Path) -> Path:
        """Take a machine's writable folder as a new layer, whatever its size; the machine must be off."""
        layer = self._new_layer()
        upper.rename(layer)
        _sync(self.folders.layers)
        return layer

    def copy(self, upper: Path) -> Path:
        """Copy a machine's writable folder into a new layer; the machine must be paused."""
        layer = self._new_layer()
        making = layer.with_suffix(".making")
        try:
            run(["cp", "--archive", "--reflink=auto", upper, making], why="copy a machine's disk")
        except LocalCloudError:
            shutil.rmtree(making, ignore_errors=True)
            raise
        making.rename(layer)
        _sync(self.folders.layers)
        return layer

    def _new_layer(self) -> Path:
        self.folders.layers.mkdir(parents=True, exist_ok=True)
        return self.folders.layers / f"layer-{secrets.token_hex(8)}"

    def _save(self) -> None:
        write_json(self.folders.images, [asdict(image) for image in self._images.values()])


def _sync(folder: Path) -> None:
    """Flush the folder's file system, because machines write without fsync."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(handle):
            raise LocalCloudError(f"cannot flush {folder}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(handle)
