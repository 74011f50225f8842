"""Host loops: where runners and async steps live, apart from any loop of the caller's.

A thread keeps one: Lambda's invocations, mock calls, `run`s and synchronous clients of that thread
share it. So what a body opens for its loop, such as a global HTTP client, lives on from one to the
next. It runs on its own thread where that can wait, else behind it, in a thread that lasts as long
as somebody needs the loop to run.

An exit that some task or callback raises on it, a sub-task of a body for instance, is that task's
alone: asyncio stops the loop for it, and the loop is run on. A signal's is not: it ends the run.
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
"""How long tasks that are left over may take to clean up; one may never be over."""

CLOSINGS = 10
"""How often a coroutine that goes on waiting is closed before its loop is given up."""

BLOCKED_SECONDS = 10
"""How long a loop may take to stop before it is taken to be blocked."""

SIGNAL_SECONDS = 1
"""How late the main thread may learn of a signal while it waits for another thread."""

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
        # Whatever thread this is, no task is left: closing the loop needs none of its turns. As
        # `__del__` it would come too late where a cycle keeps this: after the loop's own sockets.
        weakref.finalize(self, _close_idle, self._loop, self._pid)

    @property
    def is_usable(self) -> bool:
        """Whether it is open, of this process, and was not left to itself."""
        is_ours = self._pid == os.getpid() and not self._is_left
        return is_ours and not self._loop.is_closed()

    @property
    def is_run_here(self) -> bool:
        """Whether its own thread runs it."""
        return self._is_run_here

    def run(
        self,
        main: Callable[[], Coroutine[Any, Any, T]],
        seconds_left: Callable[[], float] | None = None,
    ) -> T:
        """Run ``main()`` to its end, here or behind, and return its result.

        Tasks that it leaves have `LEAVING_SECONDS` to clean up, or ``seconds_left()``; then they
        are closed, so that nothing of one call goes on in the next.
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
        """Cancel the tasks that are left, see them to their end, and close those that take long.

        A loop with a task that goes on all the same is given up.
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
                task.exception()  # that its coroutine is closed; nobody else is to hear of it

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
        """Stop the loop if nobody else needs it.

        One that does not stop in time is blocked and left to itself: the next user has another.
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
        # What was to begin becomes a task.
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

    A signal that another thread took, or that came just before the main thread began to wait, does
    not end the wait. So it ends by itself now and then, and Python runs the signal's handler.
    """
    while True:
        try:
            return future.result(SIGNAL_SECONDS)
        except TimeoutError:
            if future.done():  # the error may be its own
                return future.result()


class _Ending(Generic[T]):
    """How a coroutine ended. Its error never is a task's.

    asyncio writes out a task that failed: a ``__repr__`` that raises would take the error's place.
    """

    def __init__(self) -> None:
        self._values: list[T] = []
        self._errors: list[Exception] = []

    async def take(self, main: Callable[[], Coroutine[Any, Any, T]]) -> None:
        """Run ``main()`` and keep what comes of it."""
        try:
            self._values.append(await main())
        except Exception as error:
            self._errors.append(error)

    def result(self) -> T:
        """Return the value or raise the error."""
        if self._errors:
            raise self._errors.pop()  # out of the list, or it would hold itself by its traceback
        return self._values.pop()


_loops: weakref.WeakSet[HostLoop] = weakref.WeakSet()
_of_thread = threading.local()


def host_loop() -> HostLoop:
    """Return the host loop of this thread.

    Code that runs on that loop, on the same thread, has another one: the first stands still.
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
    """Run ``main()`` on this thread's host loop, which stays for the next call, and return.

    Tasks that are left over are cancelled, and closed if they have not ended after
    ``seconds_left()``. Inside a running loop it runs behind, while that loop stands still.
    """
    kept = host_loop()
    with body_threads.lending() as has_room:
        if not has_room:
            raise DeadlockError(
                "a step that runs a workflow of its own would wait for it, with as many threads "
                "waiting as there may be. Call that workflow in the workflow, as a child"
            )
        try:
            return kept.run(main, seconds_left)
        except Exception:
            raise
        except BaseException:  # the loop was stopped in the midst of its work
            for place in ("outer", "inner"):
                if getattr(_of_thread, place, None) is kept:
                    delattr(_of_thread, place)
            kept.close()
            raise


def run_to_end(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run ``main()`` on a loop of its own and return its result.

    Works inside a running loop, too: then behind, while that loop stands still.
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
    """Run the loop until ``task`` is done, whatever exit anything else on it raises."""
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
    # Whoever awaits the task has the error from there; a callback has nobody.
    logger.debug("a task or callback of a step raised %r", error, exc_info=error)


async def _wait_for(tasks: set[asyncio.Task[Any]], seconds: float) -> None:
    await asyncio.wait(tasks, timeout=seconds)


def _named(task: asyncio.Task[Any]) -> str:
    return getattr(task.get_coro(), "__qualname__", task.get_name())


def _close(task: asyncio.Task[Any]) -> None:
    """Unwind a task's coroutine, here and now; each `close` ends one wait of its cleanup."""
    coroutine: Any = task.get_coro()
    for _ in range(CLOSINGS):
        try:
            coroutine.close()
        except RuntimeError:  # it waits again
            continue
        except asyncio.CancelledError:  # what it was told at first
            pass
        except (Exception, SystemExit) as error:
            logger.warning("%s raised while it was closed", _named(task), exc_info=error)
        return


def _close_idle(loop: asyncio.AbstractEventLoop, process: int) -> None:
    """Close a loop that nobody has any more; that of another process is left to that one."""
    # The system is asked: what a lost thread had is collected before anybody hears of the fork.
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
    """What Ctrl-C does while a loop runs on the main thread.

    Where the loop is idle, the first one cancels the task, as `asyncio.run` has it, and so whatever
    it waits for. Where code runs, a body that blocks for instance, it raises there.

    Python runs a handler on the main thread, and only once that runs code: a signal that another
    thread took, or that came just before the loop began to wait, must wake the loop.
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
        self._loop.call_soon_threadsafe(lambda: None)  # or it would sleep on


def _is_idle(frame: FrameType | None) -> bool:
    """Whether the code that a signal has interrupted is a loop's alone."""
    while frame is not None and frame.f_code is not HostLoop._run_here.__code__:
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in _OF_LOOPS:
            return False
        frame = frame.f_back
    return True
