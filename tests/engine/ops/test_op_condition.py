from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow import RetryableError, StepCancelledError, WorkflowContext
from pyworkflow._engine.messages import Broken, Failed, Suspended
from pyworkflow._protocol.records import Action, Operation, Status
from pyworkflow.errors import ConditionTimeoutError
from tests.engine.harness import START_MS, Run, actions

if TYPE_CHECKING:
    from pyworkflow._protocol.records import Update


def poll(state: Any) -> Any:
    raise AssertionError("the harness runs the bodies")


def check() -> Any:
    raise AssertionError("the harness runs the bodies")


async def counting(ctx: WorkflowContext) -> Any:
    return await ctx.wait_for_condition(poll, 0, until=lambda n: n >= 3, every="30s")


async def bounded(ctx: WorkflowContext) -> Any:
    return await ctx.wait_for_condition(check, every="40s", timeout="100s")


def only(run: Run) -> Operation:
    (operation,) = (o for o in run.service.operations.values() if o.id != "root")
    return operation


def sent(run: Run) -> Update:
    """Return the last update of the batch in flight."""
    assert run.in_flight is not None
    return run.in_flight[-1]


# -- polls ---------------------------------------------------------------------------------------


def test_a_state_that_is_not_enough_is_recorded_with_a_retry() -> None:
    run = Run(counting)
    assert run.call("poll").args == (0,)
    run.ok("poll", 1)
    assert actions(run.in_flight) == ["START poll", "RETRY poll"]
    retry = sent(run)
    assert (retry.subtype, retry.payload, retry.error) == ("WaitForCondition", "1", None)
    assert retry.delay_seconds == 30
    run.commit()
    assert isinstance(run.end, Suspended)
    assert (only(run).status, only(run).payload, only(run).attempt) == (Status.PENDING, "1", 1)
    run.close()


def test_the_state_that_is_enough_is_the_result() -> None:
    run = Run(counting)
    run.done("poll", 3)
    assert run.value == 3
    assert (only(run).status, only(run).payload) == (Status.SUCCEEDED, "3")
    run.close()


def test_each_poll_is_given_the_last_state_over_invocations() -> None:
    run = Run(counting)
    for state in (1, 2):
        run.done("poll", state)
        run = run.wake(counting)
        assert run.call("poll").args == (state,)
        assert run.call("poll").attempt == state + 1
    run.done("poll", 3)
    assert run.value == 3
    assert only(run).attempt == 3
    run.close()


def test_each_poll_is_given_the_last_state_within_an_invocation() -> None:
    async def beside(ctx: WorkflowContext) -> Any:
        other = ctx.wait_for_condition(check, every="1d")
        return (await asyncio.gather(counting(ctx), other))[0]

    run = Run(beside)
    run.done("poll", 1)
    run.service.fire_next()
    run.refresh()
    assert run.call("poll").args == (1,)
    run.ok("poll", 2)
    assert actions(run.in_flight) == ["START poll", "RETRY poll"]
    run.close()


def test_a_poll_that_crashed_is_run_again_with_the_state_it_had() -> None:
    run = Run(counting)
    run.done("poll", 1)
    run = run.wake(counting)
    run.lag()
    run.commit()
    assert only(run).status is Status.STARTED
    run = run.crash(counting)
    assert run.call("poll").args == (1,)
    assert run.call("poll").attempt == 2
    run.ok("poll", 2)
    assert actions(run.in_flight) == ["RETRY poll"]
    run.close()


def test_a_recorded_result_is_given_without_a_poll() -> None:
    run = Run(counting)
    run.done("poll", 4)
    run = run.crash(counting)
    assert run.value == 4
    assert not run.launched
    run.close()


def test_what_until_does_to_the_state_changes_no_result() -> None:
    def empties(state: dict[str, int]) -> bool:
        state.clear()
        return True

    async def main(ctx: WorkflowContext) -> Any:
        return await ctx.wait_for_condition(check, until=empties, every=1)

    run = Run(main)
    run.done("check", {"a": 1})
    assert run.value == {"a": 1}
    run.close()


def test_without_a_state_the_first_poll_is_given_none() -> None:
    async def main(ctx: WorkflowContext) -> Any:
        return await ctx.wait_for_condition(poll, result_type=dict[str, int], every=1)

    run = Run(main)
    assert run.call("poll").args == (None,)
    run.close()


def test_a_check_without_a_parameter_is_called_without_a_state() -> None:
    run = Run(bounded)
    assert run.call("check").args == ()
    run.done("check", False)
    run = run.wake(bounded)
    assert run.call("check").args == ()
    run.close()


def test_a_recorded_state_that_no_longer_fits_breaks_the_run() -> None:
    def typed(result_type: type) -> Any:
        async def main(ctx: WorkflowContext) -> Any:
            return await ctx.wait_for_condition(
                poll, until=lambda _: False, every=1, result_type=result_type
            )

        return main

    run = Run(typed(str))
    run.done("poll", "text")
    run = run.wake(typed(int))
    assert isinstance(run.end, Broken)
    assert "position 1: " in str(run.end.error)
    assert not run.launched
    run.close()


