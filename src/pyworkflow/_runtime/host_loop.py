"""Host loops: where runners and async steps run, apart from any loop of the caller.

Each thread keeps one, shared by its Lambda invocations, mock calls, `run`s and synchronous clients.
So what a body opens for its loop, such as a global HTTP client, lives on from one call to the next.
The loop runs on its own thread if that can wait; else *behind* it, in a helper thread that lasts as
long as the loop is needed.

An exit exception that a task or callback raises there, a sub-task of a body for instance, concerns
that task alone: asyncio stops the loop, which is then resumed. A signal's exception ends the run.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import signal
import threading
import weakref
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pyworkflow._api.body_threads import body_threads
from pyworkflow._engine.exits import is_from_signal
from pyworkflow._engine.loop.tasks import disown, waking_fd
from pyworkflow.errors import DeadlockError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future
    from types import FrameType

T = TypeVar("T")

logger = logging.getLogger("pyworkflow.steps")

LEAVING_SECONDS = 5
"""Time for leftover tasks to clean up; one may never end."""

CLOSINGS = 10
"""How often a coroutine that keeps waiting is closed before its loop is abandoned."""

BLOCKED_SECONDS = 10
"""Time for a loop to stop before it counts as blocked."""

SIGNAL_SECONDS = 1
"""Maximum delay of a signal while the main thread waits for another thread."""

_OF_LOOPS = {"asyncio", "selectors", "pyworkflow", "uvloop"}
"""The packages whose code runs on an idle loop."""


class HostLoop:
    """The loop of one thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._pid = os.getpid()
        self._is_run_here = False
        self._is_left = False
        self._users = 0
        self._changing = threading.Lock()
        self._is_stopping = False
        self.thread: threading.Thread | None = None
        """The thread behind, while the loop runs there."""
        _loops.add(self)
        # Safe on any thread: no task is left, so closing the loop needs no turn of it. `__del__`
        # would be too late in a cycle: after the loop's own sockets.
        weakref.finalize(self, _close_idle, self._loop, self._pid)

    @property
    def is_usable(self) -> bool:
        """Whether it is open, belongs to this process, and was not abandoned."""
        is_ours = self._pid == os.getpid() and not self._is_left
        return is_ours and not self._loop.is_closed()

    @property
    def is_run_here(self) -> bool:
        """Whether its own thread is running it."""
        return self._is_run_here

    def run(
        self,
        main: Callable[[], Coroutine[Any, Any, T]],
        seconds_left: Callable[[], float] | None = None,
    ) -> T:
        """Run ``main()`` to its end, here or behind, and return its result.

        Leftover tasks have `LEAVING_SECONDS` to clean up, or ``seconds_left()``; then they are
        closed, so that nothing of one call goes on in the next.
        """
        with self._changing:
            is_behind = self.thread is not None or _is_inside_a_loop()
            if is_behind:
                self._begin_use()
        if not is_behind:
            return self._run_here(main, seconds_left)
        try:
            return self._run_behind(main)
        finally:
            self.end_use(BLOCKED_SECONDS)

    def close(self) -> None:
        """Close the loop, and the generators that are open on it."""
        if not self._is_left:
            self.run(self._loop.shutdown_asyncgens)
        if self.thread is None:
            self._loop.close()

    # -- on the own thread -----------------------------------------------------------------------

    def _run_here(
        self,
        main: Callable[[], Coroutine[Any, Any, T]],
        seconds_left: Callable[[], float] | None,
    ) -> T:
        loop, ending = self._loop, _Ending[T]()
        task = loop.create_task(ending.take(main), context=contextvars.copy_context())
        self._is_run_here = True
        try:
            with _Interrupts(loop, task) as interrupts:
                _run_on(loop, task, interrupts)
        finally:
            self._is_run_here = False
            self._end_left(LEAVING_SECONDS if seconds_left is None else seconds_left())
            if self._is_left:
                self._loop.close()
        return ending.result()

    def _end_left(self, seconds: float) -> None:
        """Cancel leftover tasks, wait for them, and close those that take too long.

        If a task goes on regardless, the loop is abandoned.
        """
        loop = self._loop
        left = asyncio.all_tasks(loop)
        if not left:
            return
        for task in left:
            task.cancel()
        _run_on(loop, loop.create_task(_wait_for(left, seconds)))
        late = [task for task in left if not task.done()]
        if not late:
            return
        logger.warning(
            "%d tasks were still cleaning up when the time was over, and were closed: %s",
            len(late),
            ", ".join(map(_named, late)),
        )
        for task in late:
            _close(task)
            task.cancel()
        _run_on(loop, loop.create_task(_wait_for(set(late), 0)))
        for task in late:
            if not task.done():
                self._is_left = True
            elif not task.cancelled():
                task.exception()  # retrieved, so that asyncio does not log it

    # -- behind ----------------------------------------------------------------------------------

    def begin_use(self) -> asyncio.AbstractEventLoop:
        """Run the loop behind until `end_use`, and return it."""
        with self._changing:
            self._begin_use()
        return self._loop

    def _begin_use(self) -> None:
        self._users += 1
        if self.thread is None:
            self._is_stopping = False
            name = f"pyworkflow-host of {threading.current_thread().name}"
            self.thread = threading.Thread(target=self._serve, name=name, daemon=True)
            self.thread.start()

    def end_use(self, wait_seconds: float) -> None:
        """Stop the loop if nothing else uses it.

        A loop that does not stop in time is blocked, and abandoned: the next user gets another.
        """
        with self._changing:
            self._users -= 1
            thread = self.thread
            if self._users or thread is None:
                return
            self._loop.call_soon_threadsafe(self._stop)
            thread.join(wait_seconds)
            if thread.is_alive():
                self._is_left = True
                return
            self.thread = None
            if self._is_left:
                self._loop.close()

    def _stop(self) -> None:
        self._is_stopping = True
        self._loop.stop()

    def _serve(self) -> None:
        while not self._is_stopping:
            try:
                self._loop.run_forever()
            except BaseException as error:
                _report(error)
        # Coroutines that were submitted become tasks first.
        _run_on(self._loop, self._loop.create_task(asyncio.sleep(0)))
        self._end_left(LEAVING_SECONDS)

    def _run_behind(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        ending = _Ending[T]()
        future = asyncio.run_coroutine_threadsafe(ending.take(main), self._loop)
        try:
            result_of(future)
        except BaseException:
            future.cancel()
            raise
        return ending.result()


def result_of(future: Future[T]) -> T:
    """Wait for ``future`` and return its result.

    A signal that another thread received, or that came just before the main thread began to wait,
    does not end the wait. So the wait is interrupted regularly, and Python runs the handler.
    """
    while True:
        try:
            return future.result(SIGNAL_SECONDS)
        except TimeoutError:
            if future.done():  # the error may be its own
                return future.result()


class _Ending(Generic[T]):
    """The outcome of a coroutine, whose error must not become its task's.

    asyncio formats a task that failed: a ``__repr__`` that raises would replace the error.
    """

    def __init__(self) -> None:
        self._values: list[T] = []
        self._errors: list[Exception] = []

    async def take(self, main: Callable[[], Coroutine[Any, Any, T]]) -> None:
        """Run ``main()`` and keep its outcome."""
        try:
            self._values.append(await main())
        except Exception as error:
            self._errors.append(error)

    def result(self) -> T:
        """Return the value or raise the error."""
        if self._errors:
            raise self._errors.pop()  # popped, or its traceback would refer to it
        return self._values.pop()


_loops: weakref.WeakSet[HostLoop] = weakref.WeakSet()
_of_thread = threading.local()


def host_loop() -> HostLoop:
    """Return the host loop of this thread.

    Code running on that loop, on the same thread, gets another one; the first stands still.
    """
    outer = _kept("outer")
    return _kept("inner") if outer.is_run_here else outer


def _kept(place: str) -> HostLoop:
    kept: HostLoop | None = getattr(_of_thread, place, None)
    if kept is None or not kept.is_usable:
        kept = HostLoop()
        setattr(_of_thread, place, kept)
    return kept


def run_on_kept_loop(
    main: Callable[[], Coroutine[Any, Any, T]],
    seconds_left: Callable[[], float] | None = None,
) -> T:
    """Run ``main()`` on this thread's host loop, kept for the next call; return its result.

    Leftover tasks are cancelled, and closed if they have not ended after ``seconds_left()``. Inside
    a running loop it runs behind, while that loop stands still.
    """
    kept = host_loop()
    with body_threads.lending() as has_room:
        if not has_room:
            raise DeadlockError(
                "a step can't run a workflow and wait for it: the maximum number of threads is "
                "waiting already. Call that workflow in the workflow, as a child"
            )
        try:
            return kept.run(main, seconds_left)
        except Exception:
            raise
        except BaseException:  # the loop was interrupted
            for place in ("outer", "inner"):
                if getattr(_of_thread, place, None) is kept:
                    delattr(_of_thread, place)
            kept.close()
            raise


def run_to_end(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run ``main()`` on a loop of its own and return its result.

    Inside a running loop it runs behind, while that loop stands still.
    """
    host = HostLoop()
    try:
        return host.run(main)
    finally:
        host.close()


def _is_inside_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _run_on(
    loop: asyncio.AbstractEventLoop,
    task: asyncio.Task[Any],
    interrupts: _Interrupts | None = None,
) -> None:
    """Run the loop until ``task`` is done, despite exit exceptions of anything else on it."""
    while not task.done():
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            if interrupts is not None and interrupts.count and task.uncancel() == 0:
                raise KeyboardInterrupt from None
            raise
        except BaseException as error:
            if task.done() or is_from_signal(error):
                raise
            _report(error)


def _report(error: BaseException) -> None:
    # An awaited task raises the error where it is awaited; a callback's goes nowhere.
    logger.debug("a task or callback of a step raised %r", error, exc_info=error)


async def _wait_for(tasks: set[asyncio.Task[Any]], seconds: float) -> None:
    await asyncio.wait(tasks, timeout=seconds)


def _named(task: asyncio.Task[Any]) -> str:
    return getattr(task.get_coro(), "__qualname__", task.get_name())


def _close(task: asyncio.Task[Any]) -> None:
    """Unwind a task's coroutine at once; each `close` ends one wait of its cleanup."""
    coroutine: Any = task.get_coro()
    for _ in range(CLOSINGS):
        try:
            coroutine.close()
        except RuntimeError:  # it waits again
            continue
        except asyncio.CancelledError:  # its first cancellation
            pass
        except (Exception, SystemExit) as error:
            logger.warning("%s raised while it was closed", _named(task), exc_info=error)
        return


def _close_idle(loop: asyncio.AbstractEventLoop, process: int) -> None:
    """Close an unreachable loop; disown one of another process."""
    # Ask the system: objects of lost threads are collected before any fork hook runs.
    if process != os.getpid():
        disown(loop)
    elif not loop.is_running():
        loop.close()


def _forget_inherited() -> None:
    for host in list(_loops):
        disown(host._loop)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_inherited)


class _Interrupts:
    """Handles Ctrl-C while a loop runs on the main thread.

    If the loop is idle, the first one cancels the task, as `asyncio.run` does, and so whatever it
    awaits. If code is running, a blocking body for instance, it raises there.

    Python runs a handler on the main thread, and only once that runs code: a signal that another
    thread received, or that came just before the loop began to wait, must wake the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        self._loop = loop
        self._task = task
        self._is_set = False
        self._former_fd: int | None = None
        self.count = 0

    def __enter__(self) -> _Interrupts:
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._on_interrupt)
            self._is_set = True
            if (waking := waking_fd(self._loop)) is not None:
                self._former_fd = signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        if self._former_fd is not None:
            signal.set_wakeup_fd(self._former_fd)
        if self._is_set and signal.getsignal(signal.SIGINT) == self._on_interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1 or self._task.done() or not _is_idle(frame):
            raise KeyboardInterrupt
        self._task.cancel()
        self._loop.call_soon_threadsafe(lambda: None)  # wake it


def _is_idle(frame: FrameType | None) -> bool:
    """Return whether a signal interrupted nothing but code of a loop."""
    while frame is not None and frame.f_code is not HostLoop._run_here.__code__:
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in _OF_LOOPS:
            return False
        frame = frame.f_back
    return True
