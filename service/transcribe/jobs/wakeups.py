"""Wakes a process that waits for the job store: a byte through a named pipe beside the store's file.

The store is the truth, and who waits looks at it from time to time as well. So a wake-up that is lost, because nobody
listened or the pipe could not be made, costs that time and nothing else. A pipe, since it passes between units that
share no network, and has no limit on the length of its path.
"""

import contextlib
import os
import select
import stat
import threading
from pathlib import Path

MODE = 0o660  # less what the umask takes


class Listener:
    """The end of the process that waits; one a pipe. Where the pipe cannot be made, only `wake` wakes it."""

    def __init__(self, path: Path) -> None:
        self._inner = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._ends = [self._inner[0]]
        with contextlib.suppress(OSError):  # then the next look at the store has to do
            with contextlib.suppress(FileNotFoundError):
                path.unlink()  # an older process's, maybe with another mode
            os.mkfifo(path, MODE)
            self._ends.append(_opened(path, os.O_RDWR))  # writing too: else it would be at its end without writers
        self._poll = select.poll()
        for end in self._ends:
            self._poll.register(end, select.POLLIN)

    def wait(self, seconds: float) -> None:
        """Returns when somebody rings, or `wake` is called or was called since the last time, or after so long."""
        for end, _ in self._poll.poll(1000 * seconds):
            with contextlib.suppress(BlockingIOError):
                os.read(end, 4096)

    def wake(self) -> None:
        """Ends `wait`; from any thread of this process."""
        with contextlib.suppress(BlockingIOError):  # it is full, so it wakes anyway
            os.write(self._inner[1], b"!")

    def close(self) -> None:
        """Closes the pipe; nobody may wait any more."""
        for end in {*self._ends, *self._inner}:
            os.close(end)


class Bell:
    """The end of a process that wakes the other. Any thread may ring; it never waits and never fails."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._end: int | None = None

    def ring(self) -> None:
        """Wakes who listens, if anybody does."""
        with self._guard:
            for _ in range(2):  # the pipe may be that of a process that has ended
                try:
                    if self._end is None:
                        self._end = _opened(self._path, os.O_WRONLY)
                    os.write(self._end, b"!")
                    return
                except BlockingIOError:  # it is full, so it wakes anyway
                    return
                except OSError:
                    if self._end is None:
                        return
                    self._close()

    def close(self) -> None:
        """Closes the pipe; `ring` opens it again."""
        with self._guard:
            if self._end is not None:
                self._close()

    def _close(self) -> None:
        assert self._end is not None
        os.close(self._end)
        self._end = None


def _opened(path: Path, mode: int) -> int:
    """The pipe, and nothing else that may be there. Raises OSError, also if nobody listens."""
    end = os.open(path, mode | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISFIFO(os.fstat(end).st_mode):
        os.close(end)
        raise OSError(f"{path} is no pipe")
    return end
