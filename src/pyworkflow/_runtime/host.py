"""Host loops: where runners and async steps live, apart from any loop of the caller's."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

logger = logging.getLogger("pyworkflow.host")

CLOSINGS = 10
"""How often a coroutine that goes on waiting is closed before its loop is given up."""


class _KeptLoop:
    """The host loop of a thread, closed when the thread is gone."""

    def __init__(self) -> None:
        # A factory, or the loop would become the thread's own.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        # Whatever thread this is, no task is left: closing the loop needs none of its turns. As
        # `__del__` it would come too late where a cycle keeps this: after the loop's own sockets.
        weakref.finalize(self, self._loop.close)
        self.is_usable = True
        """Whether no task is left that can't be ended."""

    def run(
        self, main: Callable[[], Coroutine[Any, Any, T]], seconds_left: Callable[[], float] | None
    ) -> T:
        try:
            return _run_with(self._runner, main, contextvars.copy_context())
        finally:
            left = asyncio.all_tasks(self._loop)
            if left:
                for task in left:
                    task.cancel()
                seconds = None if seconds_left is None else seconds_left()
                self._loop.run_until_complete(asyncio.wait(left, timeout=seconds))
                self._end_by_force([task for task in left if not task.done()])

    def _end_by_force(self, left: list[asyncio.Task[Any]]) -> None:
        """End tasks that took too long to clean up, or they would go on in the next run."""
        if not left:
            return
        logger.warning(
            "%d tasks were still cleaning up when the time was over, and were closed: %s",
            len(left),
            ", ".join(map(_named, left)),
        )
        for task in left:
            _close(task)
            task.cancel()
        self._loop.run_until_complete(asyncio.wait(left, timeout=0))
        for task in left:
            if not task.done():
                self.is_usable = False
            elif not task.cancelled():
                task.exception()  # that its coroutine is closed; nobody else is to hear of it

    def close(self) -> None:
        if asyncio.all_tasks(self._loop):
            self._loop.close()  # the runner would wait for a task that can't be ended
        else:
            self._runner.close()


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


_of_thread = threading.local()


def run_on_kept_loop(
    main: Callable[[], Coroutine[Any, Any, T]],
    seconds_left: Callable[[], float] | None = None,
) -> T:
    """Run ``main()`` on this thread's host loop, which stays for the next call, and return.

    So clients that a step opens live on from one invocation to the next. Tasks that are left over
    are cancelled; those that have not ended after ``seconds_left()`` are closed, so that nothing of
    one call goes on in the next. Inside a running loop it is `run_to_end`.
    """
    if _is_inside_a_loop():
        return run_to_end(main)
    kept: _KeptLoop | None = getattr(_of_thread, "loop", None)
    if kept is None:
        kept = _of_thread.loop = _KeptLoop()
    try:
        return kept.run(main, seconds_left)
    except Exception:
        raise
    except BaseException:  # the loop was stopped in the midst of its work
        kept.is_usable = False
        raise
    finally:
        if not kept.is_usable:
            del _of_thread.loop
            kept.close()


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
