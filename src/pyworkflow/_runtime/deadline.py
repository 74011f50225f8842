"""The deadline of an invocation, which is kept even if something hangs.

It has three moments. After the first, no attempt of a step begins; running attempts may end and are
recorded. At the second, the invocation ends, whatever is running. Until the third, cancelled bodies
may clean up and the checkpoint in flight may be answered; then both are abandoned, and the
invocation returns.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

T = TypeVar("T")


class Deadline(NamedTuple):
    """When the last step may begin, the invocation ends, and it returns: ms since the epoch."""

    last_call_ms: int
    end_ms: int
    close_ms: int

    @classmethod
    def after(cls, now_ms: int, remaining_ms: int) -> Deadline:
        """Return the deadline of a process that will be stopped ``remaining_ms`` from now.

        Steps begin until a tenth of the time, at most 10 s, is left. The invocation ends when a
        twentieth, at most 1 s, is left: two thirds of that are for the last checkpoint and for
        cleanup, one third for the answer.
        """
        stop_ms = now_ms + remaining_ms
        margin_ms = min(1_000, remaining_ms // 20)
        return cls(
            stop_ms - min(10_000, remaining_ms // 10),
            stop_ms - margin_ms,
            stop_ms - margin_ms // 3,
        )

    def seconds_left(self, now_ms: int) -> float:
        """Return the seconds until the invocation must return."""
        return max(0, self.close_ms - now_ms) / 1000


class TimeIsOver(Exception):  # noqa: N818 - a signal, which ends as `OutOfTime`
    """Something did not end in time; it was cancelled and is not awaited."""


async def in_time(coroutine: Coroutine[Any, Any, T], seconds: float | None) -> T:
    """Return what ``coroutine`` returns, within ``seconds``; `None` means no limit.

    Raises `TimeIsOver` on time, even if the coroutine takes longer to be cancelled.
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
