"""Where somebody speaks: Silero VAD's network, run over a stream with its state carried along, many frames a call.

The weights are those of the silero-vad package's default model. The package itself is not imported: it pulls in
torchaudio and sets torch's thread count. Its own loop calls the network once a frame; only the recurrence needs that
order, so here everything before it runs as matrix products over whole blocks: the same numbers, several times as fast.
"""

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from numpy.typing import NDArray
from torch import Tensor

from transcribe.audio.chunking import FRAME, VadError

CONTEXT = 64  # samples of the frame before that the network sees as well
REFLECT = 64  # samples mirrored at the frame's end
FFT, HOP, BINS = 256, 128, 129
UNITS = 128  # of the LSTM
MAX_FRAMES = 512  # a call: bounds memory


def weights_path() -> Path:
    """Where the silero-vad package keeps its network. Raises VadError."""
    spec = importlib.util.find_spec("silero_vad")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    if folder is None or not (path := folder / "data" / "silero_vad.jit").is_file():
        raise VadError("the package silero-vad is missing from the virtual environment: rebuild it from its lock")
    return path


class Vad:
    """The network. It holds no state: `stream()` begins a recording."""

    def __init__(self, path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is old, and what Silero publishes
            state = torch.jit.load(str(path), map_location="cpu").state_dict()  # type: ignore[no-untyped-call]
        weights = {name.removeprefix("_model."): value for name, value in state.items()}
        # A matrix of cosines and sines under a window, which a fast transform replaces; cos 0 = 1 leaves the window.
        self.window = weights["stft.forward_basis_buffer"][0, 0].contiguous()
        self.layers = [
            (weights[f"encoder.{index}.reparam_conv.weight"], weights[f"encoder.{index}.reparam_conv.bias"], stride)
            for index, stride in enumerate((1, 2, 2, 1))
        ]
        self.lstm = torch.nn.LSTM(UNITS, UNITS)
        with torch.no_grad():
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(self.lstm, f"{name}_l0").copy_(weights[f"decoder.rnn.{name}"])
        self.head = weights["decoder.decoder.2.weight"][0, :, 0], weights["decoder.decoder.2.bias"]

    @classmethod
    def load(cls) -> "Vad":
        """The default model of the installed package. Raises VadError."""
        return cls(weights_path())

    def stream(self) -> "VadStream":
        """A new recording's detector."""
        return VadStream(self)

    def features(self, samples: Tensor) -> Tensor:
        """[frames, UNITS] from CONTEXT + frames * FRAME samples."""
        frames = samples.unfold(0, CONTEXT + FRAME, FRAME)
        frames = torch.cat([frames, frames[:, -1 - REFLECT : -1].flip(1)], 1)
        windows = frames.unfold(1, FFT, HOP)
        spectrum = torch.view_as_real(torch.fft.rfft(windows.reshape(-1, FFT) * self.window))
        magnitude = spectrum.square_().sum(-1).sqrt_()
        hidden: Tensor = magnitude.view(len(frames), -1, BINS).transpose(1, 2)
        for weight, bias, stride in self.layers:
            hidden = F.conv1d(hidden, weight, bias, stride=stride, padding=1).relu_()
        return hidden.squeeze(-1)


class VadStream:
    """The detector's state within one recording."""

    def __init__(self, vad: Vad) -> None:
        self._vad = vad
        self._state: tuple[Tensor, Tensor] | None = None
        self._samples = np.zeros(CONTEXT, np.float32)  # the last frame's end and what does not fill a frame yet

    def push(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Speech probabilities of the frames that `block` completes, one for each FRAME samples, in order."""
        self._samples = np.concatenate([self._samples, block])
        found = []
        while (frames := min((len(self._samples) - CONTEXT) // FRAME, MAX_FRAMES)) > 0:
            found.append(self._run(self._samples[: CONTEXT + frames * FRAME]))
            self._samples = self._samples[frames * FRAME :]
        return np.concatenate(found) if found else np.zeros(0, np.float32)

    def flush(self) -> NDArray[np.float32]:
        """The probability of the last, incomplete frame, if there is one."""
        rest = len(self._samples) - CONTEXT
        return self.push(np.zeros(FRAME - rest, np.float32)) if rest else np.zeros(0, np.float32)

    @torch.inference_mode()
    def _run(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        vad = self._vad
        hidden, self._state = vad.lstm(vad.features(torch.from_numpy(samples.copy()))[:, None], self._state)
        weight, bias = vad.head
        found: NDArray[np.float32] = torch.sigmoid(hidden[:, 0].relu() @ weight + bias).numpy()
        return found
