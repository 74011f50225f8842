"""When the bodies of steps and contexts began and ended, as services of ours record it.

An update may carry these times, by its sender's clock. They are kept between the operation's
previous event and the service's own clock, so no event comes before its cause. They are for display
and `ctx.now()` alone: the order of delivery, timers and leases know only the service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from pyworkflow._protocol.records import Action

if TYPE_CHECKING:
    from pyworkflow._protocol.records import Operation, Update


def within(time_ms: int | None, since_ms: int, now_ms: int) -> int:
    """Return a time of the sender's, no earlier than ``since_ms`` and no later than ``now_ms``."""
    if time_ms is None or time_ms >= now_ms:
        return now_ms
    return max(time_ms, since_ms)


def attempt_ms(operation: Operation) -> int:
    """Return when the latest attempt of a step began; other operations have one attempt."""
    return operation.attempt_start_ms or operation.start_ms


def event_ms(update: Update, operation: Operation, now_ms: int) -> int:
    """Return the time of the event that ``update`` reports; its record has not ended."""
    since_ms = operation.attempt_start_ms or operation.start_ms
    if update.action is Action.RETRY:
        return within(update.end_ms, since_ms, now_ms)
    return since_ms


def begun_late(update: Update, operation: Operation, now_ms: int) -> Operation:
    """Return ``operation`` as begun when the body did, as is known at the end of the attempt.

    A START may be recorded before its body begins: at most once, or while no thread is free.
    """
    if update.begin_ms is None:
        return operation
    begin_ms = within(update.begin_ms, attempt_ms(operation), now_ms)
    if operation.ended_attempts:
        return replace(operation, attempt_start_ms=begin_ms)
    return replace(operation, start_ms=begin_ms)
