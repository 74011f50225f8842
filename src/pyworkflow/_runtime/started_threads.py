"""Threads that workflow code started, as the cause of a deadlock.

Such a thread can't deliver its result: the loop refuses calls from other threads, because a replay
would differ. So the code that awaits the result never resumes, and the engine, which knows nothing
of threads, reports a deadlock. Only the thread itself sees the refusal.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from types import FunctionType, MethodType
from typing import TYPE_CHECKING

from pyworkflow._engine.messages import End, Failed
from pyworkflow._values.exceptions import record_error
from pyworkflow.errors import DeadlockError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyworkflow._engine.loop.event_loop import WorkflowLoop


def name_threads(end: End, loop: WorkflowLoop) -> End:
    """Return ``end``; a deadlock's message then names the threads that work for ``loop``."""
    if not (isinstance(end, Failed) and isinstance(end.error, DeadlockError)):
        return end
    causes = [f"  thread {thread.name!r}, which works for this loop" for thread in _threads(loop)]
    causes += [f"  a call from another thread: {place}" for place in loop.calls_from_threads]
    if not causes:
        return end
    error = DeadlockError(
        f"{end.error}\nThe cause is a thread that was started in workflow code, perhaps by a "
        "library such as anyio.to_thread: its result never reaches the workflow.\n"
        + "\n".join(causes)
        + "\nMove the code that uses the thread into a @step."
    )
    return Failed(record_error(error), error)


def _threads(loop: WorkflowLoop) -> Iterator[threading.Thread]:
    for thread in threading.enumerate():
        if _refers(list(vars(thread).values()), loop, 3):
            yield thread


def _refers(value: object, loop: WorkflowLoop, depth: int) -> bool:
    """Return whether ``value``, or a visible part of it, is ``loop`` or one of its futures."""
    if value is loop:
        return True
    parts: list[object] = []
    match value:
        case asyncio.Future():
            return value.get_loop() is loop
        case list() | tuple():
            parts = list(value)
        case dict():
            parts = list(value.values())
        case MethodType():
            parts = [value.__self__, *getattr(value.__self__, "__dict__", {}).values()]
        case FunctionType():
            parts = list(inspect.getclosurevars(value).nonlocals.values())
    return depth > 0 and any(_refers(part, loop, depth - 1) for part in parts)
