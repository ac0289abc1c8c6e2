"""Takes chunks, keeps the decoder's batch full, returns results. One thread may use it."""

import gc
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from transcribe import logs
from transcribe.engine.chunks import BRIEF_SECONDS, Chunk, ChunkResult, EngineError
from transcribe.engine.cpu.library import Library
from transcribe.engine.cpu.threads import ThreadThrottle
from transcribe.engine.decode.alignment import CostFunction
from transcribe.engine.decode.batch import Batch
from transcribe.engine.decode.segments import SegmentBuilder
from transcribe.engine.decode.state import DecodeRequest, DecodeSequence
from transcribe.engine.model.features import FEW_SIZES, WINDOW_FRAMES, LogMel, frames_for
from transcribe.engine.model.whisper import Model
from transcribe.types import SAMPLE_RATE

BURST_TOKENS = 8  # decoded of each row in one `step`
MUCH_LONGER = 2.0  # times a brief chunk's length: it is decoded first
NO_MEMORY = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")  # what has no type of its own


class Scheduler:
    """Continuous batching over a model."""

    def __init__(
        self,
        model: Model,
        rows: int,
        *,
        windows: int = 1,
        prepare: Callable[[Batch], object] | None = None,
        costs: CostFunction | None = None,
    ) -> None:
        """`rows` are decoded together, and up to `windows` of one size encoded: a processor gains nothing by more than
        one. `prepare` is done to each batch that is made: one, and a smaller one whenever the GPU's memory runs out.
        `costs` is alignment.cost by a GPU's kernels. Raises torch.OutOfMemoryError when there is no memory for a single
        row."""
        self._model = model
        self._mel = LogMel(model.dims.bands, model.device)
        self._prepare = prepare
        self._builder = SegmentBuilder(model.dims, model.special, model.tokenizer, model.library, costs)
        self._waiting: deque[DecodeRequest] = deque()
        self._done: list[ChunkResult] = []
        self._throttle = ThreadThrottle() if model.device == "cpu" else None
        self.windows = windows
        self.out_of_memory = 0  # how often rows were given up for want of it
        self.batch = self._make(rows)

    @property
    def steps(self) -> dict[str, Any]:
        batch = self.batch
        counts = {name: batch.steps[name] for name in ("recorded", "plain", "sampled")}
        replay = batch.greedy_step
        return {
            **counts,
            "failed_captures": replay.failed_captures if replay else 0,
            "failure": replay.failure if replay else "",
            "out_of_memory": self.out_of_memory,
        }

    @property
    def library(self) -> Library | None:
        return self._model.library

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def room(self) -> int:
        return max(0, self.batch.room - len(self._waiting))

    def add(self, chunk: Chunk) -> None:
        language = chunk.options.language
        multilingual = self._model.special.multilingual
        if language is not None and language not in (self._model.special.languages if multilingual else ("en",)):
            raise EngineError(f"the model does not know the language {language!r}")
        if chunk.options.task not in (self._model.special.tasks if multilingual else ("transcribe",)):
            raise EngineError(f"the model cannot {chunk.options.task}")
        request = DecodeRequest(chunk, language=language if self._model.special.multilingual else "en")
        self._waiting.insert(0 if chunk.ahead else len(self._waiting), request)

    def encode(self, text: str) -> list[int]:
        return self._model.tokenizer.encode(text)

    @torch.inference_mode()  # the cache was written in it, and cannot be changed outside
    def discard(self, key: object) -> None:
        self._waiting = deque(request for request in self._waiting if request.chunk.key != key)
        for row in [row for row in self.batch.rows if row.request.chunk.key == key]:
            self.batch.leave(row)

    @torch.inference_mode()
    def rest(self) -> None:
        if not self._waiting:
            self.batch.rest()

    @torch.inference_mode()
    def step(self) -> list[ChunkResult]:
        if self._throttle is not None:
            self._throttle.update()
        short = ""
        try:
            self._advance()
        except RuntimeError as error:
            if not _is_out_of_memory(error) or self.batch.capacity == 1:
                raise
            short = str(error)
        if short:  # not while the error holds what was in use
            self._shrink(short)
        done, self._done = self._done, []
        return done

    def _advance(self) -> None:
        if self._waiting and self.batch.room and not self._brief_first():
            self._settle(self._start())
            return
        for _ in range(BURST_TOKENS // self.batch.burst):
            # Where windows are encoded together, results wait a moment for others, so that their places are filled so.
            if not self.batch.rows or (self._done and self.windows == 1):
                break
            self._settle(self.batch.step(self._builder.is_looping, self._ahead()))

    def _make(self, rows: int) -> Batch:
        """A batch of so many rows, or of the half as long as there is no memory for them."""
        while True:
            try:
                return self._prepared(rows)
            except RuntimeError as error:
                if not _is_out_of_memory(error) or rows == 1:
                    raise
            rows //= 2
            self.out_of_memory += 1
            logs.warning("out_of_memory", rows=rows)
            _free()

    def _prepared(self, rows: int) -> Batch:
        model = self._model
        batch = Batch(model.decoder, model.special, rows, model.cross_attention_cache(rows))
        if self._prepare is not None:
            self._prepare(batch)
        return batch

    def _shrink(self, reason: str) -> None:
        """Goes on with half of the rows; what was being decoded begins anew, after the text that it already has."""
        rows, steps = self.batch.capacity // 2, self.batch.steps
        begun = [row.request for row in self.batch.rows if row.request not in self._waiting]
        self._waiting.extendleft(reversed(begun))
        self.out_of_memory += 1
        logs.warning("out_of_memory", rows=rows, reason=" ".join(reason.split())[:300])
        self.windows = max(1, self.windows // 2)
        self.batch.greedy_step = self.batch.recorded_encoder = None
        del self.batch
        _free()
        self.batch = self._make(rows)
        self.batch.steps = steps

    def _ahead(self) -> int | None:
        """The place of the row that goes ahead of the others, if one does."""
        return next((place for place, row in enumerate(self.batch.rows) if row.request.chunk.ahead), None)

    def _brief_first(self) -> bool:
        """Whether a brief chunk is decoded on before a much longer one is encoded, or before any if it goes ahead."""
        if self._waiting[0].chunk.ahead:
            return False
        if self._ahead() is not None:
            return True
        briefest = min((row.request.seconds for row in self.batch.rows), default=BRIEF_SECONDS)
        return briefest < BRIEF_SECONDS and self._waiting[0].seconds > MUCH_LONGER * briefest

    def _frames(self, request: DecodeRequest) -> int:
        """How many the encoder hears. What else is waiting must not change it."""
        frames = WINDOW_FRAMES if request.whole_window else frames_for(len(request.audio))
        return frames if self.windows == 1 else next(size for size in FEW_SIZES if frames <= size)

    def _start(self) -> list[DecodeSequence]:
        """Begins to decode the first request that waits, and with it others of the same size."""
        frames = self._frames(self._waiting[0])
        most = min(self.windows, self.batch.room)
        listen = self._waiting[0].chunk.listen
        alike = (r for r in self._waiting if r.chunk.listen == listen and self._frames(r) == frames)
        requests = list(itertools.islice(alike, most))
        first = self.batch.encode([request.audio for request in requests], frames)
        if first is None:
            if (encoded := self._encoded(requests, frames)) is None:
                return []
            first = self.batch.store(encoded)
        if any(request.language is None for request in requests):
            heard = self.batch.languages(first, [request.options.candidates for request in requests])
            for request, chances in zip(requests, heard, strict=True):
                request.heard = chances
                request.language = request.language or max(chances, key=chances.__getitem__)
        if listen:
            return self._listened(requests)
        rows = []
        for request in requests:
            request.whole_window = frames == WINDOW_FRAMES
            rows.append(DecodeSequence(request, self._prefix(request), request.options.temperature))
        finished = self.batch.join(rows)
        for request in requests:  # not before: memory may run out
            self._waiting.remove(request)
        return finished

    def _listened(self, requests: Sequence[DecodeRequest]) -> list[DecodeSequence]:
        """Writes down what languages were heard; nothing is decoded, and the places in the batch are free again."""
        for request in requests:
            language = request.language or "en"
            self._waiting.remove(request)
            self._done.append(ChunkResult(request.chunk.key, language, heard=request.heard or {language: 0.0}))
        return []

    def _encoded(self, requests: Sequence[DecodeRequest], frames: int) -> Tensor | None:
        """[requests, positions, width]. On a processor None, if there is more to do: a layer is done at a time, so that
        what goes ahead need not wait for all."""
        dtype, request = self._model.compute_dtype, requests[0]
        if self.windows > 1:
            return self._model.encoder(self._mel.together([one.audio for one in requests], frames).to(dtype))
        if request.encoding is None:
            request.encoding = self._model.encoder.by_layers(self._mel(request.audio, frames)[None].to(dtype))
        try:
            next(request.encoding)
        except StopIteration as end:
            request.encoding = None
            encoded: Tensor = end.value
            return encoded
        return None

    def _prefix(self, request: DecodeRequest) -> list[int]:
        options = request.options
        prompt = self._model.tokenizer.prompt(options.prompt, options.hotwords) if not request.segments else []
        return [*prompt, *self._model.special.opening(request.language or "en", options.task)]

    def _settle(self, finished: list[DecodeSequence]) -> None:
        """Good rows leave; doubtful ones start over; requests with audio left are queued again."""
        while finished:
            row = finished.pop()
            quality = self._builder.quality(row)
            if not row.request.whole_window and (quality.doubtful or not row.complete):
                self._requeue(row)
                continue
            if quality.doubtful:
                row.keep_best(quality.trust, self.batch.attention(row) if row.request.options.words else None)
                if row.next_temperature():
                    finished += self.batch.retry(row)
                    continue
                row.restore_best()
                quality = self._builder.quality(row)
                row.complete = True  # no temperature helped: it is not tried again
            resume = self._builder.segments(row, quality, self.batch)
            request = row.request
            if resume is None:
                self.batch.leave(row)
                self._done.append(ChunkResult(request.chunk.key, request.language or "en", tuple(request.segments)))
                continue
            request.offset += round(resume * SAMPLE_RATE)
            self._requeue(row)

    def _requeue(self, row: DecodeSequence) -> None:
        """Queues the rest of a row's request for a whole window: the short one may have misled the model."""
        self.batch.leave(row)
        row.request.whole_window = True
        self._waiting.appendleft(row.request)


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether the GPU had no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in NO_MEMORY)


def _free() -> None:
    """Gives back what nothing uses any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
