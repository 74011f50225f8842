"""The only thread that writes: the jobs of all executions share transactions.

While one group is written to the disk, the next one gathers, so the more there is to write, the
fewer fsyncs each commit costs. Futures are resolved after the transaction is committed. A job that
is refused fails alone. An error of the file rolls back the group and fails all its jobs. An error
that a single job caused, such as a value that can't be stored, also rolls back the group; its jobs
are then run one by one, so that only that job fails.
"""

from __future__ import annotations

import logging
import sqlite3
from typing import TYPE_CHECKING

from pyworkflow.errors import DamagedExecutionError, ServiceError
from pyworkflow.services import processes
from pyworkflow.services.sqlite._errors import error_of
from pyworkflow.services.sqlite._group_thread import GroupThread, resolve_futures

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyworkflow.services.sqlite._group_thread import Job
    from pyworkflow.services.sqlite._unit_of_work import UnitOfWork

logger = logging.getLogger("pyworkflow.sqlite")

POLL_SECONDS = 0.1
"""How often to check for changes by other processes while there are subscribers."""

_ERRORS_OF_ONE_JOB = (
    UnicodeEncodeError,
    OverflowError,
    sqlite3.DataError,
    sqlite3.IntegrityError,
    DamagedExecutionError,
)
"""Raised for a lone surrogate, a number of more than 64 bits, a value that is too long for a row, a
row that should not exist, and a parent execution that can't be read."""


class Writer(GroupThread):
    """Runs jobs on its thread, many to a transaction."""

    def __init__(
        self, unit: UnitOfWork, path: str, machine_ms: Callable[[], int], *, is_shared: bool
    ) -> None:
        super().__init__("pyworkflow-writer", path, unit.sql.connection)
        self._unit = unit
        self._machine_ms = machine_ms
        self._is_shared = is_shared
        self._quiet_until_ms = 0
        """Until then changes by others are not reported, since there may be very many."""
        self._listeners: tuple[Callable[[], None], ...] = ()
        self.start()

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` after groups with changes; return a function that ends that."""

        def end() -> None:
            if self._process != processes.here:
                return
            with self._lock:
                self._listeners = tuple(one for one in self._listeners if one is not listener)

        self.check_process()
        with self._lock:
            self._listeners = (*self._listeners, listener)
        self.wake()
        return end

    # -- on the thread ---------------------------------------------------------------------------

    @property
    def poll_seconds(self) -> float | None:
        """How often to check for changes by other processes, `None` if never."""
        return POLL_SECONDS if self._listeners and self._is_shared else None

    def run_group(self, jobs: list[Job]) -> None:
        """Write a group, or check for changes by others; then notify subscribers."""
        if jobs:
            self._write(jobs)
            resolve_futures(jobs)
        else:
            self._detect_other_writes()
            self._quiet_until_ms = 0
        if self._listeners:
            self._notify_of_changes()

    def close_connection(self) -> None:
        """Close the connection."""
        self._unit.sql.close()

    def _write(self, jobs: list[Job]) -> None:
        try:
            self._unit.begin()
            for job in jobs:
                try:
                    job.value = job.run()
                except ServiceError as refusal:
                    job.error = refusal
            self._unit.commit()
        except BaseException as error:
            self._roll_back()
            if len(jobs) > 1 and isinstance(error, _ERRORS_OF_ONE_JOB):
                self._write_one_by_one(jobs)
                return
            for job in jobs:
                job.error = error
                if isinstance(error, sqlite3.Error):
                    job.error = error_of(error, self._path)

    def _write_one_by_one(self, jobs: list[Job]) -> None:
        for job in jobs:
            job.error = None
            self._write([job])

    def _roll_back(self) -> None:
        try:
            self._unit.roll_back()
        except sqlite3.Error:
            # The next BEGIN reports the error.
            logger.warning("the file %s: undoing a transaction failed", self._path, exc_info=True)

    def _detect_other_writes(self) -> None:
        try:
            self._unit.detect_other_writes()
        except sqlite3.Error:
            logger.warning("the file %s: looking at it failed", self._path, exc_info=True)
        except ServiceError:  # subscribers read the file themselves and get the error
            self._unit.others_wrote = True

    def _notify_of_changes(self) -> None:
        unit = self._unit
        if unit.others_wrote:
            now_ms = self._machine_ms()
            if now_ms >= self._quiet_until_ms:
                unit.others_wrote, unit.has_changes = False, True
                self._quiet_until_ms = now_ms + round(POLL_SECONDS * 1000)
        if unit.has_changes:
            unit.has_changes = False
            self._notify()

    def _notify(self) -> None:
        for listener in self._listeners:
            try:
                listener()
            except Exception:
                logger.exception("a subscriber of %s failed", self._path)
