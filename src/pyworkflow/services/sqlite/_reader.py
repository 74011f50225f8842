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
from pyworkflow.services.sqlite._errors import damaged, error_of
from pyworkflow.services.sqlite._group_thread import GroupThread, resolve_futures
from pyworkflow.services.sqlite._validation import UnreadableError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from pyworkflow.services.sqlite._group_thread import Job
    from pyworkflow.services.sqlite._sql import SqlConnection

T = TypeVar("T")


class Reader(GroupThread):
    """Reads on its thread, many times from one state."""

    def __init__(self, sql: SqlConnection, path: str) -> None:
        super().__init__("pyworkflow-reader", path, sql.connection)
        self._sql = sql
        self.start()

    def read(self, read: Callable[[SqlConnection], T]) -> asyncio.Future[T]:
        """Have ``read`` done; the future has what it returned or raised."""
        return self.submit(partial(read, self._sql))

    def run_group(self, jobs: list[Job]) -> None:
        """Read all from one state of the file; a job that fails says so to its caller alone."""
        try:
            self._sql.begin_reading()
            for job in jobs:
                self._run(job)
            self._sql.end_reading()
        except (sqlite3.Error, ServiceError) as error:
            for job in jobs:
                job.error = (
                    error_of(error, self._path) if isinstance(error, sqlite3.Error) else error
                )
            with suppress(sqlite3.Error):  # the next BEGIN tells what is wrong
                self._sql.rollback()
        resolve_futures(jobs)

    def _run(self, job: Job) -> None:
        try:
            job.value = decoded(job.run, self._path)
        except sqlite3.Error as error:
            job.error = error_of(error, self._path)
        except BaseException as error:  # a thread has nobody to raise to
            job.error = error

    def close_connection(self) -> None:
        """Close the connection."""
        self._sql.close()


def decoded(read: Callable[[], T], path: str) -> T:
    """Return what ``read`` returns; raises `DamagedExecutionError` for what can't be read."""
    try:
        return read()
    except UnreadableError as error:
        raise damaged(path, error) from error
