"""The inference engine: Whisper with a decode loop of our own, batched continuously across requests.

Importing this is cheap; torch is imported by `Engine.load`. One thread may use an engine.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transcribe.engine.chunks import Chunk, ChunkResult, EngineError
from transcribe.types import SAMPLE_RATE, DecodeOptions

if TYPE_CHECKING:
    from torch import Tensor

    from transcribe.engine.decode.scheduler import Scheduler

__all__ = ["Chunk", "ChunkResult", "Engine", "EngineError", "kernels_stored", "limit_threads"]

WARM_SECONDS = 5.0  # of quiet noise: enough to run every kernel


class Engine:
    """A loaded model that turns chunks into segments. Make one with `load`.

    `device` is "cpu" or "cuda", `torch_dtype` the precision in torch's spelling ("torch.float16"), `facts` what was
    chosen and measured, `word_times` whether the model can give times to words.
    """

    def __init__(self, scheduler: "Scheduler", *, device: str, torch_dtype: str, facts: dict[str, Any]) -> None:
        self._scheduler = scheduler
        self.device = device
        self.torch_dtype = torch_dtype
        self.facts = facts
        self.word_times = bool(facts["word_times"])

    @classmethod
    def load(
        cls,
        model_dir: Path,
        *,
        device: str,
        dtype: str,
        max_chunks: int | None,
        cache_dir: Path | None,
        store: bool = True,
    ) -> "Engine":
        """Loads a transformers model directory.

        `device` and `dtype` may be "auto"; `max_chunks` is the size of the decoder's batch, None for what suits the
        device; prepared weights and kernels are under `cache_dir`, and only written there if `store` says so. Raises
        EngineError with one line for the user.
        """
        from transcribe.engine.load import EngineOptions, load_scheduler

        options = EngineOptions(device=device, dtype=dtype, max_chunks=max_chunks, cache_dir=cache_dir, store=store)
        scheduler, torch_dtype, facts = load_scheduler(model_dir, options)
        return cls(scheduler, device=facts["device"], torch_dtype=torch_dtype, facts=facts)

    @property
    def steps(self) -> dict[str, Any]:
        """How the decoder's steps were done since the model was loaded; any thread may ask.

        "wanted" is whether the trial chose recorded steps, "made_of" whether of our "kernels" or of "torch"'s,
        "trial_error" why it failed, "failure" why the last
        recording did, or ''. Counts: "recorded", "plain" (greedy, but not recorded), "sampled" (these are never
        recorded), "failed_captures", and "out_of_memory", for want of which rows were given up.
        """
        trial = self.facts.get("steps", {})
        told = {"wanted": bool(trial.get("recorded")), "trial_error": trial.get("error", "")}
        if told["wanted"]:
            told["made_of"] = trial.get("way", "torch")
        return {**told, **self._scheduler.steps}

    @property
    def rows(self) -> int:
        """How many chunks are decoded together, at most: less than at the start once the GPU's memory ran out."""
        return self._scheduler.batch.capacity

    @property
    def windows(self) -> int:
        """How many chunks are encoded together, at most."""
        return self._scheduler.windows

    def recurrence(self, weight: "Tensor") -> "Callable[[Tensor, Tensor], Tensor] | None":
        """The step-by-step part of an LSTM with the recurrent `weight`, float32 [4 · units, units] in torch's order, by
        a compiled kernel; None where the engine has none.

        It takes the inputs' gates [frames, 4 · units], biases added, and a state [2, units], hidden and cells, which it
        replaces; it returns [frames, units]. Any threads may call it.
        """
        from transcribe.engine.cpu import ops

        library = self._scheduler.library
        if library is None:
            return None
        packed = ops.pack_recurrence(weight)
        return lambda gates, state: ops.recurrence(library, gates, packed, state)

    @property
    def waiting(self) -> int:
        """How many chunks are not being decoded yet."""
        return self._scheduler.waiting

    def room(self) -> int:
        """How many chunks can be added now."""
        return self._scheduler.room()

    def add(self, chunk: Chunk) -> None:
        """Queues a chunk. Raises EngineError when the model cannot do what its options ask."""
        self._scheduler.add(chunk)

    def step(self) -> list[ChunkResult]:
        """Encodes one chunk, on a processor a layer of it, or decodes a few tokens of all. Returns the chunks that are
        done."""
        return self._scheduler.step()

    def encode(self, text: str) -> list[int]:
        """The tokens of text that stands after other text."""
        return self._scheduler.encode(text)

    def discard(self, key: object) -> None:
        """Forgets the chunks with this key."""
        self._scheduler.discard(key)

    def rest(self) -> None:
        """Gives up the memory that only chunks under way need, unless there are some."""
        self._scheduler.rest()

    def transcribe(self, chunks: Iterable[Chunk]) -> list[ChunkResult]:
        """Results of `chunks` in their order. Nothing else may be in the engine."""
        waiting = list(chunks)
        positions = {id(chunk): position for position, chunk in enumerate(waiting)}
        results: dict[int, ChunkResult] = {}
        queue = [replace(chunk, key=positions[id(chunk)]) for chunk in waiting]
        while len(results) < len(waiting):
            while queue and self.room():
                self.add(queue.pop(0))
            for result in self.step():
                assert isinstance(result.key, int)
                results[result.key] = result
        return [replace(results[position], key=chunk.key) for position, chunk in enumerate(waiting)]

    def warm_up(self) -> float:
        """Transcribes noise, so that every kernel has run before the first recording comes.

        Returns the speed in seconds of audio per second.
        """
        import numpy as np

        noise = np.random.default_rng(0).normal(0.0, 0.01, int(WARM_SECONDS * SAMPLE_RATE)).astype(np.float32)
        began = time.monotonic()
        self.transcribe([Chunk(0, noise, DecodeOptions(language="en"))])
        return WARM_SECONDS / max(time.monotonic() - began, 1e-3)


def kernels_stored(cache_dir: Path) -> bool:
    """Whether compiled CUDA kernels are stored in `cache_dir` for the next start."""
    from transcribe.engine.cuda import compile_cache

    return compile_cache.stored(cache_dir)


def limit_threads(count: int) -> None:
    """Lets torch use at most `count` threads for work that the calling thread starts."""
    from transcribe.engine.cpu import threads

    threads.limit(count)
