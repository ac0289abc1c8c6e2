"""The way from sound to the decoder's keys and values, recorded once for a few numbers of windows and then replayed.

It is hundreds of short kernels, which Python takes longer to start than a GPU to run for a few windows; meanwhile the
other threads of the worker wait for Python, and it for them.
"""

import functools
import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from transcribe import logs
from transcribe.engine.cuda.audio_cache import ByteCache
from transcribe.engine.cuda.graphs import Capture
from transcribe.engine.decode.batch import Batch, Sound
from transcribe.engine.model.features import FEW_SIZES, LogMel
from transcribe.engine.model.whisper import Model

COUNTS = (16, 8, 4, 2, 1)  # of windows, the largest first: what it allocates serves the others


class Encoding:
    """For the batch whose cache it fills."""

    def __init__(self, model: Model, cache: ByteCache, windows: int, capture: Capture) -> None:
        """Up to `windows` are encoded together."""
        self._model, self._cache, self._capture = model, cache, capture
        self._mel = LogMel(model.dims.bands, model.device)
        self._counts = [count for count in COUNTS if count <= windows]
        self._recorded: dict[tuple[int, int], Callable[[], object]] = {}

    def record(self) -> None:
        """Records all that there is memory for; what fails is told, and done plainly."""
        for frames, count in itertools.product(sorted(FEW_SIZES, reverse=True), self._counts):
            work = functools.partial(self._encode, self._mel.staging(frames, count), frames)
            try:
                self._recorded[count, frames] = self._capture(work, ())
            except RuntimeError as error:  # want of memory is one
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                logs.warning("encoding_not_recorded", windows=count, frames=frames, reason=reason)
                if isinstance(error, torch.OutOfMemoryError):
                    torch.cuda.empty_cache()

    def _encode(self, sound: Tensor, frames: int) -> None:
        """For the rows that the cache was told to begin at when this runs, recorded or not."""
        mel = self._mel.transformed(sound, frames)
        self._cache.keep(self._model.encoder(mel.to(self._model.compute_dtype)))

    def __call__(self, sounds: Sequence[Sound], frames: int, first: int) -> bool:
        """Encodes sounds and keeps them for rows from `first` on; False where that is not recorded."""
        count = min((count for count, size in self._recorded if size == frames and count >= len(sounds)), default=None)
        if count is None:
            return False
        self._mel.staged(sounds, frames, count)
        self._cache.begin_at(first)
        self._recorded[count, frames]()
        self._mel.fetched()
        self._cache.set_lengths(range(first, first + len(sounds)), min(frames // 2, self._model.dims.positions))
        return True


def record(model: Model, batch: Batch, windows: int, capture: Capture) -> None:
    """From now on the batch's audio is encoded by recorded work, where its cache is one of bytes."""
    if isinstance(batch.cache.cross, ByteCache):
        encoding = Encoding(model, batch.cache.cross, windows, capture)
        encoding.record()
        batch.recorded_encoder = encoding
