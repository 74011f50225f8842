"""Host loops: where runners and async steps live, apart from any loop of the caller's."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from pyworkflow._runtime.forks import close_or_disown

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


class _KeptLoop:
    """The host loop of a thread, closed when the thread is gone."""

    def __init__(self) -> None:
        # A factory, or the loop would become the thread's own.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._process = os.getpid()
        # Whatever thread this is, no task is left: closing the loop needs none of its turns. As
        # `__del__` it would come too late where a cycle keeps this: after the loop's own sockets.
        weakref.finalize(self, close_or_disown, self._loop, self._process)

    @property
    def is_inherited(self) -> bool:
        """Whether a parent process made it, of which this one was forked."""
        return self._process != os.getpid()

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return _run_with(self._runner, main, contextvars.copy_context())
        finally:
            left = asyncio.all_tasks(self._loop)
            if left:
                for task in left:
                    task.cancel()
                self._loop.run_until_complete(asyncio.wait(left))

    def close(self) -> None:
        self._runner.close()


_of_thread = threading.local()


def run_on_kept_loop(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run ``main()`` on this thread's host loop, which stays for the next call, and return.

    So clients that a step opens live on from one invocation to the next. Tasks that are left over
    are cancelled. Inside a running loop it is `run_to_end`.
    """
    if _is_inside_a_loop():
        return run_to_end(main)
    kept: _KeptLoop | None = getattr(_of_thread, "loop", None)
    if kept is None or kept.is_inherited:
        kept = _of_thread.loop = _KeptLoop()
    try:
        return kept.run(main)
    except Exception:
        raise
    except BaseException:  # the loop was stopped in the midst of its work
        del _of_thread.loop
        kept.close()
        raise


def _is_inside_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def run_to_end(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run ``main()`` on a loop of its own and return its result.

    Works inside a running loop, too: then on a thread, while that loop stands still.
    """
    # Not in a `try`: what it raises would come with the RuntimeError as its context.
    return _run_on_thread(main) if _is_inside_a_loop() else _run_here(main)


def _run_here(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    # A factory, or the loop would become the thread's own, and be gone from there afterwards.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return _run_with(runner, main)


def _run_with(
    runner: asyncio.Runner,
    main: Callable[[], Coroutine[Any, Any, T]],
    context: contextvars.Context | None = None,
) -> T:
    """Run ``main()``; its error never is a task's.

    Before 3.14 asyncio.Runner writes out the task that it ran: a ``__repr__`` that raises would
    take the place of the error, and leave the signal handler of this run to all that follow.
    """
    errors: list[Exception] = []

    async def run() -> T | None:
        try:
            return await main()
        except Exception as error:
            errors.append(error)
            return None

    value = runner.run(run(), context=context)
    if errors:
        raise errors.pop()  # out of the list, or it would hold itself by its traceback
    return value  # type: ignore[return-value] # there was no error


def _run_on_thread(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []
    context = contextvars.copy_context()

    def run() -> None:
        try:
            results.append(context.run(_run_here, main))
        except BaseException as error:  # raised again on the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name="pyworkflow-host")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
