"""Forks of a process that has files open: SQLite does not survive them, so we do it for it.

SQLite keeps, for each file, what locks its process has. A child inherits those notes but not the
locks: a file that it opens by the same name would be used as if it were locked, and a lock that the
parent held at that moment would be held forever. And a mutex of SQLite that another thread held is
never let go.

So a fork waits until no thread of ours is in SQLite (`Section`), and in the child all that was
inherited is closed at once. Nothing is under way then, and the parent's own locks keep that from
touching the file. What can't be waited for makes its file unusable in that child, and it says so.
"""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

from pyworkflow.errors import UsageError
from pyworkflow.services._processes import AtFork, at_fork

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

PATIENCE_SECONDS = 5.0
"""How long a fork waits for a section, which may itself wait for another process's lock."""


class Section:
    """Its ``lock`` is taken while SQLite works on ``connection``; or while others come and go."""

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
        """Keep everybody out, for a fork; return whether that could be done in time."""
        return self.lock.acquire(timeout=seconds)

    def go_on(self) -> None:
        """Let the parent's threads in again."""
        self.lock.release()

    def leave(self) -> None:
        """Forget the connection, which was closed."""
        self._connection = None

    def drop(self) -> None:
        """Close the child's copy of the connection."""
        if self._connection is not None:
            with suppress(Exception):  # it is nobody's any more
                self._connection.close()


class _Fork(threading.local):
    """A fork that is under way on this thread."""

    quiet: tuple[Section, ...] = ()
    busy: tuple[Section, ...] = ()


_sections: weakref.WeakSet[Section] = weakref.WeakSet()
_forking = threading.Lock()
"""Held during a fork: meanwhile nobody begins to open a file."""
_listing = threading.Lock()
"""Held while `_sections` is looked through or added to, and from the last look to the fork."""
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
            f"process {os.getppid()} while that one was in the midst of opening, writing or "
            "copying the file; fork when nothing of that is under way, or start this process anew"
        )


def _before() -> None:
    _forking.acquire()
    quiet, busy = list[Section](), list[Section]()
    for section in _all_sections():
        patience = section.patience_seconds
        if patience is None:  # it is over with the first one that takes it all
            patience = 0 if busy else PATIENCE_SECONDS
        is_quiet = section.wait(patience)
        (quiet if is_quiet else busy).append(section)
    _fork.quiet, _fork.busy = tuple(quiet), tuple(busy)


def _all_sections() -> Iterator[Section]:
    """Yield each section, those too that were added meanwhile; from then on none is added."""
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
