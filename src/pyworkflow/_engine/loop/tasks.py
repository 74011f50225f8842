"""Tasks and futures of the workflow loop; the one module that uses private names of asyncio.

Two things differ from asyncio's own. A task carries the namespace from which its operation ids
count. And tasks and futures hash by their number within the namespace that made them: asyncio keeps
them in sets, whose order would else follow memory addresses and differ on each replay.

A task may also be *blocked*: its synchronous code waits in a greenlet, so asyncio's task has no
future to cancel. The cancellation is then handed to what the greenlet waits for, and counted here.
So is that of a task that cancels itself, for its code may block next: asyncio's task learns of it
once its step is over, before anything else runs.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import events as _events
from asyncio import tasks as _tasks
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from contextvars import Context

    from pyworkflow._engine.ids import Namespace
    from pyworkflow._engine.scopes import Scope

T = TypeVar("T")

# On 3.11 `current_task` is Python code around this look-up.
current_task: Callable[[Any], Any] = (
    _tasks.current_task if sys.version_info >= (3, 12) else _tasks._current_tasks.get  # type: ignore[attr-defined]
)
enter_task: Callable[[Any, Any], None] = _tasks._enter_task
leave_task: Callable[[Any, Any], None] = _tasks._leave_task
running_loop = _events._get_running_loop
set_running_loop = _events._set_running_loop

# The code objects that turn a set of bare coroutines into tasks, in the order of their addresses;
# by their ids, for the hash of code walks through all of its constants.
_ITERATOR: Any = getattr(_tasks, "_AsCompletedIterator", None)  # from 3.13 on
_AS_COMPLETED = _ITERATOR.__init__ if _ITERATOR else _tasks.as_completed
_UNORDERED = {id(_AS_COMPLETED.__code__)} | {
    id(const) for const in _AS_COMPLETED.__code__.co_consts if hasattr(const, "co_code")
}

UNCANCEL_FORGETS = sys.version_info >= (3, 13)
"""Since 3.13 the last `uncancel` also withdraws a cancellation that was not delivered yet."""


def created_out_of_order() -> bool:
    """Whether the caller's ``create_task`` is called by `asyncio.as_completed` for a coroutine."""
    # This function, create_task, ensure_future (two frames on 3.11), the code that asks.
    frame = sys._getframe(3)
    if id(frame.f_code) in _UNORDERED:
        return True
    asker = frame.f_back
    return asker is not None and id(asker.f_code) in _UNORDERED


def task_of_step(callback: Callable[..., Any]) -> Task[Any] | None:
    """Return the task that ``callback`` would continue, `None` if it is not a step of a task."""
    owner = getattr(callback, "__self__", None)
    return owner if isinstance(owner, Task) else None


def are_done(tasks: Iterable[asyncio.Task[Any]]) -> bool:
    """Whether all of these tasks are over."""
    return all(map(asyncio.Task.done, tasks))


def is_to_be_cancelled(task: asyncio.Task[Any]) -> bool:
    """Whether ``task``, of whatever loop, has a cancellation that is not delivered yet."""
    return bool(task._must_cancel)  # type: ignore[attr-defined]


def has_callbacks(task: asyncio.Task[Any]) -> bool:
    """Whether anything is to be called when ``task``, of whatever loop, is done."""
    return bool(task._callbacks)


def take_unread(task: asyncio.Task[Any]) -> BaseException | None:
    """Return the error of a task that is over if it was not retrieved yet; mark it retrieved."""
    return task.exception() if task._log_traceback else None


def disown(loop: asyncio.AbstractEventLoop) -> None:
    """Leave a loop of the parent process alone, after a fork.

    Closing it, which its finaliser does, would change what its selector watches in the parent. So
    it is never collected, and asyncio does not report its unfinished tasks.
    """
    with suppress(AttributeError):  # a loop that is not written in Python closes as it likes
        loop._closed = True  # type: ignore[attr-defined]
    for task in asyncio.all_tasks(loop):
        with suppress(AttributeError):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
    _disowned.append(loop)


_disowned: list[asyncio.AbstractEventLoop] = []


def waking_fd(loop: asyncio.AbstractEventLoop) -> int | None:
    """Return the file descriptor that wakes ``loop`` when a byte is written to it.

    It is the one that asyncio gives to `signal.set_wakeup_fd`; `None` for a loop without one.
    """
    waking = getattr(loop, "_csock", None)
    return None if waking is None else int(waking.fileno())


def mark_awaited(awaited: Any, is_awaited: bool) -> bool:
    """Set asyncio's mark of a future that a coroutine has yielded; whether it was the other way.

    From the yield to where a task takes the future, no other coroutine can await it.
    """
    if getattr(awaited, "_asyncio_future_blocking", None) is not (not is_awaited):
        return False
    awaited._asyncio_future_blocking = is_awaited
    return True


class TaskLoop(Protocol):
    """A loop, as the tasks and futures that it made see it."""

    def namespace(self) -> Namespace:
        """Return the namespace of the running code."""
        ...

    def scope(self) -> Scope | None:
        """Return the scope of the running code, `None` where nothing says which it is."""
        ...

    def call_next(self, callback: Callable[[], Any]) -> None:
        """Run ``callback`` before all that is ready."""
        ...


