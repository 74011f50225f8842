"""Moments and spans of time as people read them; moments are in the local time zone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pyworkflow.duration import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def moment(time_ms: int) -> str:
    """Return a date and a time of day, to the second."""
    return f"{_local(time_ms):%Y-%m-%d %H:%M:%S}"


def time_of_day(time_ms: int) -> str:
    """Return a time of day, to the millisecond."""
    return f"{_local(time_ms):%H:%M:%S.%f}"[:-3]


def time_and_date(time_ms: int) -> str:
    """Return a date and a time of day, to the millisecond."""
    return f"{_local(time_ms):%Y-%m-%d} {time_of_day(time_ms)}"


def within(times_ms: Iterable[int]) -> Callable[[int], str]:
    """Return how to write these times, to the millisecond: with dates if they are of several."""
    if len({_local(time_ms).date() for time_ms in times_ms}) <= 1:
        return time_of_day
    return time_and_date


def _local(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC).astimezone()


def span(duration_ms: int) -> str:
    """Return a length of time, exact to its last shown digit: ``12ms``, ``3.4s``, ``1h30m5s``."""
    if duration_ms < 1_000:
        return f"{max(0, duration_ms)}ms"
    if duration_ms < 60_000:
        return f"{duration_ms // 100 / 10:g}s"
    return format_duration(duration_ms // 1_000)


def until(due_ms: int, now_ms: int) -> str:
    """Return a moment that is to come, and how far it is away."""
    left_ms = due_ms - now_ms
    if left_ms <= 0:
        return "now"
    # A second that has begun counts: nobody wants to see a wait at 0 for a second.
    left = format_duration(-(-left_ms // 1_000))
    day = moment(due_ms)
    return f"{day if left_ms >= 12 * 3_600_000 else day[11:]} (in {left})"
