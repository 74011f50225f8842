"""Starting coroutines at once: only one that has to wait gets a task of its own.

Most of a task's cost is its turns in the loop's queue, and a body that never waits needs none. So a
coroutine starts in the name of a *stand-in*: a real task made in the same tick of the loop. It is
the current task meanwhile, so timeouts and libraries find what they expect. If the coroutine has to
wait, the stand-in becomes its task. If it ends, the stand-in serves the next coroutine, unless
something kept a reference to it, awaits it or cancelled it. When its own turn in the queue comes,
the stand-in ends.

asyncio has eager tasks since 3.12. This needs fewer tasks and behaves the same on every version.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import weakref
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from pyworkflow._engine.loop.tasks import (
    current_task,
    enter_task,
    has_callbacks,
    is_to_be_cancelled,
    leave_task,
    mark_awaited,
)

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Starter:
    """Starts coroutines on one loop. One per loop, so that its callers share stand-ins."""

    def __init__(self) -> None:
        self._stand_in: Callable[[], asyncio.Task[Any] | None] = _nobody

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Starter:
        """Return the starter of ``loop``."""
        starter = _of_loop.get(loop)
        if starter is None:
            starter = _of_loop[loop] = cls()
        return starter

    def begin(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, T],
        on_end: Callable[[T | BaseException], None],
        context: contextvars.Context | None = None,
    ) -> T | asyncio.Task[Any]:
        """Run ``coroutine`` until it has to wait; return the task that continues it.

        If it ends before that, return its value or raise its error; else ``on_end`` is called with
        either, in the task. Called in a task of ``loop``, the coroutine starts on a later turn.
        ``context`` defaults to a copy of the current one.
        """
        context = contextvars.copy_context() if context is None else context
        if current_task(loop) is not None:
            return asyncio.Task(_Seat(loop).take(coroutine, on_end), loop=loop, context=context)
        task = self._stand_in()
        is_new = task is None or task.done() or is_to_be_cancelled(task)
        if task is None or is_new:
            task = asyncio.Task(_Seat(loop), loop=loop, context=context)
        self._stand_in = _nobody
        watched = (task,)
        holders = _count_holders(watched)
        enter_task(loop, task)
        try:
            awaited = context.run(coroutine.send, None)
        except StopIteration as end:
            value: T = end.value
        else:
            seat: Any = task.get_coro()
            seat.take(coroutine, on_end, None if is_new else context, awaited)
            return task
        finally:
            leave_task(loop, task)
        if is_to_be_cancelled(task):
            raise asyncio.CancelledError
        if _count_holders(watched) == holders and not has_callbacks(task):
            self._stand_in = weakref.ref(task)
        return value


class _Seat(Coroutine[Any, Any, None]):
    """The coroutine of a stand-in: empty, or continuing one that had to wait. For its task only."""

    __slots__ = ("_awaited", "_context", "_coroutine", "_is_future", "_loop", "_on_end")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._coroutine: Coroutine[Any, Any, Any] | None = None

    @property
    def __name__(self) -> str:
        """The name under which the task shows it."""
        return getattr(self._coroutine, "__qualname__", "stand_in")

    def take(
        self,
        coroutine: Coroutine[Any, Any, Any],
        on_end: Callable[[Any], None],
        context: contextvars.Context | None = None,
        awaited: asyncio.Future[Any] | None = None,
    ) -> _Seat:
        """Continue ``coroutine``, which waits for ``awaited`` (`None`: for its next turn).

        ``context`` defaults to the task's.
        """
        self._coroutine, self._on_end = coroutine, on_end
        self._context, self._awaited = context, awaited
        # The task awaits it on its own turn; others may do so before.
        self._is_future = mark_awaited(awaited, False)
        return self

    def send(self, value: Any) -> Any:
        if self._coroutine is None:
            raise StopIteration
        if self._awaited is not None:
            return self._take_awaited()
        return self._go_on(self._coroutine.send, value)

    def throw(self, *error: Any) -> Any:
        if self._coroutine is None:
            raise error[0]
        # A cancelled task cancels what it awaits, and waits for the outcome.
        if self._awaited is not None and self._is_future and self._awaited.cancel(*error[0].args):
            return self._take_awaited()
        self._awaited = None
        return self._go_on(self._coroutine.throw, *error)

    def _go_on(self, step: Callable[..., Any], *args: Any) -> Any:
        try:
            return step(*args) if self._context is None else self._context.run(step, *args)
        except BaseException as end:
            self._report(end)
            raise StopIteration from None

    def _take_awaited(self) -> asyncio.Future[Any] | None:
        awaited, self._awaited = self._awaited, None
        if self._is_future:
            mark_awaited(awaited, True)
        return awaited

    def _report(self, end: BaseException) -> None:
        if isinstance(end, (SystemExit, KeyboardInterrupt)):
            raise end
        # `on_end` may refer to the task, and so to this seat: only the collector frees a cycle.
        on_end, self._coroutine = self._on_end, None
        del self._on_end
        if not isinstance(end, StopIteration):
            on_end(end)
        elif is_to_be_cancelled(current_task(self._loop)):
            on_end(asyncio.CancelledError())
        else:
            on_end(end.value)

    def close(self) -> None:
        if self._coroutine is not None:
            self._coroutine.close()

    def __await__(self) -> Any:
        return self


_of_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Starter] = (
    weakref.WeakKeyDictionary()
)


def _nobody() -> None:
    """Return no stand-in."""


def _count_holders(watched: tuple[asyncio.Task[Any]]) -> tuple[int, int]:
    # In a tuple: since 3.14 an argument itself may or may not count as a reference.
    return sys.getrefcount(watched[0]), weakref.getweakrefcount(watched[0])
