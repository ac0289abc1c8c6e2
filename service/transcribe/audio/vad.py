"""Where somebody speaks: Silero VAD's network, run over a stream with its state carried along, many frames a call.

The weights are those of the silero-vad package's default model. The package itself is not imported: it pulls in
torchaudio and sets torch's thread count. Its own loop calls the network once a frame; only the recurrence needs that
order, so here everything before it runs as matrix products over whole blocks, on idle cores too: the same numbers,
many times as fast.
"""

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transcribe.audio import cores
from transcribe.audio.chunking import FRAME, VadError

CONTEXT = 64  # samples of the frame before that the network sees as well
REFLECT = 64  # samples mirrored at the frame's end
FFT, HOP = 256, 128
SPECTRA = 4  # of a frame
STRIDES = (1, 2, 2, 1)  # of the layers: of four spectra they make four, two, one and one
UNITS = 128  # of the LSTM
BLOCK = 250  # frames that are computed at a time: some megabytes

Recurrence = Callable[
    [Tensor, Tensor], Tensor
]  # gates [frames, 4 · UNITS], state [2, UNITS], replaced → [frames, UNITS]


def weights_path() -> Path:
    """Where the silero-vad package keeps its network. Raises VadError."""
    spec = importlib.util.find_spec("silero_vad")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    if folder is None or not (path := folder / "data" / "silero_vad.jit").is_file():
        raise VadError("the package silero-vad is missing from the virtual environment: rebuild it from its lock")
    return path


class _Convolution:
    """A layer: a convolution of three taps along a frame's few positions, as a matrix product for each that it gives.
    What lies beyond the frame is zero, and is left out of the product."""

    def __init__(self, weight: Tensor, bias: Tensor, positions: int, stride: int) -> None:
        """`weight` [outputs, inputs, 3]; `positions` is how many it is given."""
        self.positions = len(range(0, positions, stride))  # that it gives
        self._bias = bias
        self._outputs, inputs, _ = weight.shape
        self._products = []
        for at in range(0, positions, stride):
            first, end = max(at - 1, 0), min(at + 2, positions)
            taps = weight[:, :, first - at + 1 : end - at + 1]
            matrix = taps.permute(2, 1, 0).reshape(-1, self._outputs)
            self._products.append((slice(first * inputs, end * inputs), matrix.contiguous()))

    def __call__(self, given: Tensor) -> Tensor:
        """[frames, positions * inputs] → [frames, self.positions * outputs], none below 0."""
        found = torch.empty(len(given), self.positions * self._outputs)
        for (columns, matrix), place in zip(self._products, found.chunk(self.positions, 1), strict=True):
            torch.addmm(self._bias, given[:, columns], matrix, out=place)
        return found.relu_()


