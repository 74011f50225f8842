"""When the bodies of steps and contexts began and ended, as services of ours record it.

An update may carry these times, by its sender's clock. They are kept between the operation's
previous event and the service's own clock, so no event comes before its cause. They are for display
and `ctx.now()` alone: the order of delivery, timers and leases know only the service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyworkflow._engine.records import Action

if TYPE_CHECKING:
    from pyworkflow._engine.records import Operation, Update


def within(time_ms: int | None, since_ms: int, now_ms: int) -> int:
    """Return a time of the sender's, no earlier than ``since_ms`` and no later than ``now_ms``."""
    if time_ms is None or time_ms >= now_ms:
        return now_ms
    return max(time_ms, since_ms)


def attempt_ms(operation: Operation) -> int:
    """Return when the latest attempt of a step began; other operations have one attempt."""
    return operation.attempt_start_ms or operation.start_ms


def event_ms(update: Update, operation: Operation, now_ms: int) -> int:
    """Return when what ``update`` tells has happened; ``operation`` is the record that it made."""
    if operation.end_ms is not None:
        return operation.end_ms
    if update.action is Action.RETRY:
        return within(update.end_ms, attempt_ms(operation), now_ms)
    return attempt_ms(operation)


def begins(update: Update, operation: Operation, now_ms: int) -> tuple[int, int | None]:
    """Return when a step began, and its latest attempt, as known at the end of that attempt.

    A START may be recorded before its body begins: at most once, or while no thread is free.
    """
    start_ms, attempt_start_ms = operation.start_ms, operation.attempt_start_ms
    if update.begin_ms is None:
        return start_ms, attempt_start_ms
    if operation.ended_attempts:
        return start_ms, within(update.begin_ms, attempt_start_ms or start_ms, now_ms)
    return within(update.begin_ms, start_ms, now_ms), attempt_start_ms
