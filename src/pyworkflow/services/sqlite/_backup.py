"""A copy of a file while everything runs: of one state, and there as a whole or not at all.

A connection of its own sees one state of the file until it is done, however long that takes and
whatever is written meanwhile: it takes no lock that a writer waits for. (The -wal file can't be
emptied in that time, and grows.) Pages are copied a few at a time, and brought to the disk as they
come, so that no commit has to wait for a flood of them.

The copy is made under another name in the same folder, and gets its own when it is on the disk. It
is not in WAL mode, as no file is that was opened here: so a -wal file beside one that was put back
can only be that of the file which was there before (`schema.check_wal`).
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pyworkflow.errors import StorageError, UsageError
from pyworkflow.services.sqlite._errors import error_of
from pyworkflow.services.sqlite._forks import Section
from pyworkflow.services.sqlite._schema import check_form

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    OnProgress: TypeAlias = Callable[[int, int], None]
    """Is given how many bytes were copied, and how many there are."""

STEP_PAGES = 64
SYNC_STEPS = 32
"""After how many steps what was copied is brought to the disk: 8 MB."""

_BESIDE = ("-wal", "-shm", "-journal")


class StoppedError(Exception):
    """Nobody waits for the copy any more."""


def back_up(
    path: str, destination: str, on_progress: OnProgress | None, stop: threading.Event
) -> None:
    """Copy the file at ``path`` to ``destination``, where nothing may be.

    Raises `UsageError` if something is there, or no folder for it; `ServiceError` when the one file
    can't be read or the other not be written; `StoppedError` after ``stop`` was set.
    """
    section = Section(path, patience_seconds=0)
    with section.lock:
        source = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=rw", uri=True, timeout=30)
        source.isolation_level = None
        with closing(source):
            source.execute("PRAGMA trusted_schema=OFF")
            source.execute("BEGIN")
            check_form(source, path)
            _copy_to(source, destination, on_progress, stop)


def _copy_to(
    source: sqlite3.Connection,
    destination: str,
    on_progress: OnProgress | None,
    stop: threading.Event,
) -> None:
    place = Path(destination).absolute()
    _check_free(place)
    partial = place.with_name(f"{place.name}.partial-{secrets.token_hex(4)}")
    try:
        # Opened first, and closed last: nobody else has it.
        file = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            _copy_pages(source, partial, _reporting(file, on_progress, stop))
            _leave_wal_mode(partial)
            os.fsync(file)
        finally:
            os.close(file)
        _put(partial, place)
    except sqlite3.Error as error:
        raise error_of(error, destination) from error
    except OSError as error:
        raise StorageError(f"The backup {destination!r} can't be written: {error}") from error
    finally:
        for end in ("", *_BESIDE):
            with suppress(OSError):
                Path(f"{partial}{end}").unlink()


def _check_free(place: Path) -> None:
    if not place.parent.is_dir():
        raise UsageError(
            f"expected a folder for the backup {str(place)!r}, found none at "
            f"{str(place.parent)!r}; create it, or choose another place"
        )
    for end in ("", *_BESIDE):
        if os.path.lexists(f"{place}{end}"):
            raise UsageError(
                f"expected nothing at {f'{place}{end}'!r}, found a file: a backup replaces none; "
                "remove it, or choose another name"
            )


def _copy_pages(
    source: sqlite3.Connection, partial: Path, progress: Callable[[int, int, int], None]
) -> None:
    (page_size,) = source.execute("PRAGMA page_size").fetchone()

    def on_step(_: int, remaining: int, total: int) -> None:
        progress(page_size, remaining, total)

    with closing(sqlite3.connect(partial)) as target:
        # A copy that is not finished is thrown away: nothing protects it.
        target.execute("PRAGMA journal_mode=OFF")
        target.execute("PRAGMA synchronous=OFF")
        target.execute("PRAGMA cache_size=-1024")
        source.backup(target, pages=STEP_PAGES, progress=on_step)


def _reporting(
    file: int, on_progress: OnProgress | None, stop: threading.Event
) -> Callable[[int, int, int], None]:
    steps: Iterator[int] = iter(range(1, 1 << 62))

    def progress(page_size: int, remaining: int, total: int) -> None:
        if stop.is_set():
            raise StoppedError
        if next(steps) % SYNC_STEPS == 0:
            os.fsync(file)
        if on_progress is not None:
            on_progress((total - remaining) * page_size, total * page_size)

    return progress


def _leave_wal_mode(partial: Path) -> None:
    with closing(sqlite3.connect(partial)) as target:
        target.execute("PRAGMA journal_mode=DELETE")


def _put(partial: Path, place: Path) -> None:
    """Give the copy its name, unless somebody has taken that meanwhile."""
    try:
        os.link(partial, place)
    except FileExistsError:
        _check_free(place)
        raise
    except OSError:  # a file system without hard links
        _check_free(place)
        partial.rename(place)
    if os.name == "posix":
        folder = os.open(place.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
