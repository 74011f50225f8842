"""The one place where time is read.

A clock also knows whether time may pass. `VirtualClock`, the clock of tests, jumps to the next due
moment when nothing real is going on, and stands still while something *holds* it or a body runs.
`SkippingClock`, the clock of clients that skip time, is never slower than the machine's: what holds
it prevents jumps alone, and while a body runs it jumps to alarms of suspended executions only. So a
body that hangs is cut by the timeout around it, after the time that the timeout says.
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

        ``for_suspended`` says that no running body waits under this alarm.
        """
        ...

    def hold(self) -> None:
        """Something real begins: time must not jump until `release`."""
        ...

    def release(self) -> None:
        """Something real is over."""
        ...

    def enter_body(self) -> None:
        """The body of a step begins: real time passes in it until `leave_body`."""
        ...

    def leave_body(self) -> None:
        """The body of a step has ended, or is left to itself."""
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
    """Time that passes only by jumping to the next moment for which something waits."""

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
        """Let time pass to ``when_ms``; it never goes back."""
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
        """Let time stand still until `release`; holds count."""
        self._holds += 1

    def release(self) -> None:
        """Let time jump again once nothing holds it."""
        self._holds -= 1
        if self._alarms:
            self._jump_soon()

    enter_body = hold
    leave_body = release

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


class SkippingClock:
    """The machine's time, plus what was skipped of it: it jumps over waits."""

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
        """The moment for which the machine's clock is set, and its alarm."""

    def now_ms(self) -> int:
        """Return the time; on any thread."""
        return self._machine.now_ms() + self._skipped_ms

    def call_at(
        self, when_ms: int, callback: Callable[[], None], *, for_suspended: bool = False
    ) -> Alarm:
        """Call ``callback`` at ``when_ms``, at which time may arrive by a jump."""
        alarm = _VirtualAlarm(callback, for_suspended=for_suspended)
        self._set += 1
        heapq.heappush(self._alarms, (when_ms, self._set, alarm))
        self._look_soon()
        return alarm

    def hold(self) -> None:
        """Let time not jump until `release`; holds count."""
        self._holds += 1

    def release(self) -> None:
        """Let time jump again once nothing holds it."""
        self._holds -= 1
        self._look_soon()

    def enter_body(self) -> None:
        """Let time not jump over the alarms of running executions until `leave_body`."""
        self._bodies += 1

    def leave_body(self) -> None:
        """Let time jump again once no body runs."""
        self._bodies -= 1
        self._look_soon()

    def _look_soon(self) -> None:
        # One alarm at a time, or time would pass before anybody could act on what came first.
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
        """Look again when the machine's time is there."""
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
