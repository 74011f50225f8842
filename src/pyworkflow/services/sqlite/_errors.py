"""What SQLite's errors mean: one table, from its result codes to this library's errors.

=======================  =========================  ============================================
code                     error                      what is to be done
=======================  =========================  ============================================
BUSY, LOCKED             `ServiceBusyError`         nothing: another process writes, try again
FULL, IOERR, CANTOPEN    `ServiceUnavailableError`  make room; work goes on by itself then
TOOBIG                   `ServiceError`             keep what is that large elsewhere
READONLY, PERM, AUTH     `StorageError`             make the file and its folder writable
READONLY_DBMOVED         `StorageError`             start anew on the file that is there
CORRUPT, NOTADB, others  `StorageError`             restore a backup
=======================  =========================  ============================================

Whatever the error, the transaction it happened in is undone as a whole, and what was acknowledged
before stays.
"""

from __future__ import annotations

import sqlite3

from pyworkflow.errors import (
    DamagedExecutionError,
    ServiceBusyError,
    ServiceError,
    ServiceUnavailableError,
    StorageError,
)

_SAFE = "what was acknowledged is kept, and this was not written"

_MEANINGS: dict[int, tuple[type[ServiceError], str]] = {
    **dict.fromkeys(
        (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED),
        (
            ServiceBusyError,
            "another process holds the write lock and did not let go in time; try again, and find "
            "the process that keeps a transaction open",
        ),
    ),
    sqlite3.SQLITE_FULL: (
        ServiceUnavailableError,
        f"the disk or the file's quota is full; {_SAFE}; make room and try again",
    ),
    sqlite3.SQLITE_IOERR: (
        ServiceUnavailableError,
        f"the disk refused to read or write; {_SAFE}; check its space, limits and health, and try "
        "again",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        ServiceUnavailableError,
        "the file, or the -wal and -shm files beside it, can't be opened; check that the path is "
        "no folder, that its folder may be written to, and how many files the process has open",
    ),
    sqlite3.SQLITE_TOOBIG: (
        ServiceError,
        f"a value is larger than SQLite takes; {_SAFE}; keep it elsewhere and record where",
    ),
    **dict.fromkeys(
        (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH),
        (StorageError, "the file can't be written to; make it and its folder writable"),
    ),
    sqlite3.SQLITE_READONLY_DBMOVED: (
        StorageError,
        "what this process has open is not the file of that name any more, and this was not "
        "written; stop every process that uses it before it is moved, and open it again",
    ),
    sqlite3.SQLITE_CORRUPT: (
        StorageError,
        "the file is damaged or cut short; stop every process that uses it, and restore a backup",
    ),
    sqlite3.SQLITE_NOTADB: (
        StorageError,
        "the file is no SQLite file; choose another path, or restore a backup",
    ),
}
_UNKNOWN = (StorageError, "the file can't be used; this should be reported as a bug")


def error_of(error: sqlite3.Error, path: str) -> ServiceError:
    """Return the error that stands for what SQLite said of the file at ``path``, its cause."""
    # The lower byte is the primary code, the rest says more about it.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    kind, meaning = _MEANINGS.get(code) or _MEANINGS.get(code & 0xFF, _UNKNOWN)
    fault = kind(f"The file {path!r}: {error} ({_name(error)}): {meaning}")
    fault.__cause__ = error
    return fault


def damaged(path: str, what: object) -> DamagedExecutionError:
    """Return the error for an execution whose rows do not hold what they must."""
    return DamagedExecutionError(
        f"The file {path!r}: {what}; {_MEANINGS[sqlite3.SQLITE_CORRUPT][1]}"
    )


def _name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", type(error).__name__)
