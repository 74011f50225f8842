"""Host loops: where runners and async steps live, apart from any loop of the caller's."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


def run_to_end(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run ``main()`` on a loop of its own and return its result.

    Works inside a running loop, too: then on a thread, while that loop stands still.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        run = _run_here
    else:
        run = _run_on_thread
    # Not above: what it raises would come with the RuntimeError as its context.
    return run(main)


def _run_here(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    # A factory, or the loop would become the thread's own, and be gone from there afterwards.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(main())


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
