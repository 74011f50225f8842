"""Beginning coroutines at once: only one that has to wait gets a task of its own.

Most of what a task costs is its turns in the loop's queue, and a body that never waits needs none
of them. So a coroutine begins in the name of a *stand-in*, a real task that was made in this tick
of the loop: it is the current task meanwhile, and timeouts and libraries find what they expect. If
the coroutine has to wait, the stand-in is its task from there on. If it ends, the stand-in is there
for the next one, unless anybody has kept hold of it, waits for its end or has cancelled it; and
when its own turn in the queue comes, it ends, too.

asyncio has eager tasks since 3.12. This needs fewer tasks, and is the same on every version.
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
    """Begins coroutines on one loop. Shared by all who begin some there, for their stand-ins."""

    def __init__(self) -> None:
        self._stand_in: Callable[[], asyncio.Task[Any] | None] = _nobody

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Starter:
        """Return the one of ``loop``."""
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
        """Run ``coroutine`` up to where it has to wait; return the task that goes on with it.

        If it ends before that, return its value or raise its error. Else ``on_end`` is called with
        them, in the task. Within a task of ``loop`` none can begin: there it waits for its turn.
        Without a ``context`` it has a copy of the current one.
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
    """What a stand-in runs: nothing, or the coroutine that had to wait. Only its task calls it."""

    __slots__ = ("_awaited", "_context", "_coroutine", "_is_future", "_loop", "_on_end")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._coroutine: Coroutine[Any, Any, Any] | None = None

    @property
    def __name__(self) -> str:
        """What the task is shown to run."""
        return getattr(self._coroutine, "__qualname__", "stand_in")

    def take(
        self,
        coroutine: Coroutine[Any, Any, Any],
        on_end: Callable[[Any], None],
        context: contextvars.Context | None = None,
        awaited: asyncio.Future[Any] | None = None,
    ) -> _Seat:
        """Go on with ``coroutine``, which waits for ``awaited`` (`None`: for its next turn).

        Without a ``context`` it has that of the task.
        """
        self._coroutine, self._on_end = coroutine, on_end
        self._context, self._awaited = context, awaited
        # The task takes it in its own turn; others may await it before.
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
        # A task that is cancelled hands that on to what it waits for, and waits for the answer.
        if self._awaited is not None and self._is_future and self._awaited.cancel(*error[0].args):
            return self._take_awaited()
        self._awaited = None
        return self._go_on(self._coroutine.throw, *error)

    def _go_on(self, step: Callable[..., Any], *args: Any) -> Any:
        try:
            return step(*args) if self._context is None else self._context.run(step, *args)
        except BaseException as end:
            self._tell(end)
            raise StopIteration from None

    def _take_awaited(self) -> asyncio.Future[Any] | None:
        awaited, self._awaited = self._awaited, None
        if self._is_future:
            mark_awaited(awaited, True)
        return awaited

    def _tell(self, end: BaseException) -> None:
        if isinstance(end, (SystemExit, KeyboardInterrupt)):
            raise end
        # What is told may know the task, and so this seat: a circle that only the collector frees.
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
    """Stand in for no one."""


def _count_holders(watched: tuple[asyncio.Task[Any]]) -> tuple[int, int]:
    # Not handed in as it is: since 3.14 an argument may be counted or not.
    return sys.getrefcount(watched[0]), weakref.getweakrefcount(watched[0])
