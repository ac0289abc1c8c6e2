"""SQLite for the job store: a commit that returned outlives every process, and two processes share it.

With a write-ahead log a commit waits for the disk once, if it must outlive a power cut, and else not at all
(https://sqlite.org/pragma.html#pragma_synchronous): a clip whose client waits needs no disk. A power cut then takes the
last such commits and nothing before them. With the rollback journal of an older SQLite all of them outlive it, and each
waits for the disk some five times: TRUNCATE with synchronous=FULL also syncs the end of the journal.
"""

import contextlib
import os
import stat
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transcribe import logs
from transcribe.jobs.commits import Answer, Change, GroupCommit
from transcribe.jobs.sqlite import JOURNALS, WAL, sqlite3

SCHEMA_VERSION = 5
BUSY_SECONDS = 20.0  # how long to wait for the other process's commit
SCRUB_SECONDS = 1.0
JOURNAL_TRY_SECONDS = 0.01
TRANSIENT = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
}
SCHEMA = """
CREATE TABLE jobs (
  id TEXT PRIMARY KEY,
  key_id TEXT NOT NULL,
  status TEXT NOT NULL DEFAULT 'queued',
  options TEXT NOT NULL,
  suffix TEXT NOT NULL,
  created REAL NOT NULL,
  started REAL,
  finished REAL,
  attempts INTEGER NOT NULL DEFAULT 0,
  releases INTEGER NOT NULL DEFAULT 0,
  duration REAL,
  estimate REAL NOT NULL,
  channels INTEGER NOT NULL DEFAULT 1,
  progress REAL NOT NULL DEFAULT 0,
  error TEXT,
  language TEXT,
  coverage TEXT,
  setbacks INTEGER NOT NULL DEFAULT 0,
  not_before REAL NOT NULL DEFAULT 0,
  resume TEXT,
  request TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  detached INTEGER NOT NULL,
  callback TEXT NOT NULL
) STRICT;
CREATE TABLE segments (
  job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  id INTEGER NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (job, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE facts (name TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
CREATE TABLE tickets (job TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
"""
CORRECTIONS = """
CREATE TABLE corrections (
  job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (job, kind, name)
) STRICT, WITHOUT ROWID;
"""
SCHEMA += CORRECTIONS
# What is asked for often costs the same with a hundred thousand jobs. An older version works with them too, so that the
# schema's version does not tell of them.
INDEXES = """
CREATE INDEX IF NOT EXISTS jobs_status ON jobs (status, created);
CREATE INDEX IF NOT EXISTS jobs_key ON jobs (key_id, created);
CREATE INDEX IF NOT EXISTS jobs_repeat ON jobs (key_id, fingerprint, created);
CREATE INDEX IF NOT EXISTS jobs_finished ON jobs (finished);
CREATE INDEX IF NOT EXISTS jobs_callback ON jobs (finished) WHERE callback != ''
"""
MIGRATIONS = {  # from the version to the next one
    1: """
ALTER TABLE jobs ADD COLUMN setbacks INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN not_before REAL NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN resume TEXT;
""",
    2: "CREATE TABLE tickets (job TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;",
    3: "ALTER TABLE jobs ADD COLUMN channels INTEGER NOT NULL DEFAULT 1",
    4: CORRECTIONS,
}


class StoreError(Exception):
    """The store's file cannot be used. The message is one line that names it; `transient` if trying again may help."""

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


