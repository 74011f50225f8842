"""Synchronous code on the workflow's loop: it blocks by switching greenlets, not threads.

The loop is drained by greenlets. When code blocks in the middle of a handle, its greenlet stays
where it is, with its C and Python frames, and another one continues to drain the loop. When the
awaited future is done, a handle switches back. So asynchronous tasks pay nothing for greenlets, and
a blocked task costs one until it resumes.

Nothing is unwound to suspend. Only when the run is disposed of is `Closing` thrown into what has
not ended, blocked or not: it derives from BaseException, and nothing durable happens after it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

from greenlet import getcurrent, greenlet

from pyworkflow._engine.loop.tasks import Task, current_task, enter_task, leave_task
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

T = TypeVar("T")

logger = logging.getLogger("pyworkflow.engine")

REFUSALS = 100
"""How often one frame stack may swallow `Closing` before it is parked for good."""

_parked: list[object] = []  # kept, or their deallocation would throw into them once more


class Closing(BaseException):
    """Unwinds the frames of a run that is disposed of."""


class DrainedLoop(Protocol):
    """The loop that the greenlets drain."""

    stopped: bool

    @property
    def owner(self) -> object:
        """The execution whose code runs on it."""
        ...

    def run_ready(self) -> None:
        """Run handles until nothing is ready."""
        ...


class WorkflowGreenlet(greenlet):
    """A greenlet of one run. Workflow code runs in these, and nothing else does."""

    __slots__ = ("owner",)

    def __init__(
        self,
        run: Callable[..., Any],
        loop: DrainedLoop,
        parent: greenlet | None = None,
        context: Context | None = None,
    ) -> None:
        super().__init__(run, parent)
        self.owner: object = loop.owner
        if context is not None:
            # Not entered, as by `Context.run`: another greenlet may be blocked in this context.
            self.gr_context = context


class Greenlets:
    """The greenlets of one run."""

    def __init__(self, loop: DrainedLoop) -> None:
        self._loop = loop
        self._hub = getcurrent()
        self._spares: list[greenlet] = []
        self._blocked: dict[Task[Any], greenlet] = {}
        self._is_greenlet_due = False
        self._closing = False
        self._refusals = 0

    def run(self) -> None:
        """Drain the loop until it is idle. Called by the host, within `WorkflowLoop.inside`."""
        self._hub = getcurrent()
        self._is_greenlet_due = True
        while self._is_greenlet_due:
            self._is_greenlet_due = False
            if self._spares:
                self._spares.pop().switch()
            else:
                WorkflowGreenlet(self._serve, self._loop, self._hub).switch()

    def blocking_task(self) -> Task[Any]:
        """Return the running task, which may block; raise `UsageError` outside a task."""
        task = current_task(self._loop)
        if not isinstance(task, Task):
            raise UsageError(
                "blocking code was called from a bare callback of the workflow's loop, which can't "
                "wait. Start a task in the callback (asyncio.create_task) and wait there."
            )
        return task

    def wait(self, future: asyncio.Future[T]) -> T:
        """Block the running task until ``future`` is done; return its result or raise its error.

        Raises `UsageError` outside a task, and `asyncio.CancelledError` when the task is cancelled.
        """
        try:
            task = self.blocking_task()
        except UsageError:
            future.cancel()
            raise
        if self._closing:
            self.refuse()
        if (cancelled := task.take_cancel()) is not None:
            future.cancel()
            raise cancelled
        if not future.done():
            self._block(task, future)
            if (cancelled := task.take_cancel()) is not None:
                raise cancelled
        return future.result()

    def _block(self, task: Task[Any], future: asyncio.Future[Any]) -> None:
        me = getcurrent()
        future.add_done_callback(lambda _: self._resume(me))
        task.blocked_on = future
        self._blocked[task] = me
        leave_task(self._loop, task)
        try:
            if self._spares:
                self._spares.pop().switch()
            else:
                # A new greenlet inherits the depth of its starter's stack: the hub starts it.
                self._is_greenlet_due = True
                self._hub.switch()
        finally:
            enter_task(self._loop, task)
            del self._blocked[task]
            task.blocked_on = None

    def _resume(self, blocked: greenlet) -> None:
        self._spares.append(getcurrent())
        blocked.switch()

    def _serve(self) -> None:
        while not self._closing:
            try:
                self._loop.run_ready()
            except BaseException as error:  # `sys.exit`, of the workflow or of its cleanup
                if not self._closing:
                    raise
                logger.debug("%r while a blocked task was disposed of", error)
            if not self._closing:
                self._spares.append(getcurrent())
                self._hub.switch()

    # -- disposal --------------------------------------------------------------------------------

    def refuse(self) -> NoReturn:
        """Refuse a durable operation of a run that is disposed of."""
        self._refusals += 1
        if self._refusals > REFUSALS:
            self._park()
        raise Closing

    def close(self, tasks: list[Task[Any]]) -> None:
        """Unwind the frames of every unfinished task, each in the context of its task.

        Called within `WorkflowLoop.inside`.
        """
        self._closing = self._loop.stopped = True
        self._hub = getcurrent()
        for blocked in list(self._blocked.values()):
            self._refusals = 0
            blocked.throw(Closing)
        for task in tasks:
            if not task.done():
                self._refusals = 0
                unwinder = WorkflowGreenlet(self._unwind, self._loop, self._hub, task.context)
                unwinder.switch(task)
        while self._spares:
            self._spares.pop().switch()
        for task in tasks:
            task.forget()

    def _unwind(self, task: Task[Any]) -> None:
        """Throw into a task's coroutine; each ``await`` in its cleanup is ended in turn."""
        coroutine: Any = task.get_coro()
        enter_task(self._loop, task)
        try:
            for _ in range(REFUSALS):
                coroutine.throw(Closing)
            self._warn_parked(coroutine)
        except BaseException as error:  # it is over; or it runs: in a greenlet that was parked
            logger.debug("%s: %r while it was disposed of", task.get_name(), error)
        finally:
            leave_task(self._loop, task)

    def _park(self) -> NoReturn:
        """Leave this greenlet where it is, for good."""
        me = getcurrent()
        hub = me.parent or self._hub
        self._refusals = 0
        self._warn_parked(me)
        task = current_task(self._loop)
        if task is not None:
            leave_task(self._loop, task)
        while True:
            hub.switch()

    def _warn_parked(self, parked: object) -> None:
        _parked.append(parked)
        logger.warning(
            "workflow code caught the shutdown exception %d times, so its stack was abandoned; let "
            "BaseException pass, or check ctx.is_closing",
            REFUSALS,
        )
