"""The one thread that reads: what is asked for meanwhile is read from one state of the file.

It has a connection of its own, so it never waits for an fsync. The state is that of a moment after
each of the group was asked for: whoever reads finds what was acknowledged before.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from pyworkflow.errors import ServiceError
from pyworkflow.services.sqlite._errors import damaged, fault_of
from pyworkflow.services.sqlite._group_thread import GroupThread, answer
from pyworkflow.services.sqlite._validation import UnreadableError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from pyworkflow.services.sqlite._group_thread import Job
    from pyworkflow.services.sqlite._sql import Store

T = TypeVar("T")


class Reader(GroupThread):
    """Reads on its thread, many times from one state."""

    def __init__(self, store: Store, path: str) -> None:
        super().__init__("pyworkflow-reader", path, store.connection)
        self._store = store
        self.start()

    def read(self, read: Callable[[Store], T]) -> asyncio.Future[T]:
        """Have ``read`` done; the future has what it returned or raised."""
        return self.do(partial(read, self._store))

    def carry_out(self, jobs: list[Job]) -> None:
        """Read all from one state of the file; a job that fails says so to its caller alone."""
        try:
            self._store.begin_reading()
            for job in jobs:
                self._carry_out(job)
            self._store.end_reading()
        except (sqlite3.Error, ServiceError) as error:
            for job in jobs:
                job.error = (
                    fault_of(error, self._path) if isinstance(error, sqlite3.Error) else error
                )
            with suppress(sqlite3.Error):  # the next BEGIN tells what is wrong
                self._store.rollback()
        answer(jobs)

    def _carry_out(self, job: Job) -> None:
        try:
            job.value = decoded(job.run, self._path)
        except sqlite3.Error as error:
            job.error = fault_of(error, self._path)
        except BaseException as error:  # a thread has nobody to raise to
            job.error = error

    def let_go(self) -> None:
        """Close the connection."""
        self._store.close()


def decoded(read: Callable[[], T], path: str) -> T:
    """Return what ``read`` returns; raises `DamagedExecutionError` for what can't be read."""
    try:
        return read()
    except UnreadableError as error:
        raise damaged(path, error) from error
