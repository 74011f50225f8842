from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from pyworkflow import Retry, step
from pyworkflow._engine.messages import Broken, Failed, StepReturned, Suspended
from pyworkflow._engine.ops.step import StepOp
from pyworkflow._protocol.executions import Committed
from pyworkflow._protocol.records import Operation, OperationType, Status
from pyworkflow.errors import (
    FatalError,
    StepCancelledError,
    StepError,
    StepInterruptedError,
)
from tests.engine.harness import Run, Service, actions


@step
async def a(x: Any = None) -> Any: ...


@step
async def b() -> Any: ...


@step
async def number() -> int:
    return 0


async def one() -> Any:
    return await a()


async def careful() -> Any:
    return await a.options(at_most_once=True)()


async def careful_retried() -> Any:
    return await a.options(at_most_once=True, retry=2)()


async def cancels_a() -> Any:
    """Start a; once b is over, cancel it and wait."""
    task = asyncio.create_task(one())
    await b()
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        await asyncio.sleep(5)
        return "cancelled"


async def cancels_careful() -> Any:
    future = a.options(at_most_once=True).submit()
    await b()
    future.cancel()
    await asyncio.sleep(5)


def only(service: Service, name: str) -> Operation:
    (operation,) = service.named(name)
    return operation


# -- live ----------------------------------------------------------------------------------------


def test_the_body_runs_before_its_start_is_written() -> None:
    run = Run(one)
    assert run.launched == [("a", 1)]
    assert run.in_flight is None
    assert run.turn.lags
    assert str(run.call("a")) == "the result of step 'a'"


def test_a_fast_step_costs_one_checkpoint() -> None:
    run = Run(one)
    run.ok("a", 7)
    assert actions(run.in_flight) == ["START a", "SUCCEED a"]


def test_the_workflow_sees_the_outcome_only_once_it_is_durable() -> None:
    run = Run(one)
    run.ok("a", 7)
    assert run.end is None
    assert run.trace.delivered == []
    run.commit()
    assert run.value == 7


def test_the_workflow_gets_the_decoded_value_that_the_attempt_gave() -> None:
    value: list[int] = [1]

    async def main() -> Any:
        return (await a()) is value

    run = Run(main)
    call = run.call("a")
    run.execution.resolve(StepReturned(call.id, 1, "[1]", value))
    run.advance()
    run.commit()
    assert run.value is True


def test_a_slow_step_writes_its_start_when_the_lag_is_over() -> None:
    run = Run(one)
    run.lag()
    assert actions(run.in_flight) == ["START a"]
    run.commit()
    assert run.launched == [("a", 1)], "it runs already"
    run.ok("a")
    assert actions(run.in_flight) == ["SUCCEED a"]


def test_a_failure_is_rebuilt_from_its_record() -> None:
    error = FatalError("no")

    async def main() -> Any:
        try:
            await a()
        except FatalError as caught:
            return [caught is error, str(caught)]

    run = Run(main)
    run.fail("a", error)
    assert actions(run.in_flight) == ["START a", "FAIL a"]
    run.commit()
    assert run.value == [False, "no"]


def test_an_unknown_failure_is_a_step_error() -> None:
    run = Run(one)
    run.fail("a", type("Unknown", (FatalError,), {"__module__": "gone"})("no"))
    run.commit()
    assert isinstance(run.end, Failed)
    assert isinstance(run.end.error, FatalError), "the nearest known base"

    class Alien(BaseException):
        pass

    run = Run(one)
    run.fail("a", Alien("no"))
    run.commit()
    assert isinstance(run.end, Failed)
    assert isinstance(run.end.error, StepError)


# -- retries -------------------------------------------------------------------------------------


def test_a_retry_waits_until_the_service_says_ready() -> None:
    run = Run(one)
    run.fail("a", ValueError("once"))
    assert actions(run.in_flight) == ["START a", "RETRY a"]
    run.commit()
    assert isinstance(run.end, Suspended)

    run = run.wake(one)
    assert run.launched == [("a", 2)]
    run.done("a", 5)
    assert run.value == 5
    assert only(run.service, "a").attempt == 2


