"""Log-mel spectrograms, equal to those of transformers' WhisperFeatureExtractor.

Only the audio that is there is transformed: the silence that pads it to the window has a known value, which is the
floor that Whisper clamps to (8 decades below the absmax bin).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from transcribe.types import SAMPLE_RATE

WINDOW = 400  # samples of one Fourier transform, 25 ms
HOP = 160  # samples from frame to frame, 10 ms
FRAMES_PER_SECOND = SAMPLE_RATE // HOP
WINDOW_FRAMES = 30 * FRAMES_PER_SECOND
WINDOW_SAMPLES = 30 * SAMPLE_RATE
MARGIN_FRAMES = 200  # silence behind a short clip: with less, the model does not notice its end and repeats itself
# Whisper was trained with windows of 30 s. Whisper-base, 21 clips below 11 s in 8 renderings each (noise, pace, level),
# word error rate by the shortest window: 10 s 5.8 %, 15 s 4.5 %, 20 s 4.4 %, 30 s 4.3 %.
SHORTEST_FRAMES = 2000
FEW_SIZES = (SHORTEST_FRAMES, WINDOW_FRAMES)  # where windows of one size are encoded together
POWER_FLOOR = 1e-10
RANGE = 8.0  # decades below the absmax bin


def _hertz_to_mel(frequency: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Slaney's scale: linear below 1 kHz, logarithmic above."""
    logarithmic = 15.0 + np.log(np.maximum(frequency, 1e-9) / 1000.0) * (27.0 / np.log(6.4))
    return np.where(frequency >= 1000.0, logarithmic, 3.0 * frequency / 200.0)


def _mel_to_hertz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    logarithmic = 1000.0 * np.exp(np.log(6.4) / 27.0 * (mel - 15.0))
    return np.where(mel >= 15.0, logarithmic, 200.0 * mel / 3.0)


def filters(bands: int) -> npt.NDArray[np.float32]:
    """Triangular filters of equal area on Slaney's mel scale: [bands, WINDOW // 2 + 1]."""
    nyquist = SAMPLE_RATE / 2
    frequencies = np.linspace(0.0, nyquist, WINDOW // 2 + 1)
    limits = _hertz_to_mel(np.array([0.0, nyquist]))
    corners = _mel_to_hertz(np.linspace(limits[0], limits[1], bands + 2))
    widths = np.diff(corners)
    slopes = corners[:, None] - frequencies[None, :]
    rising = -slopes[:-2] / widths[:-1, None]
    falling = slopes[2:] / widths[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return (triangles * (2.0 / (corners[2:] - corners[:-2]))[:, None]).astype(np.float32)


def frames_for(samples: int) -> int:
    """Frames that the encoder needs to hear for so much audio: with silence behind it, as it was trained with."""
    return min(max(-(-samples // HOP) + MARGIN_FRAMES, SHORTEST_FRAMES), WINDOW_FRAMES)


class LogMel:
    """Turns audio into the encoder's input. One thread may use it."""

    def __init__(self, bands: int, device: str) -> None:
        self._window = torch.hann_window(WINDOW, device=device)
        self._filters = torch.from_numpy(filters(bands)).to(device)
        self._device = device
        self._staged: Tensor | None = None  # where a GPU fetches sound by itself
        self._fetched: torch.cuda.Event | None = None  # when it has done so

    def __call__(self, audio: npt.NDArray[np.float32], frames: int = WINDOW_FRAMES) -> Tensor:
        """Log-mel of `audio` padded with silence: float32 [bands, frames], `frames` of 10 ms."""
        samples = min(len(audio), frames * HOP, WINDOW_SAMPLES)
        # Frames that reach the audio; the last one is centred up to half a transform behind its end.
        reached = min(frames, -(-(samples + WINDOW // 2) // HOP))
        # Up to the window's end silence follows; there, the transform mirrors what precedes it.
        tail = min(reached * HOP + WINDOW, WINDOW_SAMPLES)
        padded = torch.zeros(tail, device=self._device)
        padded[:samples] = torch.from_numpy(np.ascontiguousarray(audio[:samples], dtype=np.float32))
        spectrum = torch.stft(padded, WINDOW, HOP, window=self._window, return_complex=True)[:, :reached]
        power = spectrum.real.square() + spectrum.imag.square()
        bins = torch.clamp(self._filters @ power, min=POWER_FLOOR).log10_()
        floor = bins.amax() - RANGE if reached else torch.tensor(-10.0)
        bins = (torch.maximum(bins, floor) + 4.0) / 4.0
        if reached == frames:
            return bins
        silence = (torch.clamp(floor, min=-10.0) + 4.0) / 4.0
        return torch.cat([bins, silence.expand(len(bins), frames - reached)], dim=1)

    def together(self, audios: Sequence[npt.NDArray[np.float32]], frames: int) -> Tensor:
        """The same of several at once, [audios, bands, frames]: what is silence is transformed too, which costs a GPU
        less than calls for each."""
        bins = self.transformed(self.staged(audios, frames, len(audios)), frames)
        self.fetched()
        return bins

    def staged(self, audios: Sequence[npt.NDArray[np.float32]], frames: int, count: int) -> Tensor:
        """Sound with silence behind it, up to `count` recordings, [count, samples]: in memory that is used again, from
        which a GPU copies by itself. So many frames are made of each."""
        padded = self.staging(frames, count)
        for row, audio in zip(padded.numpy(), audios, strict=False):
            samples = min(len(audio), frames * HOP, WINDOW_SAMPLES)
            row[:samples] = audio[:samples]
            row[samples:] = 0.0
        padded[len(audios) :] = 0.0
        return padded

    def transformed(self, sound: Tensor, frames: int) -> Tensor:
        """Log-mel [count, bands, frames] of `staged` sound."""
        sound = sound.to(self._device, non_blocking=True)
        spectrum = torch.stft(sound, WINDOW, HOP, window=self._window, return_complex=True)[..., :frames]
        power = spectrum.real.square() + spectrum.imag.square()
        bins = torch.clamp(self._filters @ power, min=POWER_FLOOR).log10_()
        floor = bins.amax((1, 2), keepdim=True) - RANGE
        return (torch.maximum(bins, floor) + 4.0) / 4.0

    def fetched(self) -> None:
        """Says that the device has been told to fetch what was staged."""
        if self._fetched is not None:
            self._fetched.record()

    def staging(self, frames: int, count: int) -> Tensor:
        """The memory of `staged`; new memory would cost more than the copy."""
        if self._fetched is not None:
            self._fetched.synchronize()
        length = min(frames * HOP + WINDOW, WINDOW_SAMPLES)
        if self._staged is None or len(self._staged) < count * length:
            on_gpu = self._device == "cuda"
            self._staged = torch.empty(count * length, pin_memory=on_gpu)
            self._fetched = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]
        return self._staged[: count * length].view(count, length)
