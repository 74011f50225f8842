from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from pyworkflow._runtime.clock import DEFAULT_START_MS, SkippingClock, SystemClock, VirtualClock
from tests.runtime.world import LoopClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.runtime.world import World


async def idle() -> None:
    """Let the loop do whatever it can do without time."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_virtual_time_begins_in_2026() -> None:
    assert VirtualClock().now_ms() == DEFAULT_START_MS
    assert time.gmtime(DEFAULT_START_MS / 1000)[:6] == (2026, 1, 1, 0, 0, 0)  # noqa: TID251


def test_the_system_clock_tells_the_machines_time() -> None:
    before = time.time_ns()  # noqa: TID251
    now = SystemClock().now_ms()
    after = time.time_ns()  # noqa: TID251
    assert before // 1_000_000 <= now <= after // 1_000_000


def test_the_system_clock_calls_on_the_running_loop(world: World) -> None:
    clock = SystemClock()
    rung: list[str] = []

    async def main() -> None:
        clock.hold()  # real time passes anyway
        done = asyncio.Event()
        clock.call_at(clock.now_ms() - 5, lambda: rung.append("past"))
        clock.call_at(clock.now_ms() + 60_000, lambda: rung.append("cancelled")).cancel()
        clock.call_at(clock.now_ms() + 120_000, done.set)
        await done.wait()
        clock.release()

    world.do(main())
    assert rung == ["past"]
    assert world.loop.time() == pytest.approx(120, abs=10)


class Scene:
    """A virtual clock and what it rang, with the times."""

    def __init__(self) -> None:
        self.clock = VirtualClock(0)
        self.rung: list[tuple[str, int]] = []

    def at(self, when_ms: int, name: str) -> Callable[[], None]:
        return self.clock.call_at(
            when_ms, lambda: self.rung.append((name, self.clock.now_ms()))
        ).cancel


def test_time_passes_no_further_before_what_follows_from_an_alarm_has_run() -> None:
    async def main() -> None:
        scene = Scene()
        loop = asyncio.get_running_loop()
        cancel_late = scene.at(20, "late")
        scene.at(30, "later")()
        scene.clock.call_at(10, lambda: loop.call_soon(cancel_late))  # type: ignore[arg-type]
        await idle()
        assert scene.rung == []
        assert scene.clock.now_ms() == 10

    asyncio.run(main())


def test_alarms_ring_in_the_order_of_their_times_then_of_their_setting() -> None:
    async def main() -> None:
        scene = Scene()
        scene.at(30, "c")
        scene.at(10, "a")
        scene.at(20, "b1")
        scene.at(20, "b2")
        assert scene.rung == []
        await idle()
        assert scene.rung == [("a", 10), ("b1", 20), ("b2", 20), ("c", 30)]
        assert scene.clock.now_ms() == 30

    asyncio.run(main())


def test_a_cancelled_alarm_moves_no_time() -> None:
    async def main() -> None:
        scene = Scene()
        scene.at(10, "a")()
        scene.at(20, "b")
        scene.at(30, "c")()
        await idle()
        assert scene.rung == [("b", 20)]
        assert scene.clock.now_ms() == 20

    asyncio.run(main())


def test_time_never_goes_back() -> None:
    async def main() -> None:
        scene = Scene()
        scene.clock.advance_to(50)
        scene.clock.advance_to(40)
        assert scene.clock.now_ms() == 50
        scene.at(10, "late")
        await idle()
        assert scene.rung == [("late", 50)]

    asyncio.run(main())


def test_held_time_stands_still_until_the_last_release() -> None:
    async def main() -> None:
        scene = Scene()
        scene.clock.hold()
        scene.clock.hold()
        scene.at(10, "a")
        await idle()
        scene.clock.release()
        await idle()
        assert (scene.rung, scene.clock.now_ms()) == ([], 0)
        scene.clock.release()
        await idle()
        assert scene.rung == [("a", 10)]

    asyncio.run(main())


def test_a_hold_that_begins_before_the_jump_prevents_it() -> None:
    async def main() -> None:
        scene = Scene()
        scene.at(10, "a")
        scene.clock.hold()
        await idle()
        assert scene.rung == []
        scene.clock.release()
        scene.clock.hold()  # nothing is set off by a release that is taken back
        await idle()
        assert scene.rung == []

    asyncio.run(main())


def test_a_release_without_alarms_needs_no_loop() -> None:
    clock = VirtualClock(7)
    clock.hold()
    clock.release()
    assert clock.now_ms() == 7


def test_what_an_alarm_sets_off_comes_before_later_alarms() -> None:
    async def main() -> None:
        scene = Scene()

        def chain() -> None:
            scene.rung.append(("first", scene.clock.now_ms()))
            scene.at(20, "second")

        scene.clock.call_at(10, chain)
        scene.at(100, "far")
        await idle()
        assert scene.rung == [("first", 10), ("second", 20), ("far", 100)]

    asyncio.run(main())


def test_an_alarm_that_holds_the_clock_stops_it_there() -> None:
    async def main() -> None:
        scene = Scene()
        scene.clock.call_at(10, scene.clock.hold)
        scene.at(10, "same time")
        scene.at(20, "later")
        await idle()
        assert (scene.rung, scene.clock.now_ms()) == ([], 10)
        scene.clock.release()
        await idle()
        assert scene.rung == [("same time", 10), ("later", 20)]

    asyncio.run(main())


class SkippingScene:
    """A clock that skips time, over a machine's time that jumps when the loop has nothing to do."""

    def __init__(self, world: World) -> None:
        self.machine = LoopClock(world.loop)
        self.clock = SkippingClock(self.machine)
        self.start_ms = self.clock.now_ms()
        self.rung: list[tuple[str, int, int]] = []

    def at(self, after_ms: int, name: str, *, for_suspended: bool = False) -> Callable[[], None]:
        def ring() -> None:
            now_ms, machine_ms = self.clock.now_ms(), self.machine.now_ms()
            self.rung.append((name, now_ms - self.start_ms, machine_ms - self.start_ms))

        when_ms = self.start_ms + after_ms
        return self.clock.call_at(when_ms, ring, for_suspended=for_suspended).cancel


