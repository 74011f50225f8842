"""A thread that runs jobs from any loop, in groups: all jobs that arrived meanwhile at once.

The futures of a group are resolved when the group is complete, with one call per loop, so the
overhead per job shrinks as the load grows.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from pyworkflow.errors import ServiceError
from pyworkflow.services import processes
from pyworkflow.services.sqlite._forks import Section

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

T = TypeVar("T")

MAX_JOBS = 1000
"""Maximum number of jobs in a group, so that no caller waits for too many others."""


class Job(msgspec.Struct, eq=False):
    """A function to run in a group, the future that awaits it, and its outcome."""

    run: Callable[[], Any]
    future: asyncio.Future[Any]
    value: Any = None
    error: BaseException | None = None


class GroupThread:
    """Base class; a subclass implements `run_group` and calls `start` when it is ready."""

    def __init__(self, name: str, path: str, connection: sqlite3.Connection) -> None:
        self._path = path
        self._section = Section(path, connection)
        self._process = processes.here
        # None is not a job: it wakes the thread, which then reads changed attributes.
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._is_closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    # -- for callers -----------------------------------------------------------------------------

    def submit(self, run: Callable[[], T]) -> asyncio.Future[T]:
        """Run ``run`` in a group; the future gets its outcome when the group is complete."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._process != processes.here:  # first: a forked lock may never be released
            self.check_process()
        with self._lock:
            if self._is_closed:
                self.check_open()
            self._jobs.put(Job(run, future))
        return future

    def check_process(self) -> None:
        """Raise `UsageError` in a process that was forked from the one that opened the file."""
        processes.check_process(self._process, f"the file {self._path!r}")

    def check_open(self) -> None:
        """Raise `ServiceError` after `close`, `UsageError` in a forked process."""
        self.check_process()
        if self._is_closed:
            raise ServiceError(f"The file {self._path!r} was closed by this process; open it again")

    def wake(self) -> None:
        """Make the thread notice changed attributes."""
        self._jobs.put(None)

    def close(self) -> None:
        """Finish all jobs and end the thread; blocks until then.

        Does nothing in a forked process, which has no such thread.
        """
        if self._process != processes.here:
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
        """Run the jobs of a group, which may be empty, and resolve their futures."""
        raise NotImplementedError

    def close_connection(self) -> None:
        """Close the connection, as the last action on the thread."""
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
        """Wait for a job and return all that are queued."""
        jobs = self._jobs
        try:
            gathered = [jobs.get(timeout=self.poll_seconds)]
        except queue.Empty:
            return []
        # Only this thread takes jobs, so the queue can't shrink meanwhile.
        gathered += [jobs.get_nowait() for _ in range(min(jobs.qsize(), MAX_JOBS - 1))]
        return [job for job in gathered if job is not None]


def resolve_futures(jobs: list[Job]) -> None:
    """Resolve the futures of finished jobs, each on its loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in jobs:
        by_loop.setdefault(job.future.get_loop(), []).append(job)
    for loop, theirs in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, theirs)
        except RuntimeError:  # the loop was closed: nothing awaits them
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
