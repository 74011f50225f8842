"""The file: its tables, its version, and how a connection to it is set up.

An execution is one row of ``executions``, one row of ``operations`` for each operation, and one row
of ``history`` for each checkpoint that changed it. The last two have one integer as their key: the
execution's number in the upper 32 bits, a place or line number in the lower. So the rows of an
execution are adjacent, are read in order by one scan, and are found without an index.

The file declares its program (``application_id``) and its version (``user_version``). A file of
another program or of a newer version is refused before anything is written to it, and so is one
whose tables are not those of `_TABLES` (see `_schema_check`). A newer PyWorkflow may upgrade the
file while an older one has it open: `check_form` is called again when others have written.

PRAGMAs, and why:

* ``journal_mode=WAL``: a commit is one append and one fsync, and readers never wait for a writer.
* ``synchronous=FULL``: each commit is on the disk when it returns. ``NORMAL`` syncs at checkpoints
  of the WAL only: a killed process loses nothing, a power cut the last moments.
* ``fullfsync`` (with FULL): on macOS an fsync alone leaves data in the drive's cache.
* ``busy_timeout``: a write waits for other processes, whose writes take milliseconds.
* ``journal_size_limit``: a WAL that once grew is truncated later.
* ``cell_size_check``: a damaged page is reported when it is read, not copied.
* ``trusted_schema=OFF``: the schema of a foreign file can't run functions.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from pyworkflow.errors import StorageError
from pyworkflow.services.sqlite._errors import error_of
from pyworkflow.services.sqlite._schema_check import difference

APPLICATION_ID = 0x50795766
SCHEMA_VERSION = 2
MEMORY = ":memory:"
_ROW_BYTES = 64 * 1024
"""Room in a row for everything except a payload."""

_NO_WAL_MODE = 1
"""A file's "write version": https://www.sqlite.org/fileformat.html"""

_TABLES = (
    """
    CREATE TABLE executions (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        workflow TEXT NOT NULL,
        name TEXT NOT NULL,
        status TEXT NOT NULL,
        version INTEGER NOT NULL,
        tokens INTEGER NOT NULL,
        lines INTEGER NOT NULL,
        unread BLOB,
        owner TEXT,
        lease_ms INTEGER,
        wake_ms INTEGER,
        not_before_ms INTEGER,
        deadline_ms INTEGER,
        troubles INTEGER NOT NULL,
        problem BLOB,
        result TEXT,
        parent_id TEXT,
        parent_operation TEXT
    )
    """,
    "CREATE INDEX named ON executions (name, workflow)",
    "CREATE INDEX standing ON executions (status)",
    "CREATE INDEX due ON executions (workflow, wake_ms) WHERE wake_ms IS NOT NULL",
    "CREATE INDEX leased ON executions (lease_ms, owner) WHERE lease_ms IS NOT NULL",
    "CREATE INDEX limited ON executions (deadline_ms) WHERE deadline_ms IS NOT NULL",
    """
    CREATE TABLE owners (
        owner TEXT PRIMARY KEY,
        host TEXT NOT NULL,
        pid INTEGER NOT NULL
    )
    """,
    "CREATE TABLE operations (key INTEGER PRIMARY KEY, record BLOB NOT NULL, deadlines BLOB)",
    "CREATE TABLE history (key INTEGER PRIMARY KEY, lines BLOB NOT NULL)",
)

"""The tables of version 1."""

_UPGRADES: dict[int, tuple[str, ...]] = {
    1: (
        "ALTER TABLE executions ADD COLUMN losses INTEGER",
        "ALTER TABLE owners ADD COLUMN started INTEGER",
        "ALTER TABLE owners ADD COLUMN report BLOB",
        "CREATE INDEX suspected ON executions (workflow, wake_ms)"
        " WHERE losses IS NOT NULL AND wake_ms IS NOT NULL",
        "DROP INDEX standing",
        "CREATE INDEX listed ON executions (status, workflow)",
        "CREATE INDEX troubled ON executions (workflow) WHERE problem IS NOT NULL",
    ),
}
"""The statements that upgrade a file of each version to the next. New columns come last: others are
read by their names. A process of the older version that has the file open stops at its next
claim."""


def _script(version: int) -> tuple[str, ...]:
    """Return the statements that create a file of ``version``."""
    return (*_TABLES, *(made for older in range(1, version) for made in _UPGRADES[older]))


def largest_payload(connection: sqlite3.Connection) -> int:
    """Return the maximum size of a payload in bytes, which leaves room for its row."""
    return connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) - _ROW_BYTES


def open_file(path: str, synchronous: str, busy_timeout_ms: int) -> sqlite3.Connection:
    """Return a connection to the file, creating it if necessary.

    Raises `StorageError` when the file can't be used, `ServiceUnavailableError` when it is busy.
    """
    folder = Path(path).parent
    if path != MEMORY and not folder.is_dir():
        raise StorageError(
            f"Expected a folder for the file {path!r}, found none at {str(folder)!r}; create it, "
            "or choose another path"
        )
    connection = None
    try:
        connection = sqlite3.connect(
            path,
            timeout=busy_timeout_ms / 1000,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.text_factory = _text
        _set_up(connection, synchronous)
        _check_version(connection, path)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.Error):
            raise error_of(error, path) from error
        raise
    return connection


