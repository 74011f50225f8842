"""The threads that run synchronous bodies: of steps, checks, submitters and compensations.

A process has one pool of them. The threads are daemons, since a body can't be stopped: an abandoned
one must not keep the process alive. A body that waits for another execution lends its thread: while
it waits, one more thread may run. Otherwise bodies that wait for each other could fill the pool and
block it.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

P = ParamSpec("P")
T = TypeVar("T")

BODIES = 64
"""Maximum number of bodies that run in threads at once, lent ones excluded; more are queued."""

LENT = 500
"""Maximum number of threads that are lent at once."""


class BodyThreads(Executor):
    """Up to ``bodies`` threads, and one more for each that is lent, up to ``lent``."""

    def __init__(self, bodies: int, lent: int) -> None:
        self._most_bodies = bodies
        self._most_lent = lent
        self.forget()

    def forget(self) -> None:
        """Start over without threads: a forked child does not have those of its parent."""
        self._lock = threading.Lock()
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._here = threading.local()
        self._threads = 0
        self._idle = 0
        """Number of threads that wait for an item that is not in the queue yet."""
        self._backlog = 0
        """Number of items that no thread is certain to take next."""
        self._lent = 0

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run ``fn`` once a thread is free."""
        future: Future[T] = Future()
        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                self._backlog += 1
                self._grow()
        self._queue.put(partial(_run, future, partial(fn, *args, **kwargs)))
        return future

    @contextmanager
    def lending(self) -> Iterator[bool]:
        """Lend the current thread while it waits; False if too many are lent already.

        A thread outside this pool is never lent. A thread in which several tasks wait is lent once,
        until the last of them goes on.
        """
        here = self._here
        waiting = getattr(here, "waiting", None)
        if waiting is None:
            yield True
            return
        if not waiting and not self._lend():
            yield False
            return
        here.waiting += 1
        try:
            yield True
        finally:
            here.waiting -= 1
            if not here.waiting:
                self._take_back()

    def _lend(self) -> bool:
        with self._lock:
            if self._lent >= self._most_lent:
                return False
            self._lent += 1
            self._grow()
            return True

    def _take_back(self) -> None:
        with self._lock:
            self._lent -= 1
            if self._are_many and self._idle:
                self._idle -= 1
                self._threads -= 1
                self._queue.put(None)

    # -- threads ---------------------------------------------------------------------------------

    @property
    def _are_many(self) -> bool:
        return self._threads > self._most_bodies + self._lent

    def _grow(self) -> None:
        """Start a thread for the backlog if the limits allow it. Called under the lock."""
        if self._backlog and self._threads < self._most_bodies + self._lent:
            name = f"pyworkflow-step_{self._threads}"
            try:
                threading.Thread(target=self._work, name=name, daemon=True).start()
            except RuntimeError:  # the system has no more threads: the existing ones go on
                if not self._threads:
                    self._backlog -= 1
                    raise
                return
            self._threads += 1
            self._backlog -= 1

    def _work(self) -> None:
        self._here.waiting = 0
        while (run := self._queue.get()) is not None:
            run()
            del run  # else its arguments would stay alive while this waits
            with self._lock:
                if self._are_many:
                    self._threads -= 1
                    return
                if self._backlog:
                    self._backlog -= 1
                else:
                    self._idle += 1


def _run(future: Future[Any], function: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        value = function()
    except BaseException as error:
        future.set_exception(error)
        del future  # it has the error, whose traceback has this frame
    else:
        future.set_result(value)


body_threads = BodyThreads(BODIES, LENT)
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=body_threads.forget)


async def in_body_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``function`` in a thread of the pool, in a copy of the current context."""
    run = partial(contextvars.copy_context().run, function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(body_threads, _run_for_future, run)


def _run_for_future(run: Callable[[], T]) -> T:
    """Call ``run``; turn a `StopIteration` into a `RuntimeError`, as a coroutine does.

    A future does not accept a `StopIteration`, so its waiter would block forever.
    """
    try:
        return run()
    except StopIteration as error:
        raise RuntimeError("code that runs in a thread raised StopIteration") from error
