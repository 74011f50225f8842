"""The one thread that writes: what all executions ask for meanwhile becomes one transaction.

While one group is on its way to the disk the next gathers, so the more there is to write, the fewer
fsyncs each commit costs. Answers are given after the transaction is committed. A job that is
refused says so to its caller alone; an error of the file undoes the group and is told to every
caller in it. What one job brought undoes it, too, a value that can't be written for one; then its
jobs are done one by one, so that only that one is told.
"""

from __future__ import annotations

import logging
import sqlite3
from typing import TYPE_CHECKING

from pyworkflow.errors import DamagedExecutionError, ServiceError
from pyworkflow.services import _processes
from pyworkflow.services.sqlite._errors import fault_of
from pyworkflow.services.sqlite._group_thread import GroupThread, answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyworkflow.services.sqlite._group_thread import Job
    from pyworkflow.services.sqlite._unit_of_work import Book

logger = logging.getLogger("pyworkflow.sqlite")

LOOK_SECONDS = 0.1
"""How often to look for changes by other _processes, while somebody wants to know."""

_OF_ONE_JOB = (
    UnicodeEncodeError,
    OverflowError,
    sqlite3.DataError,
    sqlite3.IntegrityError,
    DamagedExecutionError,
)
"""What a lone surrogate raises, a number of more than 64 bits, what is too long for a row, a row
that should not be there, and an end that is carried to an execution that can't be read."""


class Writer(GroupThread):
    """Runs jobs on its thread, many to a transaction."""

    def __init__(
        self, book: Book, path: str, machine_ms: Callable[[], int], *, is_shared: bool
    ) -> None:
        super().__init__("pyworkflow-writer", path, book.store.connection)
        self._book = book
        self._machine_ms = machine_ms
        self._is_shared = is_shared
        self._quiet_until_ms = 0
        """Until then changes by others are not told: where many write, each write would be one."""
        self._listeners: tuple[Callable[[], None], ...] = ()
        self.start()

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` after groups with news; return how to end it."""

        def end() -> None:
            if self._process != _processes.here:
                return
            with self._lock:
                self._listeners = tuple(one for one in self._listeners if one is not listener)

        self.check_process()
        with self._lock:
            self._listeners = (*self._listeners, listener)
        self.nudge()
        return end

    # -- on the thread ---------------------------------------------------------------------------

    @property
    def patience_seconds(self) -> float | None:
        """How long nobody looks for changes by other processes."""
        return LOOK_SECONDS if self._listeners and self._is_shared else None

    def carry_out(self, jobs: list[Job]) -> None:
        """Write a group, or look around; then tell the news."""
        if jobs:
            self._write(jobs)
            answer(jobs)
        else:
            self._look_around()
            self._quiet_until_ms = 0
        if self._listeners:
            self._tell_news()

    def let_go(self) -> None:
        """Close the connection."""
        self._book.store.close()

    def _write(self, jobs: list[Job]) -> None:
        try:
            self._book.begin()
            for job in jobs:
                try:
                    job.value = job.run()
                except ServiceError as refusal:
                    job.error = refusal
            self._book.commit()
        except BaseException as error:
            self._roll_back()
            if len(jobs) > 1 and isinstance(error, _OF_ONE_JOB):
                self._write_one_by_one(jobs)
                return
            for job in jobs:
                job.error = error
                if isinstance(error, sqlite3.Error):
                    job.error = fault_of(error, self._path)

    def _write_one_by_one(self, jobs: list[Job]) -> None:
        for job in jobs:
            job.error = None
            self._write([job])

    def _roll_back(self) -> None:
        try:
            self._book.roll_back()
        except sqlite3.Error:
            # The next BEGIN tells what is wrong.
            logger.warning("the file %s: undoing a transaction failed", self._path, exc_info=True)

    def _look_around(self) -> None:
        try:
            self._book.look_around()
        except sqlite3.Error:
            logger.warning("the file %s: looking at it failed", self._path, exc_info=True)
        except ServiceError:  # whoever is called looks by itself, and hears of it
            self._book.others_wrote = True

    def _tell_news(self) -> None:
        book = self._book
        if book.others_wrote:
            now_ms = self._machine_ms()
            if now_ms >= self._quiet_until_ms:
                book.others_wrote, book.has_news = False, True
                self._quiet_until_ms = now_ms + round(LOOK_SECONDS * 1000)
        if book.has_news:
            book.has_news = False
            self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            try:
                listener()
            except Exception:
                logger.exception("a subscriber of %s failed", self._path)