def check_wal(path: str) -> None:
    """Raise `StorageError` if the WAL was removed, or belongs to another file.

    A removed WAL may have contained acknowledged changes. SQLite creates the -wal file before the
    -shm file and removes it later, so a -shm file never exists alone. The check is made twice,
    since others may open and close the file during the first.
    """
    file = os.path.realpath(path)
    wal, shm = Path(f"{file}-wal"), Path(f"{file}-shm")
    if not (Path(file).exists() and Path(file).stat().st_size):
        return  # a new file, beside what a former one has left
    _check_wal_is_ours(file, wal)
    if not any(wal.exists() or not shm.exists() for _ in range(2)):
        raise StorageError(
            f"Expected {str(wal)!r}, with the newest changes, beside {shm.name!r}, and it "
            "is gone; put it back, or give those changes up by also removing the -shm file"
        )


def _check_wal_is_ours(file: str, wal: Path) -> None:
    """Raise `StorageError` for a WAL beside a file that is not in WAL mode, such as a backup.

    SQLite would mix its pages, those of the file that was there before, into this one. A file that
    is opened here is put into WAL mode before its WAL exists; so the WAL is checked first.
    """
    if not (wal.exists() and wal.stat().st_size):
        return
    try:
        header = _header(file)
    except OSError:  # SQLite reports the error
        return
    if header[:16] == b"SQLite format 3\0" and header[18] == _NO_WAL_MODE:
        raise StorageError(
            f"Expected no {str(wal)!r} beside {file!r}, a backup that was not opened since it was "
            "made, and found one, which holds changes of the file that was there before: they "
            "would be mixed into the backup. Nothing was changed. To go on with the backup, remove "
            "that and the -shm file; to go on with what was there before, put its file back"
        )


_read: dict[tuple[int, int], int] = {}
"""The open descriptors for reading headers, by device and file."""


def _header(file: str) -> bytes:
    """Return the first bytes of a file.

    Closing a descriptor would release all locks that this process has on the file, and a connection
    that is not ours may have some. So descriptors are closed only after the file was removed.
    """
    if os.name != "posix":
        with Path(file).open("rb") as opened:
            return opened.read(20)
    for place, descriptor in list(_read.items()):
        if not os.fstat(descriptor).st_nlink and _read.pop(place, None) is not None:
            os.close(descriptor)
    found = os.stat(file)
    descriptor = _read.get((found.st_dev, found.st_ino), -1)
    if descriptor < 0:
        descriptor = os.open(file, os.O_RDONLY)
        found = os.fstat(descriptor)
        _read.setdefault((found.st_dev, found.st_ino), descriptor)
    return os.pread(descriptor, 20, 0)


def _text(cell: bytes) -> str | bytes:
    """Return the text of a cell; a damaged text, which can't be decoded, is returned as bytes."""
    try:
        return cell.decode()
    except UnicodeDecodeError:
        return cell


def _set_up(connection: sqlite3.Connection, synchronous: str) -> None:
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")
    connection.execute("PRAGMA journal_size_limit=67108864")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    if synchronous == "FULL":
        connection.execute("PRAGMA fullfsync=ON")
        connection.execute("PRAGMA checkpoint_fullfsync=ON")


def _check_version(connection: sqlite3.Connection, path: str) -> None:
    # Under the write lock, so that only one process creates the tables.
    connection.execute("BEGIN IMMEDIATE")
    try:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        is_new = not tables and not application_id
        if is_new:
            for statement in _script(SCHEMA_VERSION):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        else:
            _check_ours(application_id, version, path)
            _check_tables(connection, path, version)
            for older in range(version, SCHEMA_VERSION):
                for statement in _UPGRADES[older]:
                    connection.execute(statement)
        # A read-only file fails here, not at BEGIN.
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT" if is_new or version < SCHEMA_VERSION else "ROLLBACK")
    _use_wal(connection, path)


def _check_ours(application_id: int, version: int, path: str) -> None:
    if application_id != APPLICATION_ID:
        raise StorageError(
            f"Expected a file of PyWorkflow, found {path!r}, which is an SQLite file of another "
            "program; choose another path"
        )
    if version != SCHEMA_VERSION and version not in _UPGRADES:
        by, remedy = ("a newer", "upgrade to") if version > SCHEMA_VERSION else ("an older", "use")
        raise StorageError(
            f"Expected a file of version {SCHEMA_VERSION}, found {path!r}, which has version "
            f"{version}: it was written by {by} PyWorkflow; {remedy} that one, or choose another "
            "path. Nothing was changed, and what is recorded is kept"
        )


def _check_tables(connection: sqlite3.Connection, path: str, version: int) -> None:
    found = difference(connection, _script(version))
    if found is not None:
        raise StorageError(
            f"Expected the tables that PyWorkflow makes in the file {path!r}, found {found}; "
            "none of it was run. Undo that by hand, restore a backup, or choose another path"
        )


def form_of(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return the file's version and its schema's, one of which changes with every change."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (schema,) = connection.execute("PRAGMA schema_version").fetchone()
    return version, schema


def check_form(connection: sqlite3.Connection, path: str) -> None:
    """Raise `StorageError` if the version or the tables of an open file have changed.

    Within a transaction the answer is valid until the transaction ends.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != SCHEMA_VERSION:
        raise StorageError(
            f"The file {path!r} was changed to version {version} by another PyWorkflow while this "
            f"process, which knows version {SCHEMA_VERSION}, had it open: this process writes "
            "nothing more, and what is recorded is kept. Start it again with the PyWorkflow that "
            "changed the file"
        )
    _check_tables(connection, path, SCHEMA_VERSION)


def _use_wal(connection: sqlite3.Connection, path: str) -> None:
    """Set the journal mode, which is a persistent property of the file."""
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
            break
        except sqlite3.OperationalError as error:
            # Changing the mode does not wait for other processes; taking the write lock does.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    if mode != "wal" and path != MEMORY:
        raise StorageError(
            f"Expected the file {path!r} to be on a local disk, found a file system on which "
            "processes can't share memory; move it to a local disk"
        )
