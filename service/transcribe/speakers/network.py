"""The network that turns a second or two of a voice into numbers: the same voice gives nearly the same numbers.

GE2E (Wan and others 2018, "Generalized end-to-end loss for speaker verification", https://arxiv.org/abs/1710.10467):
a recurrent network reads mel bands, frame by frame; its last state, through a linear layer, stands for the voice.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from transcribe.engine.model.features import filters
from transcribe.types import SAMPLE_RATE

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FFT, HOP = 400, 160  # samples of one Fourier transform, and from frame to frame
FRAMES_PER_SECOND = SAMPLE_RATE // HOP
BATCH = 64  # windows that go through the network together: more are no faster on a processor
SMALLEST = 1e-9
Size = Annotated[int, msgspec.Meta(ge=1)]


class SpeakerModelError(Exception):
    """The speaker model cannot be used; the message is one line."""


class NetworkConfig(msgspec.Struct, frozen=True):
    """What config.json says of the weights. `window_frames` (10 ms each) is what the network was trained to read at
    most, `loudness` the sum of a frame's mel powers, on average, to which a window is brought."""

    architecture: Literal["ge2e-lstm"]
    mel_bands: Size
    hidden_size: Size
    layers: Size
    embedding_size: Size
    window_frames: Size
    loudness: Annotated[float, msgspec.Meta(gt=0)]


class SpeakerNetwork(nn.Module):
    """The network with its weights. It holds no state of a recording; several threads may use it."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.lstm = nn.LSTM(config.mel_bands, config.hidden_size, config.layers)
        self.linear = nn.Linear(config.hidden_size, config.embedding_size)
        self._bands = torch.from_numpy(filters(config.mel_bands))
        self._taper = torch.hann_window(FFT)

    @classmethod
    def load(cls, folder: Path) -> "SpeakerNetwork":
        """The network of a folder with config.json and model.safetensors. Raises SpeakerModelError."""
        try:
            config = msgspec.json.decode((folder / CONFIG).read_bytes(), type=NetworkConfig)
            network = cls(config)
            network.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, msgspec.DecodeError, SafetensorError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise SpeakerModelError(f"the speaker model in {folder} cannot be used ({reason})") from None
        return network.eval().requires_grad_(False)

    @property
    def longest(self) -> float:
        """Seconds of the longest window."""
        return self.config.window_frames / FRAMES_PER_SECOND

    @torch.inference_mode()
    def embed(self, audio: NDArray[np.float32], windows: Sequence[tuple[float, float]]) -> NDArray[np.float32]:
        """[windows, embedding_size], each of length 1; the windows are (start, end) in seconds from the audio's start,
        none longer than `longest`."""
        mel = self._mel(torch.from_numpy(audio))
        frames = [(round(start * FRAMES_PER_SECOND), round(end * FRAMES_PER_SECOND)) for start, end in windows]
        found = [self._batch(mel, frames[at : at + BATCH]).numpy() for at in range(0, len(frames), BATCH)]
        return np.concatenate([np.zeros((0, self.config.embedding_size), np.float32), *found])

    def _mel(self, audio: Tensor) -> Tensor:
        """[frames, mel_bands] powers, and a window of silence behind them."""
        spectrum = torch.stft(audio, FFT, HOP, window=self._taper, pad_mode="constant", return_complex=True)
        powers = torch.view_as_real(spectrum).square().sum(-1)
        return nn.functional.pad((self._bands @ powers).T, (0, 0, 0, self.config.window_frames))

    def _batch(self, mel: Tensor, frames: Sequence[tuple[int, int]]) -> Tensor:
        """One pass over windows that start together: the state after a window's own last frame is its result."""
        longest = self.config.window_frames
        lengths = torch.tensor([min(max(end - start, 1), longest) for start, end in frames])
        windows = torch.stack([mel[start : start + longest] for start, _ in frames], 1)  # [frames, windows, bands]
        heard = (torch.arange(longest)[:, None] < lengths).to(mel.dtype)
        loudness = (windows.sum(2) * heard).sum(0) / lengths
        windows = windows * (self.config.loudness / loudness.clamp_min(SMALLEST))[:, None]
        states, _ = self.lstm(windows[: int(lengths.max())])
        voices = self.linear(states[lengths - 1, torch.arange(len(frames))]).relu()
        found: Tensor = nn.functional.normalize(voices, dim=1, eps=SMALLEST)
        return found
