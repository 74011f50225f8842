"""Sleeping: nothing runs, and on Lambda nothing is billed.

Two forms. ``ctx.sleep("5m")`` blocks the calling task right there, with or without ``await``.
`sleep` is its lazy twin, to be awaited, for `asyncio.gather`, `asyncio.wait_for` and
`asyncio.create_task`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from pyworkflow._api.names import check_key, check_name
from pyworkflow._engine.current import current_execution, require_execution
from pyworkflow._engine.ops.wait import WaitOp
from pyworkflow.duration import parse_duration, whole_seconds
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Generator

    from pyworkflow._engine.execution import Execution
    from pyworkflow.duration import Duration


class Slept:
    """The result of ``ctx.sleep``, when the time is over; the same task may await it, or not."""

    __slots__ = ("_task",)

    # To asyncio, a coroutine that has ended; see below.
    cr_running = cr_suspended = False
    cr_frame = cr_await = None

    def __init__(self) -> None:
        self._task = asyncio.current_task()

    def __await__(self) -> Generator[Any, None, None]:
        caller = sys._getframe(1)
        if asyncio.current_task() is not self._task or caller.f_code is asyncio.wait_for.__code__:
            self.send(None)
        return iter(())  # type: ignore[return-value] # a generator would not know its caller

    def send(self, _: object) -> NoReturn:
        """Refuse to be run as a task's coroutine: raise `UsageError`."""
        raise UsageError(
            "ctx.sleep(...) blocks right where it is called: passed to gather, wait_for or "
            "create_task, the sleeps would run one after the other. Use pyworkflow.sleep(...), "
            "which starts when it is awaited."
        )

    def throw(self, error: BaseException) -> NoReturn:
        """Raise ``error``: a task was cancelled before it began."""
        raise error

    def close(self) -> None:
        """Do nothing: the time is over."""


# At run time only: create_task accepts it and raises the error of `send`, instead of a TypeError
# about coroutines. To type checkers, create_task(ctx.sleep(...)) is still a mistake.
Coroutine.register(Slept)


def sleep(
    duration: Duration, *, name: str | None = None, key: str | None = None
) -> Coroutine[Any, Any, None]:
    """Sleep durably for ``duration``, rounded up to whole seconds, once it is awaited.

    0 returns at once. A workflow that returns without awaiting it fails.

    Raises:
        DurationError: the duration is malformed, negative or longer than 366 days.
        UsageError: called outside of a workflow, or in a step.
    """
    coroutine = _sleep(duration, name, key)
    if (execution := current_execution()) is not None:
        execution.open_scopes.calls().expect(coroutine, "pyworkflow.sleep()")
    return coroutine


async def _sleep(duration: Duration, name: str | None, key: str | None) -> None:
    execution = require_execution("pyworkflow.sleep()")
    op = start_wait(execution, parse_duration(duration), name, key)
    if op is not None:
        await op.outcome()


def start_wait(
    execution: Execution, exact_seconds: float, name: str | None, key: str | None
) -> WaitOp | None:
    """Issue a wait of whole seconds, rounded up; `None` if there is nothing to wait for."""
    seconds = whole_seconds(exact_seconds)
    if seconds == 0:
        return None
    if name is not None:
        check_name(name, "a sleep")
    if key is not None:
        check_key(key, "a sleep")
    op = WaitOp(execution, seconds, name, key)
    op.exact_seconds = exact_seconds
    execution.issue(op)
    return op


def seconds_until(execution: Execution, when: datetime) -> float:
    """Return the seconds from the workflow's current time to ``when``, 0 if it is past."""
    if not isinstance(when, datetime) or when.tzinfo is None:
        raise UsageError(
            f"sleep_until takes a datetime with a time zone, not {when!r}; for example "
            "ctx.now() + timedelta(hours=1), or datetime(2030, 1, 1, tzinfo=timezone.utc)"
        )
    return max(0.0, (when - execution.now()).total_seconds())
