"""The report of a workflow that can't go on: what each of its tasks awaits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pyworkflow.errors import DeadlockError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

    from pyworkflow._engine.tasks import Task


def deadlock_error(tasks: Iterable[Task[Any]]) -> DeadlockError:
    """Return the error that lists where each unfinished task is and what it awaits."""
    lines = [f"  {task.get_name()}: {_whereabouts(task)}" for task in tasks if not task.done()]
    return DeadlockError(
        "the workflow awaits something that can never happen: no step runs, and no timer, retry or "
        "other outside event is pending.\n"
        + "\n".join(lines)
        + "\nAn Event, Queue, Lock or Future that is only set by code which never runs is the usual "
        "cause."
    )


def _whereabouts(task: Task[Any]) -> str:
    awaited: Any = task.get_coro()
    frame: FrameType | None = None
    while getattr(awaited, "cr_frame", None) is not None:
        frame = awaited.cr_frame
        awaited = awaited.cr_await
    where = "not started" if frame is None else _line(frame)
    if task.blocked_on is not None:
        awaited = task.blocked_on
    return f"{where}, awaits {_name(awaited)}"


def _line(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"


def _name(awaited: Any) -> str:
    if isinstance(awaited, asyncio.Task):
        return awaited.get_name()
    if isinstance(awaited, asyncio.Future):
        return "a future that nobody completes"
    return f"{type(awaited).__name__} {getattr(awaited, '__qualname__', '')}".strip()