# -- ends ----------------------------------------------------------------------------------------


def failure(run: Run) -> BaseException:
    assert isinstance(run.end, Failed)
    return run.end.error


def test_what_the_check_raises_ends_the_operation() -> None:
    run = Run(counting)
    run.fail("poll", ValueError("no such job"))
    assert actions(run.in_flight) == ["START poll", "FAIL poll"]
    assert sent(run).payload is None
    run.settle()
    error = failure(run)
    assert (type(error), str(error)) == (ValueError, "no such job")
    run.close()


def test_what_until_raises_ends_the_operation() -> None:
    async def main(ctx: WorkflowContext) -> Any:
        return await ctx.wait_for_condition(check, until=lambda s: s["done"], every=1)

    run = Run(main)
    run.done("check", {})
    assert type(failure(run)) is KeyError
    run.close()


def test_a_retryable_error_asks_for_another_poll_with_the_same_state() -> None:
    run = Run(counting)
    run.done("poll", 1)
    run = run.wake(counting)
    run.fail("poll", RetryableError("busy", retry_after="50s"))
    retry = sent(run)
    assert (retry.action, retry.payload, retry.error) == (Action.RETRY, "1", None)
    assert retry.delay_seconds == 50
    run.commit()
    run = run.wake(counting)
    assert run.call("poll").args == (1,)
    run.close()


def test_a_retryable_error_of_the_first_poll_keeps_the_initial_state() -> None:
    run = Run(counting)
    run.fail("poll", RetryableError(retry_after="7s"))
    assert (sent(run).payload, sent(run).delay_seconds) == ("0", 30), "no sooner than `every`"
    run.close()


def test_a_cancelled_poll_is_recorded_as_failed() -> None:
    async def main(ctx: WorkflowContext) -> Any:
        task = asyncio.create_task(bounded(ctx))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    run = Run(main)
    run.lag()
    run.commit()
    run.service.fire_next()
    run.refresh()
    assert run.cancelled == ["check"]
    run.settle()
    assert run.value is True
    (operation,) = run.service.named("check")
    assert operation.error is not None
    assert operation.error.type.endswith(StepCancelledError.__name__)
    run.close()


# -- limits --------------------------------------------------------------------------------------


def test_the_last_poll_is_when_the_time_is_over() -> None:
    run = Run(bounded)
    delays = []
    while not isinstance(run.end, Failed):
        run.ok("check", False)
        delays.append(sent(run).delay_seconds)
        run.commit()
        if isinstance(run.end, Suspended):
            run = run.wake(bounded)
    assert delays == [40, 40, 20, None]  # the commits in between take milliseconds
    error = failure(run)
    assert isinstance(error, ConditionTimeoutError)
    assert str(error) == "condition 'check' was not met within 1m40s, in 4 polls"
    assert (error.polls, error.state) == (4, False)
    run.close()


def test_a_clock_that_skips_the_delays_ends_it_as_well() -> None:
    run = Run(bounded)
    delays = []
    while not isinstance(run.end, Failed):
        run.service.now_ms = START_MS
        run.ok("check", False)
        delays.append(sent(run).delay_seconds)
        run.commit()
        if isinstance(run.end, Suspended):
            run = run.wake(bounded)
    assert delays == [40, 40, 20, None]
    run.close()


def test_a_late_poll_that_sees_enough_still_succeeds() -> None:
    run = Run(bounded)
    run.done("check", False)
    run = run.wake(bounded)
    run.service.now_ms += 3_600_000
    run.done("check", True)
    assert run.value is True
    run.close()


def test_time_counts_from_the_recorded_start() -> None:
    run = Run(bounded)
    run.service.now_ms += 3_600_000  # the start is not recorded yet
    run.ok("check", False)
    assert sent(run).action is Action.RETRY
    run.commit()
    run = run.wake(bounded)
    run.service.now_ms += 3_600_000
    run.ok("check", False)
    assert sent(run).action is Action.FAIL
    run.close()


@pytest.mark.parametrize(
    ("polls", "said"),
    [
        (1, "condition 'check' was not met, in 1 poll; the last poll raised RetryableError: busy"),
        (2, "condition 'check' was not met, in 2 polls; the last poll raised RetryableError: busy"),
    ],
)
def test_the_number_of_polls_is_a_limit(polls: int, said: str) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        return await ctx.wait_for_condition(check, every=1, max_attempts=polls)

    run = Run(main)
    for _ in range(polls - 1):
        run.done("check", 0)
        run = run.wake(main)
    run.fail("check", RetryableError("busy"))
    run.settle()
    error = failure(run)
    assert isinstance(error, ConditionTimeoutError)
    assert str(error) == said
    assert (error.polls, error.state) == (polls, None if polls == 1 else 0)
    run.close()
