"""SQLite: a newer library than systems have, where a package brings one, and else Python's own.

SQLite before 3.51.3 can lose commits when several connections reset a write-ahead log
(https://sqlite.org/wal.html#walresetbug), so that an older one keeps a rollback journal. A process must not open a file
with both libraries: what one closes loses the other's locks (https://sqlite.org/howtocorrupt.html, 2.2.1).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
else:
    try:
        from pysqlite3 import dbapi2 as sqlite3
    except ImportError:  # it has no wheel for this processor
        import sqlite3

WAL = sqlite3.sqlite_version_info >= (3, 51, 3)
JOURNALS = ("wal", "shm", "journal")  # the names that its files beside the store may end with

__all__ = ["JOURNALS", "WAL", "sqlite3"]
