"""Backup: a copy of one state of a file, made while everything runs, complete or absent.

A separate connection sees one state of the file until the copy is complete, whatever is written
meanwhile, and takes no lock that a writer waits for. (The -wal file can't be emptied in that time,
and grows.) Pages are copied a few at a time and synced as they are written, so that no commit waits
for very many of them.

The copy is made under another name in the same folder and renamed when it is on the disk. It is not
in WAL mode, unlike every file that was opened here. So a -wal file beside a restored copy can only
belong to the file that was there before (`_schema.check_wal`).
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pyworkflow.errors import StorageError, UsageError
from pyworkflow.services.sqlite._errors import check_path, error_of
from pyworkflow.services.sqlite._forks import Section
from pyworkflow.services.sqlite._schema import check_form

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    OnProgress: TypeAlias = Callable[[int, int], None]
    """Called with the number of bytes copied and the total."""

STEP_PAGES = 64
SYNC_STEPS = 32
"""Number of steps between two syncs of the copy: 8 MB."""

_BESIDE = ("-wal", "-shm", "-journal")


class StoppedError(Exception):
    """The copy was cancelled."""


def back_up(
    path: str, destination: str, on_progress: OnProgress | None, stop: threading.Event
) -> None:
    """Copy the file at ``path`` to ``destination``, which must not exist.

    Raises `UsageError` if ``destination`` exists, names no file or its folder does not exist;
    `ServiceError` if the file can't be read or the copy can't be written; `StoppedError` after
    ``stop`` was set.
    """
    check_path(destination)
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
        # Opened first and closed last; the file is new, so no other process has it open.
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
                f"expected nothing at {f'{place}{end}'!r}, found a file: a backup never replaces "
                "a file; remove it, or choose another name"
            )


def _copy_pages(
    source: sqlite3.Connection, partial: Path, progress: Callable[[int, int, int], None]
) -> None:
    (page_size,) = source.execute("PRAGMA page_size").fetchone()

    def on_step(_: int, remaining: int, total: int) -> None:
        progress(page_size, remaining, total)

    with closing(sqlite3.connect(partial)) as target:
        # An unfinished copy is deleted, so it needs no protection.
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
    """Give the copy its final name, unless it was taken meanwhile."""
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
