from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow import RetryableError, WorkflowContext, sleep, step, workflow
from pyworkflow._engine.messages import End, OutOfTime, Succeeded, Suspended
from pyworkflow._protocol.records import OperationType, Status
from pyworkflow._runtime.deadline import Deadline
from tests.runtime.world import START_MS, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyworkflow import Workflow

DEADLINE = Deadline(START_MS + 10_000, START_MS + 15_000, START_MS + 16_000)


@pytest.mark.parametrize(
    ("remaining_ms", "last_call", "end", "close"),
    [
        (900_000, 890_000, 899_000, 899_667),
        (3_000, 2_700, 2_850, 2_950),
        (60_000, 54_000, 59_000, 59_667),
        (0, 0, 0, 0),
    ],
)
def test_what_is_left_of_the_time(remaining_ms: int, last_call: int, end: int, close: int) -> None:
    assert Deadline.after(5, remaining_ms) == (5 + last_call, 5 + end, 5 + close)


@step
async def wait(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


def invoke(world: World, main: Workflow[..., Any], deadline: Deadline | None = DEADLINE) -> End:
    if not world.execution_id:
        world.start(main)
    return world.do(world.invoke(main, deadline, must_record=lambda _: False))


def test_no_step_begins_after_the_last_call(world: World) -> None:
    @workflow
    async def main() -> list[float]:
        return [await wait(seconds) for seconds in (4, 8, 3)]

    assert isinstance(invoke(world, main), OutOfTime)
    assert world.loop.time() == 12  # the one that ran was seen to its end
    steps = world.memory.operations(world.execution_id)[1:]
    assert [one.status for one in steps] == [Status.SUCCEEDED, Status.SUCCEEDED]
    end = invoke(world, main, None)
    assert isinstance(end, Succeeded)
    assert end.value == [4, 8, 3]
    assert world.loop.time() == 15  # nothing ran twice


def test_at_the_end_what_runs_is_cancelled(world: World) -> None:
    cancelled: list[float] = []

    @step
    async def long() -> int:
        started = world.loop.time()
        try:
            await asyncio.sleep(20 if not cancelled else 1)
        except asyncio.CancelledError:
            cancelled.append(world.loop.time() - started)
            raise
        return 1

    @workflow
    async def main() -> int:
        return await long()

    assert isinstance(invoke(world, main), OutOfTime)
    assert cancelled == [15]
    assert world.operations()["long"].status is Status.STARTED
    assert isinstance(invoke(world, main, None), Succeeded)


def test_an_at_most_once_step_is_not_even_recorded_as_started(world: World) -> None:
    runs: list[int] = []

    @step(at_most_once=True)
    async def charge() -> int:
        runs.append(1)
        return 1

    @workflow
    async def main() -> int:
        await wait(12)
        return await charge()

    assert isinstance(invoke(world, main), OutOfTime)
    assert "charge" not in world.operations()
    assert isinstance(invoke(world, main, None), Succeeded)
    assert runs == [1]


def test_a_workflow_that_only_waits_is_suspended(world: World) -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> None:
        await wait(12)
        ctx.sleep("7d")

    assert isinstance(invoke(world, main), Suspended)
    assert world.operations()["WAIT"].status is Status.STARTED


def test_it_ends_in_time_if_it_needs_no_further_step(world: World) -> None:
    @workflow
    async def main() -> float:
        return await wait(12)

    assert isinstance(invoke(world, main), Succeeded)


def both(second: Callable[[], Any]) -> Workflow[..., Any]:
    @workflow
    async def main() -> Any:
        async def steps() -> list[float]:
            return [await wait(seconds) for seconds in (12, 1)]

        return await asyncio.gather(steps(), second())

    return main


def test_it_tells_when_it_is_invoked_anyway(world: World) -> None:
    end = invoke(world, both(lambda: sleep("1h")))
    assert isinstance(end, OutOfTime)
    assert end.due_ms == START_MS + 100 + 3_600_000


def test_a_retry_that_comes_due_waits(world: World) -> None:
    @step
    async def flaky() -> None:
        await asyncio.sleep(9.5)
        raise RetryableError(retry_after="2s")

    main = both(flaky)
    assert isinstance(invoke(world, main), OutOfTime)
    assert world.operations()["flaky"].status is Status.READY
    assert world.operations()["flaky"].ended_attempts == 1


def test_a_step_that_is_cancelled_before_it_could_begin_holds_nothing_up(world: World) -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> str:
        await wait(12)
        held = wait.submit(1)
        await asyncio.sleep(0)
        held.cancel()
        return "done"

    end = invoke(world, main)
    assert isinstance(end, Succeeded)
    assert len(world.memory.operations(world.execution_id)) == 2


def test_a_step_found_started_is_not_begun_again(world: World) -> None:
    @workflow
    async def main() -> float:
        return await wait(30)

    assert isinstance(invoke(world, main), OutOfTime)
    late = Deadline(0, START_MS + 60_000, START_MS + 61_000)
    world.loop.selector.now = 20
    assert isinstance(invoke(world, main, late), OutOfTime)
    assert world.loop.time() == pytest.approx(20, abs=1)
    assert world.operations()["wait"].type is OperationType.STEP


def test_cleaning_up_that_needs_a_step_waits_for_the_next_invocation(world: World) -> None:
    @workflow
    async def main() -> str:
        async def background() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await wait(1)

        task = asyncio.create_task(background())
        await wait(12)
        assert not task.done()
        return "done"

    assert isinstance(invoke(world, main), OutOfTime)
    assert isinstance(invoke(world, main, None), Succeeded)
    assert len(world.memory.operations(world.execution_id)) == 3


def test_the_end_is_recorded_if_it_must_be(world: World) -> None:
    @workflow
    async def main() -> str:
        return "x" * 10

    world.start(main)
    told: list[End] = []

    def is_not_needed(end: End) -> bool:
        told.append(end)
        return False

    end = world.do(world.invoke(main, must_record=is_not_needed))
    assert told == [end]
    assert world.service.batches == []
    world.do(world.invoke(main))
    assert world.service.moves() == [["EXECUTION SUCCEED"]]


# -- whatever hangs ------------------------------------------------------------------------------

LEFT_SECONDS = 16
"""When an invocation with this deadline is left, on the loop's clock."""


@step
async def stubborn(seconds: float) -> float:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(seconds)
        raise
    return seconds


@workflow
async def cleans_up_slowly() -> float:
    return await stubborn(600)


def end_what_is_left(world: World) -> None:
    """Do what a host does with tasks that an invocation has left."""
    for task in asyncio.all_tasks(world.loop):
        task.cancel()
        world.do(asyncio.wait([task]))


def test_a_checkpoint_that_hangs_does_not_put_off_the_end(world: World) -> None:
    @workflow
    async def main() -> list[float]:
        return [await wait(seconds) for seconds in (1, 2)]

    world.service.gates[1] = asyncio.Event()
    assert isinstance(invoke(world, main), OutOfTime)
    assert world.loop.time() == LEFT_SECONDS
    assert world.service.in_flight == 0, "the request ended with the invocation"
    end = invoke(world, main, None)
    assert isinstance(end, Succeeded)
    assert end.value == [1, 2]


def test_a_step_that_is_slow_to_clean_up_does_not_put_off_the_end(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(invoke(world, cleans_up_slowly), OutOfTime)
    assert world.loop.time() == LEFT_SECONDS
    assert "1 cancelled steps of execution 'execution-1' are still cleaning up" in caplog.text
    end_what_is_left(world)


def test_cleaning_up_in_time_is_waited_for(world: World) -> None:
    @workflow
    async def main() -> float:
        return await stubborn(0.5)

    assert isinstance(invoke(world, main), OutOfTime)
    assert world.loop.time() == 15.5


def test_a_workflow_that_returned_is_answered_although_a_step_hangs(world: World) -> None:
    @workflow
    async def main() -> str:
        try:
            async with asyncio.timeout(2):
                await stubborn(600)
        except TimeoutError:
            return "in time"
        return "never"

    end = invoke(world, main)
    assert isinstance(end, Succeeded)
    assert world.loop.time() == LEFT_SECONDS
    end_what_is_left(world)


class Hanging:
    """A service that answers nothing of one kind."""

    def __init__(self, world: World, what: str) -> None:
        self._memory = world.memory
        self._what = what
        self.given_up: list[str] = []

    async def _hang(self, what: str) -> None:
        if what == self._what:
            try:
                await asyncio.Event().wait()
            finally:
                self.given_up.append(what)

    async def load(self, *args: Any) -> Any:
        await self._hang("load")
        return await self._memory.load(*args)

    async def commit(self, execution_id: str, token: str, updates: Any) -> Any:
        if any(update.type is OperationType.EXECUTION for update in updates):
            await self._hang("end")
        return await self._memory.commit(execution_id, token, updates)


@pytest.mark.parametrize("what", ["load", "end"])
def test_reading_and_the_last_record_are_bounded(what: str) -> None:
    world = World(page_size=1)

    @workflow
    async def main() -> list[float]:
        return [await wait(seconds) for seconds in (1, 2)]

    world.start(main)
    if what == "load":  # then there is more than one page
        soon = Deadline(START_MS + 1_500, START_MS + 1_600, START_MS + 1_700)
        assert isinstance(invoke(world, main, soon), OutOfTime)
    service = Hanging(world, what)
    run = world.invoke(main, DEADLINE, service=service, must_record=lambda _: what == "end")
    assert isinstance(world.do(run), OutOfTime)
    assert world.loop.time() == LEFT_SECONDS
    assert service.given_up == [what]
    world.close()