class Vad:
    """The network. It holds no state: `stream()` begins a recording."""

    def __init__(self, path: Path, recurrence: Callable[[Tensor], Recurrence | None] = lambda _: None) -> None:
        """`recurrence` makes of the recurrent weight [4 · UNITS, UNITS] what is faster than torch's LSTM, if it can;
        several threads call that at the same time."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is old, and what Silero publishes
            state = torch.jit.load(str(path), map_location="cpu").state_dict()  # type: ignore[no-untyped-call]
        weights = {name.removeprefix("_model."): value for name, value in state.items()}
        # A matrix of cosines and sines under a window, which a fast transform replaces; cos 0 = 1 leaves the window.
        self._window = weights["stft.forward_basis_buffer"][0, 0].contiguous()
        self._layers: list[_Convolution] = []
        for index, stride in enumerate(STRIDES):
            positions = self._layers[-1].positions if self._layers else SPECTRA
            weight, bias = (weights[f"encoder.{index}.reparam_conv.{name}"] for name in ("weight", "bias"))
            self._layers.append(_Convolution(weight, bias, positions, stride))
        self._lstm = torch.nn.LSTM(UNITS, UNITS)
        parameters = {name: weights[f"decoder.rnn.{name}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        self._lstm.load_state_dict({f"{name}_l0": value for name, value in parameters.items()})
        self._input = parameters["bias_ih"] + parameters["bias_hh"], parameters["weight_ih"].t().contiguous()
        self._recurrence = recurrence(parameters["weight_hh"])
        self.head = weights["decoder.decoder.2.weight"][0, :, 0], weights["decoder.decoder.2.bias"]

    @classmethod
    def load(cls) -> "Vad":
        """The default model of the installed package. Raises VadError."""
        return cls(weights_path())

    def stream(self) -> "VadStream":
        """A new recording's detector."""
        return VadStream(self)

    @torch.inference_mode()
    def features(self, samples: NDArray[np.float32]) -> Tensor:
        """[frames, UNITS] from CONTEXT + frames * FRAME samples."""
        windows = self._windows(torch.from_numpy(samples))
        spectrum = torch.view_as_real(torch.fft.rfft(windows)).square_()
        hidden = (spectrum[..., 0] + spectrum[..., 1]).sqrt_().flatten(1)
        for layer in self._layers:
            hidden = layer(hidden)
        return hidden

    @torch.inference_mode()
    def outputs(self, features: Tensor, state: Tensor) -> Tensor:
        """The LSTM's [frames, UNITS] of `features`; replaces `state` [2, UNITS], hidden and cells."""
        if self._recurrence is not None:
            bias, weight = self._input
            return self._recurrence(torch.addmm(bias, features, weight), state)
        hidden, after = self._lstm(features[:, None], tuple(state[:, None, None]))
        state.copy_(torch.cat(after)[:, 0])
        found: Tensor = hidden[:, 0]
        return found

    def _windows(self, samples: Tensor) -> Tensor:
        """[frames, SPECTRA, FFT] of the samples, weighted; of the last of a frame, the end mirrors what is before."""
        frames = samples.unfold(0, CONTEXT + FRAME, FRAME)
        windows = torch.empty(len(frames), SPECTRA, FFT)
        torch.mul(frames[:, : -HOP + REFLECT].unfold(1, FFT, HOP), self._window, out=windows[:, :-1])
        last = torch.cat([frames[:, REFLECT - FFT :], frames[:, -1 - REFLECT : -1].flip(1)], 1)
        torch.mul(last, self._window, out=windows[:, -1])
        return windows


class VadStream:
    """The detector's state within one recording."""

    def __init__(self, vad: Vad) -> None:
        self._vad = vad
        self._state = torch.zeros(2, UNITS)  # of the LSTM: hidden and cells
        self._samples = np.zeros(CONTEXT, np.float32)  # the last frame's end and what does not fill a frame yet

    def push(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Speech probabilities of the frames that `block` completes, one for each FRAME samples, in order."""
        before, length = self._samples, len(self._samples) + len(block)
        frames = (length - CONTEXT) // FRAME
        rest = length - frames * FRAME
        self._samples = np.concatenate([before, block[-rest:]])[-rest:]
        first = np.concatenate([before, block[: BLOCK * FRAME]])
        parts = [first[: CONTEXT + min(frames, BLOCK) * FRAME]] if frames else []
        for at in range(BLOCK, frames, BLOCK):
            start, end = at * FRAME, CONTEXT + min(at + BLOCK, frames) * FRAME
            parts.append(block[start - len(before) : end - len(before)])
        found = [self._scores(features) for features in cores.in_order(self._vad.features, parts)]
        return np.concatenate(found) if found else np.zeros(0, np.float32)

    def flush(self) -> NDArray[np.float32]:
        """The probability of the last, incomplete frame, if there is one."""
        rest = len(self._samples) - CONTEXT
        return self.push(np.zeros(FRAME - rest, np.float32)) if rest else np.zeros(0, np.float32)

    @torch.inference_mode()
    def _scores(self, features: Tensor) -> NDArray[np.float32]:
        """The probabilities of the next frames."""
        hidden = self._vad.outputs(features, self._state)
        weight, bias = self._vad.head
        found: NDArray[np.float32] = torch.sigmoid(hidden.relu() @ weight + bias).numpy()
        return found
