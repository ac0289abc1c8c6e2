"""The processes that use the local cloud, which stays while one of them lives."""

import os
import select
import threading
from contextlib import suppress


class Users:
    """Processes of this host, held by descriptors, so that another one with an old number is not taken for a user."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handles: dict[int, int] = {}  # a descriptor by PID

    def add(self, pid: int) -> None:
        """Hold a process; one that has ended, or that this process cannot see, is none."""
        with self._lock, suppress(OSError):
            self._forget_ended()
            if pid not in self._handles:
                self._handles[pid] = os.pidfd_open(pid)

    def living(self) -> bool:
        """Whether any of them lives."""
        with self._lock:
            self._forget_ended()
            return bool(self._handles)

    def _forget_ended(self) -> None:
        poll = select.poll()
        for handle in self._handles.values():
            poll.register(handle, select.POLLIN)
        ended = {handle for handle, _ in poll.poll(0)}
        for pid, handle in list(self._handles.items()):
            if handle in ended:
                os.close(self._handles.pop(pid))
