"""Forks of a process that has files open, which SQLite itself does not support.

SQLite records, for each file, the locks of its process. A child inherits these records but not the
locks: a file that it opens under the same name would be used as if it were locked, and a lock that
the parent had at the fork would never be released. Neither would a mutex of SQLite that another
thread had.

So a fork waits until no thread of ours is in SQLite (`Section`), and the child closes all inherited
connections at once. No operation is active then, and the parent's own locks keep the closing from
touching the file. If a fork can't wait for a section, its file is unusable in the child, which
raises an error.
"""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

from pyworkflow.errors import UsageError
from pyworkflow.services.processes import AtFork, at_fork

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

PATIENCE_SECONDS = 5.0
"""How long a fork waits for a section, which may be waiting for another process's lock."""


class Section:
    """Its ``lock`` is taken while SQLite uses ``connection``, or opens and closes connections."""

    def __init__(
        self,
        path: str,
        connection: sqlite3.Connection | None = None,
        *,
        patience_seconds: float | None = None,
    ) -> None:
        self.path = path
        self.patience_seconds = patience_seconds
        self._connection = connection
        self.lock = threading.Lock()
        if connection is not None:  # made within another section, which a fork waits for
            _add(self)
            return
        with _forking:
            _add(self)

    def wait(self, seconds: float) -> bool:
        """Take the lock for a fork; return whether that succeeded in time."""
        return self.lock.acquire(timeout=seconds)

    def go_on(self) -> None:
        """Release the lock after a fork."""
        self.lock.release()

    def leave(self) -> None:
        """Forget the closed connection."""
        self._connection = None

    def drop(self) -> None:
        """Close the child's copy of the connection."""
        if self._connection is not None:
            with suppress(Exception):  # the child does not use it
                self._connection.close()


class _Fork(threading.local):
    """The fork in progress on this thread."""

    quiet: tuple[Section, ...] = ()
    busy: tuple[Section, ...] = ()


_sections: weakref.WeakSet[Section] = weakref.WeakSet()
_forking = threading.Lock()
"""Locked during a fork, so that no thread begins to open a file."""
_listing = threading.Lock()
"""Locked while `_sections` is read or changed, and from the last read until the fork is over."""
_fork = _Fork()
_unusable: set[str] = set()


def _add(section: Section) -> None:
    with _listing:
        _sections.add(section)


def check_usable(path: str) -> None:
    """Raise `UsageError` for a file that a fork left unusable in this process."""
    if os.path.realpath(path) in _unusable:
        raise UsageError(
            f"the file {path!r} can't be opened by process {os.getpid()}: it was forked from "
            f"process {os.getppid()} while that one was opening, writing or copying the file; "
            "fork when none of these is in progress, or start this process again"
        )


def _before() -> None:
    _forking.acquire()
    quiet, busy = list[Section](), list[Section]()
    for section in _all_sections():
        patience = section.patience_seconds
        if patience is None:  # only the first busy section may use up the whole wait
            patience = 0 if busy else PATIENCE_SECONDS
        is_quiet = section.wait(patience)
        (quiet if is_quiet else busy).append(section)
    _fork.quiet, _fork.busy = tuple(quiet), tuple(busy)


def _all_sections() -> Iterator[Section]:
    """Yield each section, also those added meanwhile; after the last one none can be added."""
    known = set[Section]()
    while True:
        _listing.acquire()
        added = [section for section in _sections if section not in known]
        if not added:
            return
        _listing.release()
        known.update(added)
        yield from added


def _in_parent() -> None:
    for section in _fork.quiet:
        section.go_on()
    _end()


def _in_child() -> None:
    _unusable.update(os.path.realpath(section.path) for section in _fork.busy)
    for section in _fork.quiet:
        section.drop()
        section.go_on()
    _inherited.extend((*_fork.quiet, *_fork.busy))
    _sections.clear()
    _end()


def _end() -> None:
    _fork.quiet = _fork.busy = ()
    _listing.release()
    _forking.release()


_inherited: list[Section] = []

at_fork.append(AtFork(_before, _in_parent, _in_child))
