from __future__ import annotations

import asyncio
from typing import Any

from pyworkflow import sleep, step
from pyworkflow._engine.messages import Suspended
from pyworkflow._engine.ops.wait import WaitOp
from pyworkflow._protocol.records import Status
from tests.engine.harness import Run, Service, actions


@step
async def a() -> Any: ...


@step
async def b() -> Any: ...


async def sleeps() -> Any:
    await sleep(5, name="nap")
    return "awake"


async def timed() -> Any:
    try:
        async with asyncio.timeout(5):
            return await a()
    except TimeoutError:
        await sleep(1)
        return "late"


def waits(service: Service) -> list[Status]:
    return [o.status for o in service.operations.values() if o.type == "WAIT"]


def test_a_wait_is_written_when_nothing_else_goes_on_and_then_the_run_suspends() -> None:
    run = Run(sleeps)
    assert actions(run.in_flight) == ["START nap"]
    assert run.end is None
    run.commit()
    assert isinstance(run.end, Suspended)


def test_a_wait_that_is_over_by_the_time_of_its_answer_goes_on_at_once() -> None:
    run = Run(sleeps)
    run.write()
    run.service.fire_next()
    run.execution.resolve(run.service.refresh())
    # The answer holds the end alone: the service tells each operation's newest state.
    run.advance()
    assert run.value == "awake"


def test_found_waiting_it_waits_on() -> None:
    run = Run(sleeps)
    run.commit()
    run = run.crash(sleeps)
    assert isinstance(run.end, Suspended)
    assert run.in_flight is None
    run = run.wake(sleeps)
    assert run.value == "awake"


def test_a_timer_that_was_not_needed_is_never_written() -> None:
    run = Run(timed)
    assert run.turn.lags
    run.done("a", 1)
    assert run.value == 1
    assert waits(run.service) == []

    async def main() -> Any:
        await b()
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
        return "done"

    run = Run(main)
    run.done("b")
    assert run.value == "done"
    assert waits(run.service) == []


def test_an_abandoned_timer_that_was_written_is_left_alone() -> None:
    run = Run(timed)
    run.lag()
    run.commit()
    run.done("a", 1)
    assert run.value == 1
    assert waits(run.service) == [Status.STARTED]
    run.service.fire_next()
    again = run.crash(timed)
    assert again.value == 1
    assert again.trace.delivered == run.trace.delivered, "its late end is passed by"


def test_a_timer_that_fires_first_wins_and_stays_the_winner() -> None:
    run = Run(timed)
    run.lag()
    run.commit()
    run.service.fire_next()
    run.refresh()
    assert run.cancelled == ["a"]
    run.settle()
    assert isinstance(run.end, Suspended)
    run = run.wake(timed)
    assert run.launched == []
    assert run.value == "late"


def test_a_timer_in_flight_that_is_abandoned_ends_unseen() -> None:
    async def main() -> Any:
        task = asyncio.create_task(sleeps())
        await a()
        task.cancel()
        await asyncio.Event().wait()

    run = Run(main)
    run.lag()
    assert actions(run.in_flight) == ["START a", "START nap"]
    run.ok("a")
    run.settle()
    assert "never happen" in str(run.end), "an abandoned timer is nothing to wait for"


def test_the_timer_behind_a_cancelled_handle_is_abandoned() -> None:
    async def main() -> Any:
        calls: list[str] = []
        loop = asyncio.get_running_loop()
        loop.call_later(3, calls.append, "kept")
        loop.call_later(3, calls.append, "gone").cancel()
        await asyncio.sleep(3)
        return calls

    run = Run(main)
    assert run.in_flight is not None
    assert [u.wait_seconds for u in run.in_flight] == [3, 3]
    run.commit()
    run = run.wake(main)
    run = run.wake(main)
    assert run.value == ["kept"]


def test_it_says_what_it_waits_for() -> None:
    run = Run(sleeps)
    (op,) = run.trace.issued
    assert isinstance(op, WaitOp)
    assert op.awaits() == "Wait 'nap' of 5 s"


def test_a_replayed_wait_that_is_abandoned_has_nothing_to_drop() -> None:
    async def main() -> Any:
        task = asyncio.create_task(sleeps())
        await a()
        task.cancel()
        return "done"

    run = Run(main)
    run.lag()
    run.commit()
    run = run.crash(main)
    run.done("a")
    assert run.value == "done"
    assert waits(run.service) == [Status.STARTED]
