from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Generator
from typing import Any

import pytest

from pyworkflow import DeadlockError, sleep, step, workflow
from pyworkflow._engine.deadlock import deadlock_error
from pyworkflow.aws.testing import create_test_handler
from tests.engine.loops import World


def lines(world: World) -> list[str]:
    error = deadlock_error(world.tasks())
    assert isinstance(error, DeadlockError)
    first, *found, last = str(error).split("\n")
    assert "the workflow awaits something that can never happen" in first
    assert "Event, Queue, Lock or Future" in last
    return [line.replace(__file__, "FILE") for line in found]


def line_of(function: Any, after: int = 1) -> int:
    return int(function.__code__.co_firstlineno) + after


def test_each_unfinished_task_is_listed_with_its_line() -> None:
    world = World()

    async def done() -> None:
        return

    async def waits() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        made = [asyncio.create_task(done()), asyncio.create_task(waits(), name="mine")]
        await asyncio.wait(made)

    world.start(main())
    where = "test_each_unfinished_task_is_listed_with_its_line.<locals>"
    assert lines(world) == [
        f"  task main: FILE:{line_of(main, 2)} in {where}.main, _wait, "
        "awaits a future that nobody completes",
        f"  mine: FILE:{line_of(waits)} in {where}.waits, Event.wait, "
        "awaits a future that nobody completes",
    ]
    world.close()


def test_a_task_that_is_awaited_is_named() -> None:
    world = World()

    async def waits() -> None:
        await world.loop.create_future()

    async def main() -> None:
        await asyncio.create_task(waits(), name="the other")

    world.start(main())
    main_line, other_line = lines(world)
    assert main_line.endswith("main, awaits the other")
    assert other_line.endswith("waits, awaits a future that nobody completes")
    world.close()


def test_a_blocked_task_names_what_it_waits_for() -> None:
    world = World()

    async def waits() -> None:
        await world.loop.create_future()

    async def main() -> None:
        world.greenlets.wait(asyncio.create_task(waits(), name="the other"))

    world.start(main())
    assert lines(world)[0].endswith("awaits the other")
    world.close()


class Compiled(Coroutine[Any, Any, None]):
    """A coroutine without Python frames, as compiled code makes them."""

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self._wait = iter(future)

    def send(self, value: object) -> Any:
        return next(self._wait)

    def throw(self, *error: Any) -> Any:
        raise error[0]

    def close(self) -> None:
        return

    def __await__(self) -> Generator[Any, None, None]:
        raise NotImplementedError


def test_a_task_without_frames() -> None:
    world = World()

    async def main() -> None:
        await asyncio.create_task(Compiled(world.loop.create_future()))

    world.start(main())
    assert lines(world)[1] == "  task 1: awaits a future that nobody completes"
    world.close()


def test_objects_with_await_are_followed_through_generators() -> None:
    world = World()

    class Ticket:
        def __await__(self) -> Generator[Any, None, None]:
            yield from world.loop.create_future()

    async def numbers() -> AsyncIterator[int]:
        await world.loop.create_future()
        yield 1

    async def through_a_generator() -> None:
        async for _ in numbers():
            pass

    async def main() -> None:
        made = asyncio.create_task(through_a_generator())
        await Ticket()
        await made

    world.start(main())
    first, second = lines(world)
    assert "Ticket.__await__, awaits a future" in first
    assert "through_a_generator, awaits a future" in second
    world.close()


def test_a_task_between_two_waits_names_what_it_is_in() -> None:
    world = World()

    class Pause:
        def __await__(self) -> Generator[None, None, None]:
            world.loop.stopped = True
            yield

    async def main() -> None:
        await Pause()

    world.start(main())
    (line,) = lines(world)
    assert line.endswith("Pause.__await__, awaits NoneType")
    world.close()


@step
async def charge(amount: int) -> int:
    return amount


def test_a_workflow_that_waits_for_nothing_fails_with_the_report() -> None:
    @workflow
    async def order() -> None:
        await charge(1)
        queue: asyncio.Queue[int] = asyncio.Queue()
        await queue.get()

    with pytest.raises(DeadlockError, match=r"task main: .*order, Queue.get, awaits a future"):
        create_test_handler(order)({})


def test_what_something_outside_may_end_is_no_deadlock() -> None:
    @workflow
    async def order() -> str:
        ready = asyncio.Event()

        async def late() -> None:
            await sleep(10)
            ready.set()

        task = asyncio.create_task(late())
        await ready.wait()
        await task
        return "went on"

    assert create_test_handler(order)({}) == "went on"
