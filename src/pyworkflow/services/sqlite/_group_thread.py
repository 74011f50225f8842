"""A thread that is asked from any loop, and takes all that it was asked for meanwhile as one group.

Answers are given when the group is done with, all those of a loop at once: so the more there is to
do, the less it costs to hand each thing over.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from pyworkflow.errors import ServiceError
from pyworkflow.services import _processes
from pyworkflow.services.sqlite._forks import Section

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

T = TypeVar("T")

MAX_JOBS = 1000
"""The most jobs of a group: a caller should not wait for too many others."""


class Job(msgspec.Struct, eq=False):
    """Something to do in a group, and who waits for it; then, what came of it."""

    run: Callable[[], Any]
    future: asyncio.Future[Any]
    value: Any = None
    error: BaseException | None = None


class GroupThread:
    """The base: a subclass says what becomes of a group, and calls `start` when it is ready."""

    def __init__(self, name: str, path: str, connection: sqlite3.Connection) -> None:
        self._path = path
        self._section = Section(path, connection)
        self._process = _processes.here
        # None is no job: it makes the thread look at what has changed here.
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._is_closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    # -- for callers -----------------------------------------------------------------------------

    def submit(self, run: Callable[[], T]) -> asyncio.Future[T]:
        """Have ``run`` done in a group; the future has its outcome once that is done with."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._process != _processes.here:  # first: there the lock may be held by nobody
            self.check_process()
        with self._lock:
            if self._is_closed:
                self.check_open()
            self._jobs.put(Job(run, future))
        return future

    def check_process(self) -> None:
        """Raise `UsageError` in a process that was forked from the one that opened the file."""
        _processes.check_process(self._process, f"the file {self._path!r}")

    def check_open(self) -> None:
        """Raise `ServiceError` after `close`, `UsageError` in a forked process."""
        self.check_process()
        if self._is_closed:
            raise ServiceError(f"The file {self._path!r} was closed by this process; open it again")

    def wake(self) -> None:
        """Make the thread look at what has changed here."""
        self._jobs.put(None)

    def close(self) -> None:
        """Do what was asked for and end the thread; blocks until then.

        A forked process has no such thread, and nothing of its own to close.
        """
        if self._process != _processes.here:
            return
        with self._lock:
            self._is_closed = True
        self.wake()
        self._thread.join()

    # -- for subclasses --------------------------------------------------------------------------

    @property
    def poll_seconds(self) -> float | None:
        """How long to wait for jobs before `run_group` is called without any."""
        return None

    def run_group(self, jobs: list[Job]) -> None:
        """Do the jobs of a group, of which there may be none, and answer them."""
        raise NotImplementedError

    def close_connection(self) -> None:
        """Do what is to be done on the thread last."""
        raise NotImplementedError

    # -- on the thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        while not (self._is_closed and self._jobs.empty()):
            jobs = self._gather()
            with self._section.lock:
                self.run_group(jobs)
        with self._section.lock:
            self.close_connection()
            self._section.leave()

    def _gather(self) -> list[Job]:
        """Wait for jobs and return all that there are."""
        jobs = self._jobs
        try:
            gathered = [jobs.get(timeout=self.poll_seconds)]
        except queue.Empty:
            return []
        # Nobody else takes any, so those that are there stay there.
        gathered += [jobs.get_nowait() for _ in range(min(jobs.qsize(), MAX_JOBS - 1))]
        return [job for job in gathered if job is not None]


def resolve_futures(jobs: list[Job]) -> None:
    """Give everybody who waits what came of a job, or its error."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in jobs:
        by_loop.setdefault(job.future.get_loop(), []).append(job)
    for loop, theirs in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, theirs)
        except RuntimeError:  # the loop was closed: nobody waits any more
            continue


def _resolve(jobs: list[Job]) -> None:
    for job in jobs:
        future = job.future
        if future.done():
            continue
        if job.error is None:
            future.set_result(job.value)
        else:
            future.set_exception(job.error)
