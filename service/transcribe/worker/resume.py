"""Continues a recording where an earlier attempt stopped.

A recording is cut into the same chunks every time, so the chunks that are done already can be skipped. The
assembly's state is stored with each commit of segments.
"""

from collections.abc import Iterable, Iterator

from transcribe.audio.chunking import AudioChunk
from transcribe.worker.assembly import Assembly

SAME_CUT_SECONDS = 0.01


class ChunksChangedError(Exception):
    """The chunks differ from those of the earlier attempt, for instance after an upgrade: the job must start over."""


class DoneChunks:
    """Skips the chunks whose text an earlier attempt committed."""

    def __init__(self, assembly: Assembly) -> None:
        self._left = assembly.done
        self._end = assembly.cut

    def skip(self, chunks: Iterable[AudioChunk]) -> Iterator[AudioChunk]:
        """Those of the next chunks that are still to do. Raises ChunksChangedError."""
        for chunk in chunks:
            if not self._left:
                yield chunk
                continue
            self._left -= 1
            if not self._left and abs(chunk.end - self._end) > SAME_CUT_SECONDS:
                raise ChunksChangedError

    def check_all_seen(self) -> None:
        """Call it at the end of the recording. Raises ChunksChangedError if it had fewer chunks than were done."""
        if self._left:
            raise ChunksChangedError
