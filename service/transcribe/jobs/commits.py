"""Group commit: the writing transactions of threads that come at the same time are one transaction of SQLite.

A commit that must be on the disk costs a wait for it, however much is in it. So while one is on its way the changes of
other threads gather, and then go together. Each has a savepoint of its own: one that fails is undone alone. None is
answered before the commit that holds it is made and, unless that need not be, on the disk.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from transcribe.jobs.sqlite import WAL, sqlite3

MOST = 64  # changes in one commit
TRY_SECONDS = 0.0003  # between two tries to begin while another process writes; later they are further apart
LONGEST_TRY_SECONDS = 0.01
SLOWER = 1.03  # times as far, from try to try
YIELD_SECONDS = 0.0005  # between two commits, when one waits already: here another process gets in
Answer = TypeVar("Answer")
Change = Callable[[sqlite3.Connection], Answer]


class StoreBusyError(sqlite3.OperationalError):
    """Others have been writing for too long."""

    sqlite_errorcode = sqlite3.SQLITE_BUSY


@dataclass(eq=False)
class _Write:
    """A change that waits for its commit, until the moment `end`."""

    change: Change[Any]
    end: float
    durable: bool
    moved: threading.Event = field(default_factory=threading.Event)  # it is over, or its thread is to commit
    leads: bool = False  # its thread commits for all that wait
    answer: Any = None
    error: BaseException | None = None


class GroupCommit:
    """The writing transactions of one process. Any thread may call `write`."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], busy_seconds: float) -> None:
        """`connect` makes the connection for them; a write waits `busy_seconds` for others to commit."""
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._busy_seconds = busy_seconds
        self._guard = threading.Lock()
        self._waiting: deque[_Write] = deque()
        self._led = False  # some thread commits, or was told to

    def write(self, change: Change[Answer], *, durable: bool = True) -> Answer:
        """Runs `change` within a transaction; undone when it raises. When this returns it outlives every process, and
        a `durable` one a power cut as well; another one is lost in that only together with all that came later."""
        mine = _Write(change, time.monotonic() + self._busy_seconds, durable)
        with self._guard:
            self._waiting.append(mine)
            if not self._led:
                self._led = mine.leads = True
        if not mine.leads:
            self._wait(mine)
        if mine.leads:
            self._lead(mine.end)
        if mine.error is not None:
            raise mine.error
        answer: Answer = mine.answer
        return answer

    def _wait(self, mine: _Write) -> None:
        """Returns when the change is over, or its thread is to commit. Raises StoreBusyError."""
        if not mine.moved.wait(self._busy_seconds):
            with self._guard:
                if mine in self._waiting and not mine.leads:
                    self._waiting.remove(mine)
                    raise StoreBusyError("the job store is busy")
            mine.moved.wait()  # its commit is on its way
        if mine.leads:
            time.sleep(YIELD_SECONDS)

    def _lead(self, end: float) -> None:
        """Commits what waits by now, this thread's change first; then the thread that came next leads."""
        batch: list[_Write] = []
        try:
            self._commit(batch, end)
        except BaseException as error:
            self._undo()
            with self._guard:
                batch = batch or [self._waiting.popleft()]
            others = error if isinstance(error, Exception) else StoreBusyError("the job store is being closed")
            for one in batch:
                one.error = one.error or others
            batch[0].error = error
        with self._guard:
            following = self._waiting[0] if self._waiting else None
            self._led = following is not None
            if following:
                following.leads = True
        for one in batch:
            one.moved.set()
        if following:
            following.moved.set()

    def _commit(self, batch: list[_Write], end: float) -> None:
        """Fills `batch` once no other process writes, which may take until `end`, and commits it."""
        with self._guard:
            durable = not WAL or any(one.durable for one in self._waiting)
        connection = self._begun(end, durable=durable)
        with self._guard:
            while len(batch) < MOST and self._waiting and (durable or not self._waiting[0].durable):
                batch.append(self._waiting.popleft())
        for one in batch:
            _apply(connection, one, alone=len(batch) == 1)
        connection.execute("COMMIT")

    def _begun(self, end: float, *, durable: bool) -> sqlite3.Connection:
        """The connection, in a transaction whose commit waits for the disk if it is to be `durable`. It asks often
        whether another process is through, and SQLite's own waiting would ask ever more rarely."""
        connection = self._connection = self._connection or self._connect()
        pause = TRY_SECONDS
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        try:
            while True:
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    return connection
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                        raise
                time.sleep(pause)
                pause = min(SLOWER * pause, LONGEST_TRY_SECONDS)
        finally:
            connection.execute(f"PRAGMA busy_timeout = {round(1000 * self._busy_seconds)}")

    def _undo(self) -> None:
        """Ends the transaction, if there is one."""
        if self._connection is None:
            return
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:  # the next write begins with a new one, and must not find the store locked by this one
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


def _apply(connection: sqlite3.Connection, one: _Write, *, alone: bool) -> None:
    """Makes the change; if it fails, undoes it. Raises what made SQLite give up the whole transaction."""
    if not alone:
        connection.execute("SAVEPOINT change")
    try:
        one.answer = one.change(connection)
    except BaseException as error:
        if alone or not connection.in_transaction or not isinstance(error, Exception):
            raise
        one.error = error
        connection.execute("ROLLBACK TO change")
    if not alone:
        connection.execute("RELEASE change")
