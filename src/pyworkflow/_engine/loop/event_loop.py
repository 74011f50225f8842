"""The loop that workflow code runs on: a FIFO of handles over virtual time, and nothing else.

Because nothing but the order of handles decides what runs next, asyncio's own building blocks
(`gather`, `TaskGroup`, `wait`, `timeout`, `Queue`, `Event`) work on it and replay exactly. Time
stands still while code runs; `call_later` and so `asyncio.sleep` are durable timers of whole
seconds. Everything that touches the world is refused: see `forbidden`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import weakref
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from pyworkflow._engine.body_context import body_context, callback_namespace
from pyworkflow._engine.exits import is_from_signal
from pyworkflow._engine.ids import Namespace
from pyworkflow._engine.loop.forbidden import refuse_world
from pyworkflow._engine.loop.greenlets import WorkflowGreenlet
from pyworkflow._engine.loop.tasks import (
    Future,
    Task,
    created_out_of_order,
    current_task,
    running_loop,
    set_running_loop,
    task_of_step,
)
from pyworkflow._engine.scopes import Scope
from pyworkflow.duration import whole_seconds
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

T = TypeVar("T")

logger = logging.getLogger("pyworkflow.engine")


class Handle(msgspec.Struct, eq=False):
    """A callback that waits its turn."""

    callback: Callable[..., Any] | None
    args: tuple[Any, ...]
    context: Context

    def cancel(self) -> None:
        """Take the callback out of the queue."""
        self.callback = None

    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self.callback is None


class TimerHandle(Handle):
    """A callback that waits for a durable timer; ``abandon`` abandons the timer."""

    due: float
    abandon: Callable[[], None] | None = None

    def when(self) -> float:
        """Return the loop's time at which the callback is due."""
        return self.due

    def cancel(self) -> None:
        """Abandon the timer; its callback will not run."""
        self.callback = None
        if self.abandon is not None:
            abandon, self.abandon = self.abandon, None
            abandon()


class Owner(Protocol):
    """The execution that owns the loop, as the loop sees it."""

    def bring_next(self) -> bool:
        """No handle is ready: queue what comes next; False if nothing does."""
        ...

    def start_timer(self, seconds: int, handle: TimerHandle) -> None:
        """Run ``handle`` when a durable timer of ``seconds`` is over."""
        ...

    def admit(self, what: str) -> None:
        """Raise unless a durable operation may happen here and now."""
        ...

    def report(self, context: dict[str, Any]) -> None:
        """Take asyncio's report of an unhandled error."""
        ...


