"""SQLite as the job store needs it: a commit that returned is on the disk, whoever dies, and two processes share it.

Rollback journal, not WAL: SQLite before 3.51.3 can lose WAL commits when several connections reset it
(https://sqlite.org/wal.html#walresetbug). TRUNCATE with synchronous=FULL also syncs the end of the journal, so a commit
survives a power cut at once; DELETE would need synchronous=EXTRA for that.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCHEMA_VERSION = 1
BUSY_SECONDS = 20.0  # how long to wait for the other process's commit
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
  progress REAL NOT NULL DEFAULT 0,
  error TEXT,
  language TEXT,
  coverage TEXT,
  request TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  detached INTEGER NOT NULL,
  callback TEXT NOT NULL
) STRICT;
CREATE INDEX jobs_status ON jobs (status, created);
CREATE INDEX jobs_key ON jobs (key_id, created);
CREATE TABLE segments (
  job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  id INTEGER NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (job, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE facts (name TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
"""


class StoreError(Exception):
    """The store's file cannot be used. The message is one line that names it."""


class Database:
    """One file, a connection for each thread, one writing transaction at a time. Safe for threads and processes."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file. Raises StoreError."""
        self.path = path
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._guard = threading.Lock()  # over _open
        self._writing = threading.Lock()  # threads queue here and not in SQLite's busy handler, which polls
        self._watching = threading.Lock()
        try:
            self._watcher = self._connect()
            self._migrate()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{path} cannot be used as the job store ({error})") from None

    def reader(self) -> sqlite3.Connection:
        """This thread's connection, for single SELECTs."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
        return connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A writing transaction: durable when the block is left, undone when it raises."""
        connection = self.reader()
        with self._writing:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def version(self) -> int:
        """Changes whenever any process or thread has committed; nothing else about it means anything."""
        with self._watching:  # data_version only tells of other connections, so this one never writes
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
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        with self._guard:
            self._open.append(connection)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = TRUNCATE")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")  # deleted transcripts are overwritten, not merely unlinked
        return connection

    def _migrate(self) -> None:
        with self.transaction() as connection:
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            if found == SCHEMA_VERSION:
                return
            if found != 0:
                message = f"its schema is version {found}, this program knows {SCHEMA_VERSION}; move the file away"
                raise sqlite3.DatabaseError(message)
            for statement in SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
