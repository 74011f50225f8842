"""The end of an invocation's time, which whatever hangs must not put off.

Three moments. From the first no further attempt of a step begins; in between, attempts that run may
end, and their outcomes are recorded. At the second the invocation ends, whatever runs. Until the
third, what was cancelled may clean up, and a checkpoint in flight may be answered; then both are
left behind, and the answer is given.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

T = TypeVar("T")


class Deadline(NamedTuple):
    """When the last step may begin, when the invocation ends, when it is left: ms of the epoch."""

    last_call_ms: int
    end_ms: int
    close_ms: int

    @classmethod
    def after(cls, now_ms: int, remaining_ms: int) -> Deadline:
        """Return the deadline of a process that will be stopped ``remaining_ms`` from now.

        A tenth of the time, at most 10 s, is left to the steps that run; a twentieth, at most 1 s,
        to the last checkpoint, to cleaning up, and a third of that to the answer.
        """
        stop_ms = now_ms + remaining_ms
        margin_ms = min(1_000, remaining_ms // 20)
        return cls(
            stop_ms - min(10_000, remaining_ms // 10),
            stop_ms - margin_ms,
            stop_ms - margin_ms // 3,
        )

    def seconds_left(self, now_ms: int) -> float:
        """Return how long it is until the invocation is left."""
        return max(0, self.close_ms - now_ms) / 1000


class TimeIsOver(Exception):  # noqa: N818 - a signal, which ends as `OutOfTime`
    """Something did not end in time; it was cancelled, and nobody waits for it."""


async def in_time(coroutine: Coroutine[Any, Any, T], seconds: float | None) -> T:
    """Return what ``coroutine`` returns, within ``seconds``; `None` is no limit.

    Raises `TimeIsOver`, even where cancelling it takes longer.
    """
    if seconds is None:
        return await coroutine
    task = asyncio.ensure_future(coroutine)
    try:
        await asyncio.wait([task], timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
    if not task.done():
        raise TimeIsOver
    return task.result()
