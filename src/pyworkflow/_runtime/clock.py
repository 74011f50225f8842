"""The one place where time is read.

A clock also knows whether time may pass: the test clock jumps to the next due moment when nothing
real is going on, and stands still while something *holds* it.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from typing import Protocol

DEFAULT_START_MS = 1_767_225_600_000
"""Where virtual time begins: 2026-01-01T00:00:00Z."""


class Alarm(Protocol):
    """A callback that waits for its moment."""

    def cancel(self) -> None:
        """Forget the callback."""
        ...


class Clock(Protocol):
    """The time, as whole milliseconds since the epoch."""

    def now_ms(self) -> int:
        """Return the time."""
        ...

    def call_at(self, when_ms: int, callback: Callable[[], None]) -> Alarm:
        """Call ``callback`` on the running loop at ``when_ms``."""
        ...

    def hold(self) -> None:
        """Something real begins: time must not jump until `release`."""
        ...

    def release(self) -> None:
        """Something real is over."""
        ...


class holding:  # noqa: N801 - it reads as a verb
    """Let virtual time stand still for a block."""

    __slots__ = ("_clock",)

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __enter__(self) -> None:
        self._clock.hold()

    def __exit__(self, *_: object) -> None:
        self._clock.release()


class SystemClock:
    """The time of the machine."""

    def now_ms(self) -> int:
        """Return the time."""
        return time.time_ns() // 1_000_000

    def call_at(self, when_ms: int, callback: Callable[[], None]) -> Alarm:
        """Call ``callback`` on the running loop at ``when_ms``."""
        delay_ms = max(0, when_ms - self.now_ms())
        return asyncio.get_running_loop().call_later(delay_ms / 1000, callback)

    def hold(self) -> None:
        """Do nothing: this time passes anyway."""

    def release(self) -> None:
        """Do nothing: this time passes anyway."""


class _VirtualAlarm:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class VirtualClock:
    """Time that passes only by jumping to the next moment for which something waits."""

    def __init__(self, start_ms: int = DEFAULT_START_MS) -> None:
        self._now_ms = start_ms
        self._alarms: list[tuple[int, int, _VirtualAlarm]] = []
        self._set = 0
        self._holds = 0
        self._jumps_on: asyncio.AbstractEventLoop | None = None

    def now_ms(self) -> int:
        """Return the virtual time."""
        return self._now_ms

    def advance_to(self, when_ms: int) -> None:
        """Let time pass to ``when_ms``; it never goes back."""
        self._now_ms = max(self._now_ms, when_ms)

    def call_at(self, when_ms: int, callback: Callable[[], None]) -> Alarm:
        """Call ``callback`` when time jumps to ``when_ms``."""
        alarm = _VirtualAlarm(callback)
        self._set += 1
        heapq.heappush(self._alarms, (when_ms, self._set, alarm))
        self._jump_soon()
        return alarm

    def hold(self) -> None:
        """Let time stand still until `release`; holds count."""
        self._holds += 1

    def release(self) -> None:
        """Let time jump again once nothing holds it."""
        self._holds -= 1
        if self._alarms:
            self._jump_soon()

    def _jump_soon(self) -> None:
        # One jump at a time, or time would pass before anybody could act on what came first.
        if not self._holds and self._jumps_on is not (loop := asyncio.get_running_loop()):
            self._jumps_on = loop
            loop.call_soon(self._jump)

    def _jump(self) -> None:
        self._jumps_on = None
        while self._alarms and not self._holds:
            when_ms, _, alarm = heapq.heappop(self._alarms)
            callback = alarm.callback
            if callback is not None:
                self.advance_to(when_ms)
                callback()
                # One event at a time: what follows from it may set an earlier alarm.
                if self._alarms:
                    self._jump_soon()
                return
