"""Threads that code has started on a workflow's loop, as the cause of a deadlock.

Such a thread can't hand its result over: the loop refuses calls from other threads, for a replay
would see something else. So what awaits the result waits in vain, and the engine, which knows
nothing of threads, finds nothing that could ever happen. Only the thread itself gets the refusal.
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
    """Return ``end``; if it is a deadlock, with the threads that work for ``loop`` in its text."""
    if not (isinstance(end, Failed) and isinstance(end.error, DeadlockError)):
        return end
    causes = [f"  thread {thread.name!r}, which works for this loop" for thread in _threads(loop)]
    causes += [f"  a call from another thread: {place}" for place in loop.calls_from_threads]
    if not causes:
        return end
    error = DeadlockError(
        f"{end.error}\nHere the cause is a thread that was started in workflow code, by a library "
        "perhaps (anyio.to_thread, say): its result never reaches the workflow.\n"
        + "\n".join(causes)
        + "\nMove the code that uses the thread into a @step."
    )
    return Failed(record_error(error), error)


def _threads(loop: WorkflowLoop) -> Iterator[threading.Thread]:
    for thread in threading.enumerate():
        if _refers(list(vars(thread).values()), loop, 3):
            yield thread


def _refers(value: object, loop: WorkflowLoop, depth: int) -> bool:
    """Whether ``value``, or what it plainly consists of, is ``loop`` or a future of it."""
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
