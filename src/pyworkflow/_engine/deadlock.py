"""The report of a workflow that can't go on: what each of its tasks awaits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pyworkflow.errors import DeadlockError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

    from pyworkflow._engine.loop.tasks import Task


# Frames in these folders say nothing to an author: asyncio's and our own.
_LIBRARIES = (asyncio.__file__.rpartition("__init__")[0], __file__.rpartition("_engine")[0])


def deadlock_error(tasks: Iterable[Task[Any]]) -> DeadlockError:
    """Return the error that lists where each unfinished task is and what it awaits."""
    lines = [f"  {task.get_name()}: {_whereabouts(task)}" for task in tasks if not task.done()]
    return DeadlockError(
        "the workflow awaits something that can never happen: no step runs, and no timer, retry or "
        "other outside event is pending.\n"
        + "\n".join(lines)
        + "\nAn Event, Queue, Lock or Future that only code which never runs would set is the "
        "usual cause."
    )


def _whereabouts(task: Task[Any]) -> str:
    awaited: Any = task.get_coro()
    frames: list[FrameType] = []
    while (frame := _frame(awaited)) is not None:
        frames.append(frame)
        awaited = awaited.cr_await if hasattr(awaited, "cr_await") else awaited.gi_yieldfrom
    awaits = f"awaits {_name(task.awaited(), awaited)}"
    return f"{_line(frames)}, {awaits}" if frames else awaits


def _frame(awaited: Any) -> FrameType | None:
    return getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)


def _line(frames: list[FrameType]) -> str:
    """Return the innermost line of the author's own code, and what of the library it is in."""
    own = [frame for frame in frames if not frame.f_code.co_filename.startswith(_LIBRARIES)]
    frame = (own or frames)[-1]
    line = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
    return line if frame is frames[-1] else f"{line}, {frames[-1].f_code.co_qualname}"


def _name(future: asyncio.Future[Any] | None, awaited: Any) -> str:
    if isinstance(future, asyncio.Task):
        return future.get_name()
    if future is not None:
        return "a future that nobody completes"
    return f"{type(awaited).__name__} {getattr(awaited, '__qualname__', '')}".strip()