def is_transient(error: Exception) -> bool:
    """Whether trying again may succeed: the store is locked, the disk is full or does not answer, memory is short."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, sqlite3.Error) and code is not None and code & 0xFF in TRANSIENT


class Database:
    """One file, a connection for each thread, one writing transaction at a time. Safe for threads and processes."""

    def __init__(self, path: Path, *, busy_seconds: float = BUSY_SECONDS) -> None:
        """Opens or creates the file. A method waits `busy_seconds` for others to commit. Raises StoreError."""
        self.path = path
        self._busy_seconds = busy_seconds
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._guard = threading.Lock()  # over _open
        self._commits = GroupCommit(self._connect, busy_seconds)
        self._watching = threading.Lock()
        try:
            _create(path)
            if not os.access(path, os.W_OK):  # opened all the same, its log would be made with rights that fit nobody
                raise PermissionError(f"not writable for uid {os.geteuid()}")
            self._watcher = self._connect()
            self.write(_migrate)
        except (sqlite3.Error, OSError) as error:
            transient = is_transient(error) or isinstance(error, OSError)
            raise StoreError(f"{path} cannot be used as the job store ({error})", transient=transient) from None

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """What a SELECT finds, all of it: a query that is not read to its end keeps the log growing, and with an older
        SQLite every commit waiting, this thread's own too."""
        return self.reader().execute(query, values).fetchall()

    def reader(self) -> sqlite3.Connection:
        """This thread's connection, for single SELECTs that are read to their end."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
        return connection

    def write(self, change: Change[Answer], *, durable: bool = True) -> Answer:
        """Runs `change` within a writing transaction, which it may share with others; undone when it raises. When this
        returns it outlives every process, and a `durable` one a power cut. A change must not write by another way."""
        return self._commits.write(change, durable=durable)

    def sync(self) -> None:
        """Waits until all that was committed outlives a power cut. Raises sqlite3.OperationalError."""
        try:
            log = os.open(self.path.with_name(f"{self.path.name}-wal"), os.O_RDONLY)
            try:
                os.fdatasync(log)
            finally:
                os.close(log)
        except FileNotFoundError:
            return  # without a log, commits have waited for that
        except OSError as error:
            broken = sqlite3.OperationalError(f"the log cannot be synced: {error.strerror}")
            broken.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise broken from None

    def scrub(self) -> None:
        """Takes what was deleted out of the log as well, unless others read for longer than SCRUB_SECONDS. Never
        raises: what was deleted is so whatever becomes of this."""
        try:
            connection = self.reader()
            connection.execute(f"PRAGMA busy_timeout = {round(1000 * SCRUB_SECONDS)}")
            try:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # without a log, this does nothing
            finally:
                connection.execute(f"PRAGMA busy_timeout = {round(1000 * self._busy_seconds)}")
        except (sqlite3.Error, MemoryError) as error:
            logs.failure("log_not_scrubbed", error)

    def version(self) -> int:
        """A number that changes with every commit of any process or thread."""
        with self._watching:  # data_version ignores a connection's own commits, so this one never writes
            found: int = self._watcher.execute("PRAGMA data_version").fetchone()[0]
        return found

    def close(self) -> None:
        """Closes every thread's connection; the store cannot be used afterwards."""
        with self._guard:
            for connection in self._open:
                connection.close()
            self._open.clear()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=self._busy_seconds, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        with self._guard:
            self._open.append(connection)
        connection.row_factory = sqlite3.Row
        self._set_journal(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")  # deleted transcripts are overwritten, not merely unlinked
        return connection

    def _set_journal(self, connection: sqlite3.Connection) -> None:
        """Sets the kind of journal: for the whole file, where it was another one, for which nobody else may use it at
        that moment. SQLite itself does not wait for them here."""
        end = time.monotonic() + self._busy_seconds
        while True:
            try:
                connection.execute(f"PRAGMA journal_mode = {'WAL' if WAL else 'TRUNCATE'}")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                    raise
            time.sleep(JOURNAL_TRY_SECONDS)


def set_sharing(path: Path, *, shared: bool) -> None:
    """Lets the group write a store that was made before others were to use it, or no longer lets it; what is another
    user's stays. Raises StoreError where others may write and have put something else in the store's place."""
    beside = (path.with_name(f"{path.name}-{journal}") for journal in JOURNALS)
    for name in (path, *beside):  # a journal has the mode that the store once had
        if shared:
            _set_group_write(name, on=True)
        else:
            with contextlib.suppress(StoreError):  # only the service's user can have put it there
                _set_group_write(name, on=False)


def _set_group_write(path: Path, *, on: bool) -> None:
    """Changes the mode of this very file, and of none that it leads to. Raises StoreError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe would block
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"{path} cannot be used as the job store ({error.strerror}); move it away") from None
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid():
            return
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise StoreError(f"{path} cannot be used as the job store (it is not a file of its own); move it away")
        mode = 0o660 if on else stat.S_IMODE(found.st_mode) & ~0o020
        if mode != stat.S_IMODE(found.st_mode):
            os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _create(path: Path) -> None:
    """Makes the file, unless it is there, for whom the umask says; SQLite itself would never let the group write it."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))


def _migrate(connection: sqlite3.Connection) -> None:
    """Creates the tables, or brings older ones to this version. Raises sqlite3.DatabaseError for others."""
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found == 0:
        _run_script(connection, SCHEMA)
    while found in MIGRATIONS:
        _run_script(connection, MIGRATIONS[found])
        found += 1
    if found not in (0, SCHEMA_VERSION):
        message = f"its schema is version {found}, this program knows {SCHEMA_VERSION}; move the file away"
        raise sqlite3.DatabaseError(message)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    _check_tables(connection)
    _run_script(connection, INDEXES)


def _run_script(connection: sqlite3.Connection, script: str) -> None:
    for statement in script.split(";"):  # executescript would commit
        connection.execute(statement)


def _check_tables(connection: sqlite3.Connection) -> None:
    """The tables must be what the version says. Raises sqlite3.DatabaseError."""
    with contextlib.closing(sqlite3.connect(":memory:")) as model:
        model.executescript(SCHEMA)
        for (table,) in model.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            wanted, found = (
                {row[1]: row[2] for row in place.execute(f"PRAGMA table_info({table})")}
                for place in (model, connection)
            )
            differing = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
            if differing:
                message = f"its table {table} is not as version {SCHEMA_VERSION} has it: {', '.join(differing)};"
                raise sqlite3.DatabaseError(f"{message} move the file away")
