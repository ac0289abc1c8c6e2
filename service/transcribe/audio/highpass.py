"""A filter that takes out what lies below speech: hum, rumble, an offset.

A Butterworth filter of the fourth order. It is run as matrix products: a row of samples is filtered as if nothing had
been there before, and what was there adds four decaying oscillations, which are two complex numbers at the row's start.
"""

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from transcribe.types import SAMPLE_RATE

if TYPE_CHECKING:
    from torch import Tensor

RUMBLE = 100  # Hz; hum and offset below are not speech
ROW = 40  # samples
ROWS = 20  # of a step
STEP = ROW * ROWS  # samples: after two of them 3 * 10^-11 is left of an oscillation, which is nothing
STATE = 4  # figures: two oscillations' real and imaginary parts
START = 2048  # samples that are heard before the first one


class _Matrices(NamedTuple):
    row: (
        "Tensor"  # [ROW, ROW + STATE], from samples to what comes out and the state left, as if nothing had been before
    )
    decay: "Tensor"  # [STATE, ROW], from the state at a row's start to what it adds
    rows: "Tensor"  # [ROWS * STATE, (ROWS + 1) * STATE], from what each row leaves to the state at every row's start
    step: "Tensor"  # [STATE, (ROWS + 1) * STATE], from the state at a step's start to that at every row's start
    left: "Tensor"  # [STATE, STATE], what a step leaves of the state before it


class Highpass:
    """The filter along one recording."""

    def __init__(self) -> None:
        self._state: Tensor | None = None  # [1, STATE]; None before the first sample

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The next samples [steps * STEP] without what is below RUMBLE."""
        if self._state is None:  # as if the sound had been there before: what it begins with is no click
            mirrored = samples[:START][::-1]
            _, self._state = _filtered(np.pad(mirrored, (-(-START // STEP) * STEP - len(mirrored), 0)), None)
        clean, self._state = _filtered(samples, self._state)
        return clean

    def forget(self) -> None:
        """Begins anew with the next samples."""
        self._state = None


def _filtered(samples: NDArray[np.float32], before: "Tensor | None") -> "tuple[NDArray[np.float32], Tensor]":
    """`samples` [steps * STEP] without rumble, after the state `before`; and the state that they leave."""
    import torch  # with the model, after the environment is set

    by = matrices()
    alone = torch.from_numpy(samples).view(-1, ROW) @ by.row
    inside = alone[:, ROW:].reshape(-1, ROWS * STATE) @ by.rows  # as if each step were the first
    left = torch.zeros(len(inside) + 2, STATE)  # by each step; first come a step of silence and `before`
    left[2:] = inside[:, -STATE:]
    if before is not None:
        left[1] = before
    starts = torch.addmm(left[1:], left[:-1], by.left)
    states = inside.addmm_(starts[:-1], by.step)[:, :-STATE].reshape(-1, STATE)
    clean: NDArray[np.float32] = torch.addmm(alone[:, :ROW], states, by.decay).view(-1).numpy()
    return clean, starts[-1:]


@cache
def matrices() -> _Matrices:
    """The filter, of the bilinear transform (Oppenheim and Schafer, Discrete-Time Signal Processing, 7.1.2) and by
    partial fractions: a sample's response is `now` at once, and later the real part of each factor * pole ** samples.

    scipy.signal has the filter too, at the price of 1.5 s of imports before the worker can start.
    """
    corner = np.tan(np.pi * RUMBLE / SAMPLE_RATE)
    continuous = corner * np.exp(1j * np.pi * np.array([5, 7, -5, -7]) / 8)
    poles = (1 + continuous) / (1 - continuous)
    gain = np.prod(1 + poles) / 16
    others = [np.prod(1 - np.delete(poles, one) / poles[one]) for one in range(2)]
    poles, factors = poles[:2], 2 * gain * (1 - 1 / poles[:2]) ** 4 / others
    now = (gain / np.prod(np.abs(poles) ** 2)).real + factors.real.sum()
    late = (factors[:, None] * poles[:, None] ** np.arange(1, ROW + 1)).conj()  # [2, ROW]
    response = np.concatenate([[now], late.real.sum(0)])
    distance = np.arange(ROW) - np.arange(ROW)[:, None]
    turns = np.stack([_turn(poles ** (ROW * rows)) for rows in range(ROWS + 1)])
    apart = np.arange(ROWS + 1) - np.arange(ROWS)[:, None] - 1
    rows = np.where(apart[..., None, None] >= 0, turns[apart], 0.0).transpose(0, 2, 1, 3)
    found = np.where(distance >= 0, response[distance], 0.0)
    made = (
        np.concatenate([found, _parts(poles ** np.arange(ROW - 1, -1, -1)[:, None])], axis=1),
        np.stack([late.real, late.imag], 1).reshape(STATE, ROW),
        rows.reshape(ROWS * STATE, -1),
        turns.transpose(1, 0, 2).reshape(STATE, -1),
        turns[ROWS],
    )
    return _tensors(made)


def _tensors(matrices: tuple[NDArray[np.float64], ...]) -> _Matrices:
    import torch

    return _Matrices(*(torch.from_numpy(np.ascontiguousarray(matrix, np.float32)) for matrix in matrices))


def _parts(figures: NDArray[np.complex128]) -> NDArray[np.float64]:
    """[..., 2] complex as [..., STATE]."""
    return np.stack([figures.real, figures.imag], -1).reshape(*figures.shape[:-1], STATE)


def _turn(factors: NDArray[np.complex128]) -> NDArray[np.float64]:
    """What multiplies a state [1, STATE] by two complex factors: [STATE, STATE]."""
    turn = np.zeros((STATE, STATE))
    for one, factor in enumerate(factors):
        part = slice(2 * one, 2 * one + 2)
        turn[part, part] = [[factor.real, factor.imag], [-factor.imag, factor.real]]
    return turn
