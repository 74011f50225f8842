"""The one thread that writes: what all executions ask for meanwhile becomes one transaction.

While one group is on its way to the disk the next gathers, so the more there is to write, the fewer
fsyncs each commit costs. Answers are given after the transaction is committed, all those of a loop
at once. A job that is refused says so to its caller alone; an error of the file undoes the group
and is told to every caller in it.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pyworkflow.errors import ServiceError
from pyworkflow.services.sqlite.faults import fault_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyworkflow.services.sqlite.book import Book

T = TypeVar("T")

logger = logging.getLogger("pyworkflow.sqlite")

MOST_JOBS = 1000
"""The most jobs of a group: a caller should not wait for too many others."""
LOOK_SECONDS = 0.1
"""How often to look for changes by other processes, while somebody wants to know."""


class Job(NamedTuple):
    """Something to do in a group, and who waits for it."""

    run: Callable[[], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class Answer(NamedTuple):
    """What came of a job."""

    job: Job
    value: Any
    error: BaseException | None


class Writer:
    """Runs jobs on its thread, many to a transaction."""

    def __init__(
        self, book: Book, path: str, machine_ms: Callable[[], int], *, is_shared: bool
    ) -> None:
        self._book = book
        self._path = path
        self._machine_ms = machine_ms
        self._is_shared = is_shared
        self._quiet_until_ms = 0
        """Until then changes by others are not told: where many write, each write would be one."""
        # None is no job: it makes the thread look at what has changed here.
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._is_closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="pyworkflow-writer", daemon=True)
        self._thread.start()

    # -- for callers -----------------------------------------------------------------------------

    def do(self, run: Callable[[], T]) -> asyncio.Future[T]:
        """Have ``run`` done in a group; the future has its outcome once that is on the disk."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._lock:
            self.check_open()
            self._jobs.put(Job(run, future, loop))
        return future

    def check_open(self) -> None:
        """Raise `ServiceError` after `close`."""
        if self._is_closed:
            raise ServiceError(f"The file {self._path!r} was closed by this process; open it again")

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` after groups with news; return how to end it."""

        def end() -> None:
            with self._lock:
                self._listeners = tuple(one for one in self._listeners if one is not listener)

        with self._lock:
            self._listeners = (*self._listeners, listener)
        self._jobs.put(None)
        return end

    def close(self) -> None:
        """Do what was asked for, end the thread and let go of the file; blocks until then."""
        with self._lock:
            self._is_closed = True
        self._jobs.put(None)
        self._thread.join()

    # -- on the thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        while not (self._is_closed and self._jobs.empty()):
            jobs = self._gather()
            if jobs:
                _answer(self._carry_out(jobs))
            else:
                self._look_around()
                self._quiet_until_ms = 0
            if self._listeners:
                self._tell_news()
        self._book.store.close()

    def _gather(self) -> list[Job]:
        """Wait for jobs and return all that there are; none when it is time to look around."""
        jobs: list[Job] = []
        timeout = LOOK_SECONDS if self._listeners and self._is_shared else None
        try:
            job = self._jobs.get(timeout=timeout)
            if job is not None:
                jobs.append(job)
            while len(jobs) < MOST_JOBS:
                job = self._jobs.get_nowait()
                if job is not None:
                    jobs.append(job)
        except queue.Empty:
            pass
        return jobs

    def _carry_out(self, jobs: list[Job]) -> list[Answer]:
        try:
            self._book.begin()
            answers = [_outcome(job) for job in jobs]
            self._book.commit()
            return answers
        except BaseException as error:
            self._roll_back()
            return [Answer(job, None, self._fault(error)) for job in jobs]

    def _roll_back(self) -> None:
        try:
            self._book.roll_back()
        except sqlite3.Error:
            # The next BEGIN tells what is wrong.
            logger.warning("the file %s: undoing a transaction failed", self._path, exc_info=True)

    def _fault(self, error: BaseException) -> BaseException:
        if isinstance(error, sqlite3.Error):
            fault: BaseException = fault_of(error, self._path)
            fault.__cause__ = error
            return fault
        return error

    def _look_around(self) -> None:
        try:
            self._book.look_around()
        except sqlite3.Error:
            logger.warning("the file %s: looking at it failed", self._path, exc_info=True)

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


def _outcome(job: Job) -> Answer:
    try:
        return Answer(job, job.run(), None)
    except ServiceError as refusal:
        return Answer(job, None, refusal)


def _answer(answers: list[Answer]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[Answer]] = {}
    for answer in answers:
        by_loop.setdefault(answer.job.loop, []).append(answer)
    for loop, theirs in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, theirs)
        except RuntimeError:  # the loop was closed: nobody waits any more
            continue


def _resolve(answers: list[Answer]) -> None:
    for job, value, error in answers:
        if job.future.done():
            continue
        if error is None:
            job.future.set_result(value)
        else:
            job.future.set_exception(error)