class Future(asyncio.Future[T]):
    """A future whose hash is the same in each replay."""

    _hash: int | None = None

    def __hash__(self) -> int:
        if self._hash is None:
            loop: TaskLoop = self.get_loop()  # type: ignore[assignment] # made by it alone
            self._hash = loop.namespace().take_hash()
        return self._hash


class Task(asyncio.Task[T]):
    """A task of workflow code, with its namespace."""

    __slots__ = (
        "_cancel_is_due",
        "_cancels",
        "_due_message",
        "_hash",
        "blocked_on",
        "blocks",
        "context",
        "namespace",
    )

    def __init__(
        self,
        coro: Coroutine[Any, Any, T],
        loop: asyncio.AbstractEventLoop,
        namespace: Namespace,
        hash_number: int,
        name: str | None,
        context: Context,
    ) -> None:
        self.namespace = namespace
        self.context = context
        """The context in which its code runs; asyncio shows it since 3.12."""
        self.blocked_on: asyncio.Future[Any] | None = None
        self.blocks = False
        """Whether the running code is plain and blocks where it waits; see `call_plain`."""
        self._hash = hash_number
        self._cancels = 0
        self._cancel_is_due = False
        self._due_message: Any = None
        asyncio.Task.__init__(
            self,
            coro,
            loop=loop,
            name=name or f"task {namespace.prefix or 'main'}",
            context=context,
        )

    def __hash__(self) -> int:
        return self._hash

    def cancel(self, msg: Any | None = None) -> bool:
        """Request cancellation, as `asyncio.Task.cancel` does; also of a blocked task."""
        if self.done():
            return False
        loop: TaskLoop = self.get_loop()  # type: ignore[assignment] # made by it alone
        self.namespace.scope.disturb(loop.scope())
        if self.blocked_on is None and current_task(loop) is not self:
            return super().cancel(msg=msg)
        self._cancels += 1
        if self.blocked_on is None:
            self._cancel_is_due, self._due_message = True, msg
            loop.call_next(self._cancel_after_this_step)
        elif not self.blocked_on.cancel(msg=msg):
            self._cancel_is_due, self._due_message = True, msg
        return True

    def cancelling(self) -> int:
        """Return the number of pending cancellation requests."""
        return self._cancels + super().cancelling()

    def uncancel(self) -> int:
        """Withdraw one cancellation request; return how many remain."""
        if self._cancels:
            self._cancels -= 1
        else:
            super().uncancel()
        remaining = self.cancelling()
        self._cancel_is_due &= remaining > 0 or not UNCANCEL_FORGETS
        return remaining

    @property
    def _must_cancel(self) -> bool:
        # As asyncio's, which libraries look at.
        return self._cancel_is_due or bool(asyncio.Task._must_cancel.__get__(self))  # type: ignore[attr-defined]

    @property
    def is_cancel_due(self) -> bool:
        """Whether this task has a cancellation that is not delivered to its code yet."""
        return self._must_cancel

    def take_cancel(self) -> asyncio.CancelledError | None:
        """Return the cancellation that is due where this task is about to block, if one is."""
        if not self._cancel_is_due:
            return None
        self._cancel_is_due = False
        message = self._due_message
        return asyncio.CancelledError() if message is None else asyncio.CancelledError(message)

    def fail(self, error: Exception) -> None:
        """End with ``error`` without running on: the coroutine is closed where it is."""
        try:
            coroutine: Any = self.get_coro()
            coroutine.close()
        except BaseException as raised:  # its cleanup may do anything
            error.__context__ = raised
        asyncio.Future.set_exception(self, error)

    def awaited(self) -> asyncio.Future[Any] | None:
        """Return what this task waits for, `None` if it can go on."""
        return self.blocked_on or self._fut_waiter  # type: ignore[attr-defined]

    def forget(self) -> None:
        """Silence asyncio's reports about a task that ends unfinished or unread."""
        if not self.done():
            self._log_destroy_pending = False
        elif not self.cancelled():
            self.exception()

    def _cancel_after_this_step(self) -> None:
        if not self._cancel_is_due:
            return
        self._cancel_is_due = False
        if not self.done():
            # Counted here already, unless it was withdrawn; asyncio counts it now.
            super().cancel(self._due_message)
            if self._cancels:
                self._cancels -= 1
            else:
                super().uncancel()
        elif not self.cancelled() and self.exception() is None:
            # Its code returned all the same, which asyncio takes for an end by cancellation. Nobody
            # has seen the result: what waits for this task is called later.
            asyncio.Future.__init__(self, loop=self.get_loop())
            asyncio.Future.cancel(self, self._due_message)


def call_plain(function: Callable[..., T], *args: Any) -> T:
    """Call a plain function in the running task; code in there blocks where it waits.

    What an async function returns is awaited afterwards, so its code is not called in here.
    """
    task: Any = asyncio.current_task()
    outer, task.blocks = task.blocks, True
    try:
        return function(*args)
    finally:
        task.blocks = outer