@refuse_world
class WorkflowLoop(asyncio.AbstractEventLoop):
    """The deterministic loop of one run of one execution."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.root = Scope(None)
        self.elapsed_ms = 0
        self.hash_base = 0
        """The base of its tasks' hashes: the same in each run of an execution."""
        self.stopped = False
        self.ready: deque[Handle] = deque()
        """The handles that wait their turn."""
        self.calls_from_threads: list[str] = []
        """Where the code is that called this loop from other threads, in vain."""
        self._asyncgens: weakref.WeakSet[AsyncGenerator[Any, Any]] = weakref.WeakSet()
        # By id, for weak references are gone when a generator is finalised.
        self._asyncgen_contexts: dict[int, Context] = {}

    # -- turns -----------------------------------------------------------------------------------

    def run_ready(self) -> None:
        """Run handles until the owner has none left, or until one of them sets `stopped`."""
        ready = self.ready
        bring_next = self.owner.bring_next
        while not self.stopped and (ready or bring_next()):
            while ready and not self.stopped:
                handle = ready.popleft()
                callback = handle.callback
                if callback is None:
                    continue
                try:
                    handle.context.run(callback, *handle.args)
                except BaseException as error:
                    self._on_error(callback, error)

    def _on_error(self, callback: Callable[..., Any], error: BaseException) -> None:
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            if is_from_signal(error):
                raise error
            if (task := task_of_step(callback)) is not None:
                # asyncio's task has it, and raises it besides.
                logger.debug("%r while %s ran", error, task.get_name())
                return
        if isinstance(error, RuntimeError) and str(error).startswith("cannot enter context"):
            error = UsageError(
                "a task or callback was to go on in a context (context=...) in which another task "
                "is blocked, and Python lets only one be inside. Give each a copy: "
                "create_task(..., context=context.copy()), or wait there with await: "
                "pyworkflow.sleep, async steps"
            )
            if (task := task_of_step(callback)) is not None:
                WorkflowGreenlet(task.fail, self, context=task.context).switch(error)
                return
        message = f"Exception in callback {callback!r}"
        self.call_exception_handler({"message": message, "exception": error})

    def inside(self, function: Callable[[], None]) -> None:
        """Call ``function`` with this loop as the running loop of the thread.

        Must be called from a plain callback of the host's loop, never inside a host's task: since
        3.14 the current task belongs to the thread, not to the loop.
        """
        host, hooks = running_loop(), sys.get_asyncgen_hooks()
        set_running_loop(self)
        sys.set_asyncgen_hooks(
            firstiter=self._on_first_iteration, finalizer=self._finalize_asyncgen
        )
        try:
            function()
        finally:
            sys.set_asyncgen_hooks(*hooks)
            set_running_loop(host)

    # -- namespaces ------------------------------------------------------------------------------

    def make_callbacks_in(self, namespace: Namespace) -> None:
        """Assign the callbacks that the running task makes from here on to ``namespace``."""
        callback_namespace.set(namespace)

    def namespace(self) -> Namespace:
        """Return the namespace of the running code: its task's, or its callback's maker's."""
        task = current_task(self)
        if task is not None:
            return task.namespace  # type: ignore[no-any-return] # our Task
        namespace = callback_namespace.get()
        if namespace is None:
            raise UsageError(
                "a callback that was given an empty context (context=contextvars.Context()) asked "
                "for a task or something durable: nothing says to which task that belongs. Give it "
                "contextvars.copy_context() instead"
            )
        return namespace

    def scope(self) -> Scope | None:
        """Return the scope of the running code, `None` where nothing says which it is."""
        task = current_task(self)
        namespace = callback_namespace.get() if task is None else task.namespace
        return None if namespace is None else namespace.scope

    # -- asyncio's interface ---------------------------------------------------------------------

    def call_soon(  # type: ignore[override] # our own Handle: asyncio's takes twice the time
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Handle:
        """Run ``callback`` after what is ready already."""
        handle = Handle(callback, args, copy_context() if context is None else context)
        self.ready.append(handle)
        return handle

    def call_next(self, callback: Callable[[], Any]) -> None:
        """Run ``callback`` before all that is ready: once the running handle is over or blocks."""
        self.ready.appendleft(Handle(callback, (), copy_context()))

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Handle:
        """Run ``callback`` after a durable timer of ``delay`` seconds, rounded up to whole ones.

        An infinite delay never ends and records nothing.
        """
        if delay <= 0:
            return self.call_soon(callback, *args, context=context)
        when = self.time() + delay
        timer = TimerHandle(callback, args, copy_context() if context is None else context, when)
        if delay == math.inf:
            self.owner.admit("a timer")
            return timer
        self.owner.start_timer(whole_seconds(delay), timer)
        return timer

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Handle:
        """Run ``callback`` at ``when`` on this loop's clock; see `call_later`."""
        return self.call_later(when - self.time(), callback, *args, context=context)

    def ring(self, timer: TimerHandle) -> None:
        """Queue the callback of a timer that is over."""
        if not timer.cancelled():
            self.ready.append(timer)

    def time(self) -> float:
        """Return the seconds of virtual time since the execution began."""
        return self.elapsed_ms / 1000

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future of this loop."""
        return Future(loop=self)

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
        **_: Any,  # eager_start (3.14): a task here always begins with the next handle
    ) -> Task[T]:
        """Make a task; it takes one number of the namespace that makes it."""
        try:
            self.owner.admit("creating a task")
            if created_out_of_order():
                raise UsageError(
                    "asyncio.as_completed got a bare coroutine: it keeps them in a set, whose "
                    "order changes with each replay. Pass tasks: "
                    "asyncio.as_completed([asyncio.create_task(c) for c in coroutines])"
                )
        except BaseException:
            coro.close()
            raise
        maker = self.namespace()
        path = maker.take_path()
        return self.make_task(coro, Namespace(path, maker.scope), maker.number, name, context)

    def make_main(self, coro: Coroutine[Any, Any, T]) -> Task[T]:
        """Make the task of the workflow itself, in a context like a body's."""
        context = body_context(copy_context())
        context.run(callback_namespace.set, None)  # it may be a run in a body of another one
        return self.make_task(coro, Namespace("", self.root), context=context)

    def make_task(
        self,
        coro: Coroutine[Any, Any, T],
        namespace: Namespace,
        number: int = 0,
        name: str | None = None,
        context: Context | None = None,
    ) -> Task[T]:
        """Make a task that runs in ``namespace``; the engine's own take no number."""
        is_own = context is None
        context = copy_context() if context is None else context
        if is_own or context.get(callback_namespace) is None:
            context.run(callback_namespace.set, namespace)
        # asyncio keeps the tasks of all loops in one set: the high bits distinguish executions. The
        # low ones decide the order in the small sets of one.
        task = Task(coro, self, namespace, self.hash_base + number, name, context)
        namespace.scope.add_task(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Report an unhandled error."""
        self.owner.report(context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Report an unhandled error."""
        self.owner.report(context)

    def get_debug(self) -> bool:
        """Return False: asyncio's debug mode measures time."""
        return False

    def is_running(self) -> bool:
        """Return True: the loop is only ever seen from inside."""
        return True

    def is_closed(self) -> bool:
        """Return False: the loop is only ever seen from inside."""
        return False

    # -- async generators ------------------------------------------------------------------------

    def _on_first_iteration(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._asyncgens.add(generator)
        task = current_task(self)
        self._asyncgen_contexts[id(generator)] = copy_context() if task is None else task.context

    def _finalize_asyncgen(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Close a generator that was dropped half-way, in a task that may do nothing durable."""
        self._asyncgens.discard(generator)
        context = self._asyncgen_contexts.pop(id(generator), None)
        namespace = Namespace("finaliser", self.root, detached=True)
        if self.stopped:
            # In a greenlet of its own, for code that swallows its end is parked there.
            unwinder = WorkflowGreenlet(_unwind, self, context=context)
            self.inside(lambda: unwinder.switch(generator, namespace))
            return
        self.make_task(_close(generator), namespace)

    def dispose_asyncgens(self) -> None:
        """Unwind the generators that are still open when the run is disposed of."""
        for generator in list(self._asyncgens):
            self._finalize_asyncgen(generator)

    async def shutdown_asyncgens(self) -> None:
        """Close the generators that are still open, as `asyncio.run` does at its end."""
        for generator in list(self._asyncgens):
            await generator.aclose()


def make_loop(owner: Owner) -> WorkflowLoop:
    """Return a loop for one run. (No type checker sees the methods that `refuse_world` adds.)"""
    return WorkflowLoop(owner)  # type: ignore[abstract]


async def _close(generator: AsyncGenerator[Any, Any]) -> None:
    await generator.aclose()


def _unwind(generator: AsyncGenerator[Any, Any], namespace: Namespace) -> None:
    """Run a generator's cleanup up to its first ``await`` that has to wait."""
    token = callback_namespace.set(namespace)
    try:
        generator.aclose().__await__().send(None)
    except BaseException as error:
        logger.debug("%r while %r was disposed of", error, generator)
    callback_namespace.reset(token)
