"""A thread that reads: all reads of a group see one state of the file.

It has its own connection, so it never waits for an fsync. The state is newer than every request of
the group, so a reader sees everything that was acknowledged before its request.
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
    """Runs reads on its thread."""

    def __init__(self, sql: SqlConnection, path: str) -> None:
        super().__init__("pyworkflow-reader", path, sql.connection)
        self._sql = sql
        self.start()

    def read(self, read: Callable[[SqlConnection], T]) -> asyncio.Future[T]:
        """Run ``read``; the future gets what it returns or raises."""
        return self.submit(partial(read, self._sql))

    def run_group(self, jobs: list[Job]) -> None:
        """Run all reads on one state of the file; a read that fails affects only its caller."""
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
            with suppress(sqlite3.Error):  # the next BEGIN reports the error
                self._sql.rollback()
        resolve_futures(jobs)

    def _run(self, job: Job) -> None:
        try:
            job.value = decoded(job.run, self._path)
        except sqlite3.Error as error:
            job.error = error_of(error, self._path)
        except BaseException as error:  # raised to the caller, not on this thread
            job.error = error

    def close_connection(self) -> None:
        """Close the connection."""
        self._sql.close()


def decoded(read: Callable[[], T], path: str) -> T:
    """Return what ``read`` returns. Raises `DamagedExecutionError` for an unreadable row."""
    try:
        return read()
    except UnreadableError as error:
        raise damaged(path, error) from error
