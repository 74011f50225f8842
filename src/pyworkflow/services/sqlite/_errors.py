"""Error mapping: from SQLite's result codes to this library's errors.

=======================  =========================  ============================================
code                     error                      remedy
=======================  =========================  ============================================
BUSY, LOCKED             `ServiceBusyError`         try again: another process is writing
FULL, IOERR, CANTOPEN    `ServiceUnavailableError`  make room; work then continues by itself
TOOBIG                   `ServiceError`             store the large value elsewhere
READONLY, PERM, AUTH     `StorageError`             make the file and its folder writable
READONLY_DBMOVED         `StorageError`             restart on the file that is there
CORRUPT, NOTADB, others  `StorageError`             restore a backup
=======================  =========================  ============================================

Any error rolls back its whole transaction; what was acknowledged before is kept.
"""

from __future__ import annotations

import sqlite3

from pyworkflow.errors import (
    DamagedExecutionError,
    ServiceBusyError,
    ServiceError,
    ServiceUnavailableError,
    StorageError,
    UsageError,
)


def check_path(path: str) -> None:
    """Raise `UsageError` for a name under which SQLite opens no file."""
    try:
        is_name = b"\0" not in path.encode()
    except UnicodeEncodeError:
        is_name = False
    if not is_name:
        raise UsageError(
            f"Expected the path of a file as UTF-8 text without a zero byte, found {path!r}; "
            "rename it"
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
        "not a folder, that its folder may be written to, and how many files the process has open",
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
        "the file is not a SQLite file; choose another path, or restore a backup",
    ),
}
_UNKNOWN = (StorageError, "the file can't be used; this should be reported as a bug")


def error_of(error: sqlite3.Error, path: str) -> ServiceError:
    """Return our error for SQLite's ``error`` about the file at ``path``, with that as cause."""
    # The lower byte is the primary code; the rest gives details.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    kind, meaning = _MEANINGS.get(code) or _MEANINGS.get(code & 0xFF, _UNKNOWN)
    fault = kind(f"The file {path!r}: {error} ({_name(error)}): {meaning}")
    fault.__cause__ = error
    return fault


def damaged(path: str, what: object) -> DamagedExecutionError:
    """Return the error for an execution whose rows are damaged."""
    return DamagedExecutionError(
        f"The file {path!r}: {what}; {_MEANINGS[sqlite3.SQLITE_CORRUPT][1]}"
    )


def _name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", type(error).__name__)
