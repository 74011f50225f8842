"""Clocks: the only place where time is read.

A clock also decides whether time may pass. `VirtualClock`, for tests, jumps to the next alarm when
nothing real is going on; it stands still while it is on *hold* or a body runs. `SkippingClock`, for
clients that skip time, is never slower than the machine's clock: a hold only prevents jumps, and
while a body runs it jumps only to alarms of suspended executions. So a timeout ends a body that
hangs after that much real time.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from typing import Protocol

DEFAULT_START_MS = 1_767_225_600_000
"""The start of virtual time: 2026-01-01T00:00:00Z."""


class Alarm(Protocol):
    """A scheduled callback."""

    def cancel(self) -> None:
        """Cancel the callback."""
        ...


class Clock(Protocol):
    """The time, as whole milliseconds since the epoch.

    ``skips_waits``: while bodies run it may jump, to alarms of suspended executions.
    """

    skips_waits: bool

    def now_ms(self) -> int:
        """Return the time."""
        ...

    def call_at(
        self, when_ms: int, callback: Callable[[], None], *, for_suspended: bool = False
    ) -> Alarm:
        """Call ``callback`` on the running loop at ``when_ms``.

        ``for_suspended``: no running body depends on this alarm.
        """
        ...

    def hold(self) -> None:
        """Prevent jumps until `release`: something real is going on. Holds nest."""
        ...

    def release(self) -> None:
        """Allow jumps again, after the last hold."""
        ...

    def enter_body(self) -> None:
        """Note that a step body begins: real time passes until `leave_body`."""
        ...

    def leave_body(self) -> None:
        """Note that a step body has ended or was abandoned."""
        ...


class holding:  # noqa: N801 - it reads as a verb
    """Put a clock on hold for a ``with`` block."""

    __slots__ = ("_clock",)

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __enter__(self) -> None:
        self._clock.hold()

    def __exit__(self, *_: object) -> None:
        self._clock.release()


class SystemClock:
    """The time of the machine."""

    skips_waits = False

    def now_ms(self) -> int:
        """Return the time."""
        return time.time_ns() // 1_000_000

    def call_at(
        self, when_ms: int, callback: Callable[[], None], *, for_suspended: bool = False
    ) -> Alarm:
        """Call ``callback`` on the running loop at ``when_ms``."""
        delay_ms = max(0, when_ms - self.now_ms())
        return asyncio.get_running_loop().call_later(delay_ms / 1000, callback)

    def hold(self) -> None:
        """Do nothing: this time passes anyway."""

    def release(self) -> None:
        """Do nothing: this time passes anyway."""

    def enter_body(self) -> None:
        """Do nothing: this time passes anyway."""

    def leave_body(self) -> None:
        """Do nothing: this time passes anyway."""


class _VirtualAlarm:
    def __init__(self, callback: Callable[[], None], *, for_suspended: bool = False) -> None:
        self.callback: Callable[[], None] | None = callback
        self.for_suspended = for_suspended

    def cancel(self) -> None:
        self.callback = None


class VirtualClock:
    """Time that passes only by jumping to the next alarm."""

    skips_waits = False

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
        """Move time to ``when_ms``; it never goes back."""
        self._now_ms = max(self._now_ms, when_ms)

    def call_at(
        self, when_ms: int, callback: Callable[[], None], *, for_suspended: bool = False
    ) -> Alarm:
        """Call ``callback`` when time jumps to ``when_ms``."""
        alarm = _VirtualAlarm(callback)
        self._set += 1
        heapq.heappush(self._alarms, (when_ms, self._set, alarm))
        self._jump_soon()
        return alarm

    def hold(self) -> None:
        """Stop time until `release`. Holds nest."""
        self._holds += 1

    def release(self) -> None:
        """Allow jumps again, after the last hold."""
        self._holds -= 1
        if self._alarms:
            self._jump_soon()

    enter_body = hold
    leave_body = release

    def _jump_soon(self) -> None:
        # One jump at a time, or time would pass before anything could react to the first.
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


class SkippingClock:
    """The machine's time plus the time skipped: it jumps over waits."""

    skips_waits = True

    def __init__(self, machine: Clock | None = None) -> None:
        self._machine: Clock = SystemClock() if machine is None else machine
        self._skipped_ms = 0
        self._alarms: list[tuple[int, int, _VirtualAlarm]] = []
        self._set = 0
        self._holds = 0
        self._bodies = 0
        self._looks_on: asyncio.AbstractEventLoop | None = None
        self._real: tuple[int, Alarm, asyncio.AbstractEventLoop] | None = None
        """The time for which the machine's alarm is set, the alarm, and its loop."""

    def now_ms(self) -> int:
        """Return the time. Safe on any thread."""
        return self._machine.now_ms() + self._skipped_ms

    def call_at(
        self, when_ms: int, callback: Callable[[], None], *, for_suspended: bool = False
    ) -> Alarm:
        """Call ``callback`` at ``when_ms``, which time may reach by a jump."""
        alarm = _VirtualAlarm(callback, for_suspended=for_suspended)
        self._set += 1
        heapq.heappush(self._alarms, (when_ms, self._set, alarm))
        self._look_soon()
        return alarm

    def hold(self) -> None:
        """Prevent jumps until `release`. Holds nest."""
        self._holds += 1

    def release(self) -> None:
        """Allow jumps again, after the last hold."""
        self._holds -= 1
        self._look_soon()

    def enter_body(self) -> None:
        """Prevent jumps to alarms of running executions until `leave_body`."""
        self._bodies += 1

    def leave_body(self) -> None:
        """Allow those jumps again once no body runs."""
        self._bodies -= 1
        self._look_soon()

    def _look_soon(self) -> None:
        # One alarm at a time, or time would pass before anything could react to the first.
        if self._alarms and self._looks_on is not (loop := asyncio.get_running_loop()):
            self._looks_on = loop
            loop.call_soon(self._look)

    def _look(self) -> None:
        self._looks_on = None
        while self._alarms and self._alarms[0][2].callback is None:
            heapq.heappop(self._alarms)
        if not self._alarms:
            return
        when_ms, _, alarm = self._alarms[0]
        left_ms = when_ms - self.now_ms()
        if left_ms > 0:
            if self._holds or (self._bodies and not alarm.for_suspended):
                self._wait_for(when_ms)
                return
            self._skipped_ms += left_ms
        heapq.heappop(self._alarms)
        assert alarm.callback is not None, "cancelled ones were dropped"
        alarm.callback()
        self._look_soon()

    def _wait_for(self, when_ms: int) -> None:
        """Look again when the machine's clock gets there."""
        loop = asyncio.get_running_loop()
        real_ms = when_ms - self._skipped_ms
        if self._real is not None:
            if (self._real[0], self._real[2]) == (real_ms, loop):
                return
            self._real[1].cancel()
        self._real = real_ms, self._machine.call_at(real_ms, self._on_real), loop

    def _on_real(self) -> None:
        self._real = None
        self._look_soon()