def test_a_retry_that_becomes_ready_meanwhile_is_started_after_that_was_read() -> None:
    async def main() -> Any:
        return await asyncio.gather(a(), b())

    run = Run(main)
    run.fail("a", ValueError("once"))
    run.commit()
    due_ms = only(run.service, "a").next_attempt_ms
    assert run.turn.next_due_ms == due_ms, "b runs, so the run goes on"
    run.service.fire_next()
    assert run.launched == [("a", 1), ("b", 1)]
    run.refresh()
    assert run.launched == [("a", 1), ("b", 1), ("a", 2)]
    assert run.turn.next_due_ms is None
    run.ok("b", 2)
    run.ok("a", 1)
    run.settle()
    assert run.value == [1, 2]


def test_ready_that_is_told_twice_starts_one_attempt() -> None:
    async def main() -> Any:
        return await asyncio.gather(a(), b())

    run = Run(main)
    run.fail("a", ValueError("once"))
    run.commit()
    ready = run.service.fire_next()
    run.refresh()
    run.execution.resolve(Committed("token", (ready,)))
    run.advance()
    run.lag()
    run.settle()
    assert run.launched == [("a", 1), ("b", 1), ("a", 2)]
    run.done("a", 1)
    run.done("b", 2)
    assert run.value == [1, 2]


def test_the_last_attempt_fails() -> None:
    async def main() -> Any:
        return await a.options(retry=Retry(max_attempts=2))()

    run = Run(main)
    run.fail("a", ValueError("one"))
    run.commit()
    run = run.wake(main)
    run.fail("a", ValueError("two"))
    assert actions(run.in_flight) == ["START a", "FAIL a"]
    run.commit()
    assert isinstance(run.end, Failed)
    assert str(run.end.error) == "two"


def test_delays_replay() -> None:
    delays = set()
    for _ in range(2):
        run = Run(one)
        run.fail("a", ValueError("x"))
        assert run.in_flight is not None
        delays.add(run.in_flight[-1].delay_seconds)
    assert len(delays) == 1


def test_an_outcome_of_an_older_attempt_is_dropped_and_the_newer_one_counts() -> None:
    async def main() -> Any:
        return await asyncio.gather(a(), b())

    run = Run(main)
    old = run.call("a")
    run.fail("a", ValueError("timed out"))
    run.commit()
    run.service.fire_next()
    run.refresh()
    run.execution.resolve(StepReturned(old.id, 1, '"late"', "late"))
    run.advance()
    assert run.in_flight is None
    run.ok("a", "new")
    run.ok("b")
    run.settle()
    assert run.value == ["new", None]


def test_a_second_outcome_of_one_attempt_is_dropped() -> None:
    run = Run(one)
    call = run.call("a")
    run.ok("a", 1)
    run.execution.resolve(StepReturned(call.id, 1, "2", 2))
    run.advance()
    run.settle()
    assert run.value == 1


# -- found on entry ------------------------------------------------------------------------------


def test_found_started_it_runs_again_without_a_start() -> None:
    run = Run(one)
    run.lag()
    run.commit()
    run = run.crash(one)
    assert run.launched == [("a", 1)]
    assert not run.turn.lags
    run.ok("a", 3)
    assert actions(run.in_flight) == ["SUCCEED a"]
    run.commit()
    assert run.value == 3


def test_found_pending_it_waits() -> None:
    run = Run(one)
    run.fail("a", ValueError("x"))
    run.commit()
    run = run.crash(one)
    assert run.launched == []
    assert isinstance(run.end, Suspended)


def test_found_ended_its_value_is_decoded() -> None:
    run = Run(one)
    run.done("a", {"k": [1]})
    run = run.crash(one)
    assert run.launched == []
    assert run.value == {"k": [1]}


def test_found_failed_it_raises_again() -> None:
    run = Run(one)
    run.fail("a", FatalError("no"))
    run.commit()
    run = run.crash(one)
    assert isinstance(run.end, Failed)
    assert isinstance(run.end.error, FatalError)


