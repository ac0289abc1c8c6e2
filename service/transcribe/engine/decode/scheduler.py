"""Takes chunks in, keeps the decoder's batch full, gives results out. One thread may use it."""

from collections import deque

import torch

from transcribe.engine.chunks import Chunk, ChunkResult, EngineError
from transcribe.engine.cpu.crowding import Crowding
from transcribe.engine.cuda.graphs import Capture
from transcribe.engine.decode.batch import Batch
from transcribe.engine.decode.segments import Finisher
from transcribe.engine.decode.state import Row, Task
from transcribe.engine.model.features import WINDOW_FRAMES, LogMel, frames_for
from transcribe.engine.model.whisper import Model
from transcribe.types import SAMPLE_RATE

BURST_STEPS = 8  # tokens decoded in one `step`
BRIEF_SECONDS = 8.0  # a chunk this short is decoded before a much longer one is encoded
MUCH_LONGER = 2.0


class Runner:
    """Continuous batching over a model."""

    def __init__(self, model: Model, max_chunks: int) -> None:
        self._model = model
        self._mel = LogMel(model.shape.bands, model.device)
        self._batch = Batch(model.decoder, model.special, max_chunks, model.heard(max_chunks))
        self._finisher = Finisher(model.shape, model.special, model.text, word_times=model.word_times)
        self._waiting: deque[Task] = deque()
        self._crowding = Crowding() if model.device == "cpu" else None

    def record(self, capture: Capture) -> None:
        """Records the decoder's greedy steps by `capture` from now on: see replay.py."""
        self._batch.record(capture)

    def room(self) -> int:
        return max(0, self._batch.room - len(self._waiting))

    def add(self, chunk: Chunk) -> None:
        language = chunk.options.language
        multilingual = self._model.special.multilingual
        if language is not None and language not in (self._model.special.languages if multilingual else ("en",)):
            raise EngineError(f"the model does not know the language {language!r}")
        if chunk.options.task not in (self._model.special.tasks if multilingual else ("transcribe",)):
            raise EngineError(f"the model cannot {chunk.options.task}")
        self._waiting.append(Task(chunk, language=language if self._model.special.multilingual else "en"))

    @torch.inference_mode()  # the cache was written in it, and cannot be changed outside
    def discard(self, key: object) -> None:
        self._waiting = deque(task for task in self._waiting if task.chunk.key != key)
        for row in [row for row in self._batch.rows if row.task.chunk.key == key]:
            self._batch.leave(row)

    @torch.inference_mode()
    def step(self) -> list[ChunkResult]:
        if self._crowding is not None:
            self._crowding.look()
        if self._waiting and self._batch.room and not self._in_a_hurry():
            return self._settle(self._start(self._waiting.popleft()))
        results: list[ChunkResult] = []
        for _ in range(BURST_STEPS):
            if not self._batch.rows or results:
                break
            finished = self._batch.step()
            looping = [row for row in self._batch.rows if row not in finished and self._finisher.loops(row)]
            results += self._settle(finished + looping)
        return results

    def _in_a_hurry(self) -> bool:
        """Whether a brief chunk would wait in the middle of its text for a much longer one to be encoded."""
        briefest = min((row.task.seconds for row in self._batch.rows), default=BRIEF_SECONDS)
        return briefest < BRIEF_SECONDS and self._waiting[0].seconds > MUCH_LONGER * briefest

    def _start(self, task: Task) -> list[Row]:
        frames = WINDOW_FRAMES if task.whole_window else frames_for(len(task.audio))
        task.whole_window = frames == WINDOW_FRAMES
        encoded = self._model.encoder(self._mel(task.audio, frames).to(self._model.wide))
        place = self._batch.listen(encoded)
        if task.language is None:
            task.language = self._batch.language(place, task.options.candidates)
        options = task.options
        prompt = self._model.text.prompt(options.prompt, options.hotwords) if not task.segments else []
        prefix = [*prompt, *self._model.special.opening(task.language, options.task)]
        return self._batch.join(Row(task, prefix, options.temperature))

    def _settle(self, finished: list[Row]) -> list[ChunkResult]:
        """Rows that are good leave; doubtful ones start over; what is not heard to its end is queued again."""
        results = []
        while finished:
            row = finished.pop()
            quality = self._finisher.quality(row)
            if not row.task.whole_window and (quality.doubtful or not row.complete):
                self._again(row)
                continue
            if quality.doubtful:
                row.remember(quality.trust)
                if row.warmer():
                    finished += self._batch.retry(row)
                    continue
                row.settle()
                quality = self._finisher.quality(row)
                row.complete = True  # no temperature helped: it is not heard again
            resume = self._finisher.segments(row, quality, self._batch)
            task = row.task
            if resume is None:
                self._batch.leave(row)
                results.append(ChunkResult(task.chunk.key, task.language or "en", tuple(task.segments)))
                continue
            task.offset += round(resume * SAMPLE_RATE)
            self._again(row)
        return results

    def _again(self, row: Row) -> None:
        """Hears the rest of a row's task once more, in a whole window: the short one may have misled the model."""
        self._batch.leave(row)
        row.task.whole_window = True
        self._waiting.appendleft(row.task)