def test_waits_are_skipped_and_the_machine_s_time_goes_on(world: World) -> None:
    scene = SkippingScene(world)

    async def main() -> None:
        scene.at(60_000, "b")
        scene.at(3_000, "a")
        scene.at(30_000, "cancelled")()
        await idle()
        assert scene.rung == [("a", 3_000, 0), ("b", 60_000, 0)]
        await asyncio.sleep(5)
        assert scene.clock.now_ms() - scene.start_ms == 65_000

    world.do(main())


def test_a_running_body_takes_the_machine_s_time(world: World) -> None:
    scene = SkippingScene(world)

    async def main() -> None:
        scene.clock.enter_body()
        scene.at(2_000, "the limit of the body")
        await idle()
        assert scene.rung == []
        await asyncio.sleep(3)
        assert scene.rung == [("the limit of the body", 2_000, 2_000)]
        scene.at(63_000, "another")
        scene.at(23_000, "sooner")()
        await idle()
        scene.clock.leave_body()
        await idle()
        assert scene.rung[1:] == [("another", 63_000, 3_000)]

    world.do(main())


def test_a_running_body_stops_nobody_else_s_time(world: World) -> None:
    scene = SkippingScene(world)

    async def main() -> None:
        scene.clock.enter_body()
        scene.at(10_000, "suspended", for_suspended=True)
        scene.at(20_000, "the limit of the body")
        scene.at(30_000, "suspended", for_suspended=True)
        await idle()
        assert scene.rung == [("suspended", 10_000, 0)]
        await asyncio.sleep(11)
        assert scene.rung[1:] == [
            ("the limit of the body", 20_000, 10_000),
            ("suspended", 30_000, 10_000),
        ]

    world.do(main())


def test_what_holds_skipped_time_prevents_jumps_alone(world: World) -> None:
    scene = SkippingScene(world)

    async def main() -> None:
        scene.clock.hold()
        scene.at(2_000, "a")
        scene.at(9_000, "b")
        await asyncio.sleep(3)
        assert scene.rung == [("a", 2_000, 2_000)]
        scene.at(5_000, "sooner")
        await asyncio.sleep(3)
        assert scene.rung[1:] == [("sooner", 5_000, 5_000)]
        scene.clock.release()
        await idle()
        assert scene.rung[2:] == [("b", 9_000, 6_000)]
        scene.at(12_000, "cancelled")()
        await idle()

    world.do(main())