def test_a_recorded_result_that_no_longer_fits_is_told() -> None:
    async def main() -> Any:
        return await number()

    service = Service()
    run = Run(main, service)
    call = run.call("number")
    run.execution.resolve(StepReturned(call.id, 1, '"text"', "text"))
    run.advance()
    run.commit()
    run = run.crash(main)
    assert isinstance(run.end, Broken)
    assert "position 1" in str(run.end.error)
    assert "Step 'number'" in str(run.end.error)


# -- at most once --------------------------------------------------------------------------------


def test_at_most_once_the_start_is_durable_before_the_body_runs() -> None:
    run = Run(careful)
    assert run.launched == []
    assert actions(run.in_flight) == ["START a"]
    run.commit()
    assert run.launched == [("a", 1)]
    run.done("a", 1)
    assert run.value == 1


def test_a_start_that_is_told_twice_launches_once() -> None:
    run = Run(careful)
    run.commit()
    run.execution.resolve(Committed("token", (only(run.service, "a"),)))
    run.advance()
    assert run.launched == [("a", 1)]


def test_at_most_once_found_started_is_interrupted() -> None:
    run = Run(careful)
    run.write()
    run = run.crash(careful)
    assert run.launched == []
    assert actions(run.in_flight) == ["FAIL a"]
    run.commit()
    assert isinstance(run.end, Failed)
    assert isinstance(run.end.error, StepInterruptedError)
    assert "attempt 1" in str(run.end.error)


def test_an_interruption_goes_through_the_retry_policy() -> None:
    run = Run(careful_retried)
    run.write()
    run = run.crash(careful_retried)
    assert actions(run.in_flight) == ["RETRY a"]
    run.commit()
    assert isinstance(run.end, Suspended)
    run = run.wake(careful_retried)
    assert run.launched == []
    assert actions(run.in_flight) == ["START a"]
    run.commit()
    assert run.launched == [("a", 2)]
    run.done("a", 9)
    assert run.value == 9


# -- cancelled -----------------------------------------------------------------------------------


def test_a_written_start_is_closed() -> None:
    run = Run(cancels_a)
    call = run.call("a")
    run.ok("b")
    run.commit()
    assert run.cancelled == ["a"]
    assert actions(run.in_flight) == ["FAIL a"]
    run.execution.resolve(StepReturned(call.id, 1, "1", 1))
    run.advance()
    run.settle()
    assert only(run.service, "a").status is Status.FAILED
    error = only(run.service, "a").error
    assert error is not None
    assert error.type.endswith(StepCancelledError.__name__)
    assert isinstance(run.end, Suspended)


def test_nothing_is_written_of_a_step_whose_start_was_not_sent() -> None:
    async def main() -> Any:
        await b()
        future = a.submit()
        await asyncio.sleep(0)
        future.cancel()
        await asyncio.sleep(5)

    run = Run(main)
    run.done("b")
    assert run.service.named("a") == []
    assert run.launched == [("b", 1)], "it was taken back before it was launched"
    assert isinstance(run.end, Suspended)


def test_a_queued_outcome_is_left_as_it_is() -> None:
    run = Run(cancels_a)
    run.ok("b")
    run.ok("a", 1)
    assert actions(run.in_flight) == ["START b", "START a", "SUCCEED b"]
    run.commit()
    assert run.cancelled == []
    assert "SUCCEED a" in actions(run.in_flight)
    assert "FAIL a" not in actions(run.in_flight)
    run.settle()
    assert only(run.service, "a").status is Status.SUCCEEDED
    run = run.wake(cancels_a)
    assert run.launched == []
    assert run.value == "cancelled"


def test_cancelled_while_the_start_is_in_flight() -> None:
    run = Run(cancels_careful)
    assert actions(run.in_flight) == ["START a", "START b"]
    run.ok("b")
    run.commit()
    assert run.launched == [("b", 1), ("a", 1)]
    run.commit()
    assert run.cancelled == ["a"]
    run.settle()
    assert only(run.service, "a").status is Status.FAILED


