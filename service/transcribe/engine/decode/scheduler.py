"""Takes chunks, keeps the decoder's batch full, returns results. One thread may use it."""

from collections import deque
from typing import Any

import torch

from transcribe.engine.chunks import Chunk, ChunkResult, EngineError
from transcribe.engine.cpu.threads import ThreadThrottle
from transcribe.engine.decode.batch import Batch
from transcribe.engine.decode.segments import SegmentBuilder
from transcribe.engine.decode.state import DecodeRequest, DecodeSequence
from transcribe.engine.model.features import WINDOW_FRAMES, LogMel, frames_for
from transcribe.engine.model.whisper import Model
from transcribe.types import SAMPLE_RATE

BURST_STEPS = 8  # tokens decoded in one `step`
BRIEF_SECONDS = 8.0  # a chunk this short is decoded before a much longer one is encoded
MUCH_LONGER = 2.0


class Scheduler:
    """Continuous batching over a model."""

    def __init__(self, model: Model, max_chunks: int) -> None:
        self._model = model
        self._mel = LogMel(model.dims.bands, model.device)
        self.batch = Batch(model.decoder, model.special, max_chunks, model.cross_attention_cache(max_chunks))
        self._builder = SegmentBuilder(
            model.dims, model.special, model.tokenizer, word_times=model.special.word_times(model.dims)
        )
        self._waiting: deque[DecodeRequest] = deque()
        self._throttle = ThreadThrottle() if model.device == "cpu" else None

    @property
    def steps(self) -> dict[str, Any]:
        batch = self.batch
        counts = {name: batch.steps[name] for name in ("recorded", "plain", "sampled")}
        replay = batch.greedy_step
        return {
            **counts,
            "failed_captures": replay.failed_captures if replay else 0,
            "failure": replay.failure if replay else "",
        }

    def room(self) -> int:
        return max(0, self.batch.room - len(self._waiting))

    def add(self, chunk: Chunk) -> None:
        language = chunk.options.language
        multilingual = self._model.special.multilingual
        if language is not None and language not in (self._model.special.languages if multilingual else ("en",)):
            raise EngineError(f"the model does not know the language {language!r}")
        if chunk.options.task not in (self._model.special.tasks if multilingual else ("transcribe",)):
            raise EngineError(f"the model cannot {chunk.options.task}")
        self._waiting.append(DecodeRequest(chunk, language=language if self._model.special.multilingual else "en"))

    @torch.inference_mode()  # the cache was written in it, and cannot be changed outside
    def discard(self, key: object) -> None:
        self._waiting = deque(request for request in self._waiting if request.chunk.key != key)
        for row in [row for row in self.batch.rows if row.request.chunk.key == key]:
            self.batch.leave(row)

    @torch.inference_mode()
    def step(self) -> list[ChunkResult]:
        if self._throttle is not None:
            self._throttle.update()
        if self._waiting and self.batch.room and not self._brief_first():
            return self._settle(self._start(self._waiting.popleft()))
        results: list[ChunkResult] = []
        for _ in range(BURST_STEPS):
            if not self.batch.rows or results:
                break
            finished = self.batch.step()
            looping = [row for row in self.batch.rows if row not in finished and self._builder.is_looping(row)]
            results += self._settle(finished + looping)
        return results

    def _brief_first(self) -> bool:
        """Whether a brief chunk is decoded on before a much longer one is encoded."""
        briefest = min((row.request.seconds for row in self.batch.rows), default=BRIEF_SECONDS)
        return briefest < BRIEF_SECONDS and self._waiting[0].seconds > MUCH_LONGER * briefest

    def _start(self, request: DecodeRequest) -> list[DecodeSequence]:
        frames = WINDOW_FRAMES if request.whole_window else frames_for(len(request.audio))
        request.whole_window = frames == WINDOW_FRAMES
        encoded = self._model.encoder(self._mel(request.audio, frames).to(self._model.compute_dtype))
        place = self.batch.store(encoded)
        if request.language is None:
            request.language = self.batch.language(place, request.options.candidates)
        options = request.options
        prompt = self._model.tokenizer.prompt(options.prompt, options.hotwords) if not request.segments else []
        prefix = [*prompt, *self._model.special.opening(request.language, options.task)]
        return self.batch.join(DecodeSequence(request, prefix, options.temperature))

    def _settle(self, finished: list[DecodeSequence]) -> list[ChunkResult]:
        """Good rows leave; doubtful ones start over; requests with audio left are queued again."""
        results = []
        while finished:
            row = finished.pop()
            quality = self._builder.quality(row)
            if not row.request.whole_window and (quality.doubtful or not row.complete):
                self._requeue(row)
                continue
            if quality.doubtful:
                row.keep_best(quality.trust)
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
                results.append(ChunkResult(request.chunk.key, request.language or "en", tuple(request.segments)))
                continue
            request.offset += round(resume * SAMPLE_RATE)
            self._requeue(row)
        return results

    def _requeue(self, row: DecodeSequence) -> None:
        """Queues the rest of a row's request for a whole window: the short one may have misled the model."""
        self.batch.leave(row)
        row.request.whole_window = True
        self._waiting.appendleft(row.request)
