"""Several channels → one, without losing what one of them says.

The mean of the channels would cancel a voice whose channels have opposite polarity (a wrongly wired cable, a "karaoke"
file). So each channel is compared with the loudest one, and those that run against it are turned over first.
"""

import numpy as np
from numpy.typing import NDArray

from transcribe.audio.errors import AudioError

STEP_SECONDS = 0.5  # of sound that is judged and mixed at a time
MEMORY = 0.8  # the weight of the past in the correlation, per step
OPPOSED, ALIGNED = -0.5, 0.2  # correlation at which a channel is turned over, and at which it is turned back
ALLOWED_PEAK = 1.0
SILENT = 1e-4  # of the loudest channel's power
RAMP_SECONDS = 0.02  # in which weights change


class Bounds:
    """Call it with samples [frames, channels], in order; gives the same in [-1, 1].

    NaN and infinities become silence. Samples beyond [-1, 1], as float files may have, are scaled down: from the first
    block in which they appear on, so that a file in the scale of integers is not clipped to noise.
    """

    def __init__(self) -> None:
        self._scale = 1.0

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        peak = float(np.abs(samples).max(initial=0.0))
        if not np.isfinite(peak):
            samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
            peak = float(np.abs(samples).max(initial=0.0))
        self._scale = max(self._scale, peak)
        return samples if self._scale <= ALLOWED_PEAK else samples / np.float32(self._scale)


class Separator:
    """Call it with samples [frames, channels], in order; gives the same channels, float32 in [-1, 1]. Raises AudioError
    when their number changes: nobody could say which is which."""

    def __init__(self) -> None:
        self._bounds = Bounds()
        self._channels = 0

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        self._channels = self._channels or samples.shape[1]
        if samples.shape[1] != self._channels:
            message = f"the number of channels changes in the recording, from {self._channels} to {samples.shape[1]}"
            raise AudioError(message, code="unsupported_channels", param="channels")
        return self._bounds(samples)


class Mixer:
    """Call it with samples [frames, channels], in order; gives the mono samples, as many, float32 in [-1, 1]."""

    def __init__(self, rate: int) -> None:
        self._step = max(1, int(STEP_SECONDS * rate))
        self._ramp = max(1, int(RAMP_SECONDS * rate))
        self._bounds = Bounds()
        self._products: NDArray[np.float64] = np.zeros((0, 0))
        self._signs: NDArray[np.float32] = np.zeros(0, np.float32)
        self._weights = self._signs

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        samples = self._bounds(samples)
        channels = samples.shape[1]
        if channels == 1:
            return np.ascontiguousarray(samples[:, 0])
        if channels != len(self._signs):
            self._products, self._signs = np.zeros((channels, channels)), np.ones(channels, np.float32)
            self._weights = self._signs / np.float32(channels)
        parts = [samples[at : at + self._step] for at in range(0, len(samples), self._step)]
        return np.concatenate([self._mixed(part) for part in parts] or [np.zeros(0, np.float32)])

    def _mixed(self, part: NDArray[np.float32]) -> NDArray[np.float32]:
        before, weights = self._weights, self._judged(part)
        mixed: NDArray[np.float32] = part @ weights
        if (before != weights).any():  # over a moment, so that nothing clicks
            ramp = np.linspace(1.0, 0.0, min(self._ramp, len(part)), dtype=np.float32)
            mixed[: len(ramp)] += ramp * (part[: len(ramp)] @ (before - weights))
        return mixed

    def _judged(self, part: NDArray[np.float32]) -> NDArray[np.float32]:
        """The weights from here on: a channel that is silent does not make the others softer."""
        # The second difference weighs speech against hum and offset, which both channels may share.
        slopes = np.diff(part, 2, axis=0)
        self._products = MEMORY * self._products + (slopes.T @ slopes)
        power = np.diag(self._products)
        loudest = int(power.argmax())
        if power[loudest] == 0:
            return self._weights
        scale = np.sqrt(power * power[loudest])
        correlation = np.divide(self._products[loudest], scale, out=np.zeros(len(power)), where=scale > 0)
        self._signs[correlation < OPPOSED] = -1.0
        self._signs[correlation > ALIGNED] = 1.0
        self._weights = self._signs / np.float32((power > SILENT * power[loudest]).sum())
        return self._weights