def test_a_start_that_is_in_flight_counts_as_written() -> None:
    run = Run(careful)
    run.execution.abandon(run.trace.issued[0])
    run.commit()
    assert run.launched == []
    assert actions(run.in_flight) == ["FAIL a"]
    run.commit()
    assert only(run.service, "a").status is Status.FAILED


def test_cancelled_by_what_came_with_its_start_it_is_not_launched() -> None:
    async def main() -> Any:
        await b()
        try:
            async with asyncio.timeout(5):
                await a.options(at_most_once=True)()
        except TimeoutError:
            return "late"

    run = Run(main)
    run.ok("b")
    run.commit()
    assert actions(run.in_flight) == ["START a"]
    run.lag()
    run.in_flight = (*(run.in_flight or ()), *run.execution.outbox.take_batch())
    assert actions(run.in_flight) == ["START a", "START WAIT"]
    answer = run.write()
    fired = run.service.fire_next()
    run.service.refresh()
    run.execution.resolve(
        Committed("token", (*answer.operations[:1], run.service.operations[fired.id]))
    )
    run.advance()
    assert run.launched == [("b", 1)]
    assert actions(run.in_flight) == ["FAIL a"]
    run.commit()
    assert run.value == "late"


def test_a_pending_retry_that_is_cancelled_is_left() -> None:
    run = Run(cancels_a)
    run.fail("a", ValueError("x"))
    run.commit()
    run.ok("b")
    run.settle()
    assert only(run.service, "a").status is Status.PENDING
    assert isinstance(run.end, Suspended)
    run.service.fire_next()
    run = run.crash(cancels_a)
    assert run.launched == [], "READY, but cancelled by what is recorded"
    assert only(run.service, "a").status is Status.READY


def test_a_retry_that_is_cancelled_after_ready_was_read() -> None:
    run = Run(cancels_a)
    run.fail("a", ValueError("x"))
    run.commit()
    run.service.fire_next()
    run.refresh()
    assert run.launched[-1] == ("a", 2)
    run.ok("b")
    run.commit()
    assert run.cancelled == ["a"]
    run.settle()
    assert only(run.service, "a").status is Status.FAILED
    assert only(run.service, "a").attempt == 2


def test_a_cancelled_step_does_not_run_again_on_replay() -> None:
    run = Run(cancels_a)
    run.ok("b")
    run.commit()
    assert actions(run.in_flight) != []
    run = run.crash(cancels_a)
    assert run.launched == [], "found started, and cancelled by what is recorded"
    assert "FAIL a" in actions(run.in_flight)


def test_a_status_that_means_nothing_for_a_step_is_ignored() -> None:
    run = Run(one)
    run.lag()
    run.commit()
    strange = Operation(
        id=only(run.service, "a").id, type=OperationType.STEP, status=Status.STARTED, start_ms=0
    )
    op = run.trace.issued[0]
    assert isinstance(op, StepOp)
    for status in Status:
        if status not in (Status.STARTED, Status.PENDING, Status.READY):
            op.on_change(replace(strange, status=status))
    run.done("a", 1)
    assert run.value == 1


@pytest.mark.parametrize("first", ["a", "b"])
def test_ends_are_delivered_one_at_a_time_in_the_order_of_their_record(first: str) -> None:
    seen: list[str] = []

    async def follow(name: str) -> None:
        await a.options(name=name)()
        seen.append(f"{name} 1")
        await asyncio.sleep(0)
        seen.append(f"{name} 2")

    async def main() -> None:
        await asyncio.gather(follow("a"), follow("b"))

    run = Run(main)
    second = "b" if first == "a" else "a"
    run.lag()
    run.ok(first)
    run.ok(second)
    run.settle()
    expected = [f"{first} 1", f"{first} 2", f"{second} 1", f"{second} 2"]
    assert seen == expected
    seen.clear()
    run.crash(main)
    assert seen == expected
