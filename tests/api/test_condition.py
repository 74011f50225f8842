from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from unittest.mock import Mock

import pytest

from pyworkflow import (
    RetryableError,
    SyncWorkflowContext,
    UsageError,
    WorkflowContext,
    current_step,
    step,
    workflow,
)
from pyworkflow._protocol.records import Operation
from pyworkflow.aws.testing import MockDurableContext
from pyworkflow.errors import ConditionTimeoutError, SerializationError
from tests.api.world import World, crashes, run


@dataclass
class Job:
    done: bool
    looks: int = 0


def count(seen: int) -> int:
    return seen + 1


def waits(mock_ctx: MockDurableContext) -> list[int | None]:
    """Return the delays between polls, `None` for the last one."""
    return [
        event.delay_seconds
        for event in mock_ctx.history()
        if event.type in {"StepSucceeded", "StepFailed"}
    ]


def the_operation(mock_ctx: MockDurableContext) -> Operation:
    (operation,) = mock_ctx.operations
    return operation


# -- polls ---------------------------------------------------------------------------------------


def test_it_polls_until_the_state_is_enough() -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> list[Any]:
        state = await ctx.wait_for_condition(count, 0, until=lambda n: n >= 4, every="1h")
        return [state, ctx.now().isoformat()]

    mock_ctx = MockDurableContext()
    assert run(main, None, mock_ctx) == [4, "2026-01-01T03:00:00+00:00"]
    operation = the_operation(mock_ctx)
    assert (operation.name, operation.subtype) == ("count", "WaitForCondition")
    assert (operation.attempt, operation.payload) == (4, "4")
    assert mock_ctx.checkpoints == {"count": 4}
    assert mock_ctx.wait_count == 0
    assert mock_ctx.invocations == 4


def test_it_blocks_in_a_def_workflow() -> None:
    @workflow
    def main(ctx: SyncWorkflowContext) -> int:
        return ctx.wait_for_condition(count, 0, until=lambda n: n >= 3, every=5)

    assert run(main) == 3


def test_a_crash_at_any_checkpoint_changes_nothing() -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> list[int]:
        polls = (
            ctx.wait_for_condition(count, first, until=lambda n: n >= 3, every=every)
            for first, every in ((0, 7), (1, 3))
        )
        return await asyncio.gather(*polls)

    results = crashes(main)
    assert results == [[3, 3]] * len(results)


def test_the_delays_grow_up_to_the_longest() -> None:
    @workflow
    async def main(ctx: WorkflowContext, options: dict[str, Any]) -> Any:
        return await ctx.wait_for_condition(count, 0, until=lambda n: n >= 6, **options)

    mock_ctx = MockDurableContext()
    schedules: list[tuple[dict[str, Any], list[int]]] = [
        ({"every": 20}, [20] * 5),
        ({"every": 20, "backoff": 2}, [20, 40, 80, 160, 300]),
        ({"every": "10m", "backoff": 2}, [600] * 5),
        ({"every": "20s", "backoff": 2.5, "max_every": "1m"}, [20, 50, 60, 60, 60]),
        ({"every": 0.3}, [1] * 5),
    ]
    for options, delays in schedules:
        assert run(main, options, mock_ctx) == 6
        assert waits(mock_ctx) == [*delays, None]


def test_what_a_check_may_be() -> None:
    looks: list[str] = []

    def saw(what: str) -> bool:
        looks.append(what)
        return True

    @step
    async def a_step(order: str) -> bool:
        return saw(f"step {order}")

    async def an_async_function(order: str) -> bool:
        return saw(f"async {order}")

    class Checker:
        def __call__(self) -> bool:
            return saw("object")

        def method(self) -> bool:
            return saw("method")

    class AsyncChecker:
        async def __call__(self) -> bool:
            return saw("async object")

    @workflow
    async def main(ctx: WorkflowContext) -> None:
        for check in (
            lambda: saw("lambda"),
            lambda: an_async_function("B"),
            lambda: a_step("C"),
            functools.partial(an_async_function, "D"),
            Checker(),
            Checker().method,
            AsyncChecker(),
            Mock(side_effect=lambda: saw("mock")),
        ):
            await ctx.wait_for_condition(check, every=1, result_type=bool)

    mock_ctx = MockDurableContext()
    run(main, None, mock_ctx)
    assert looks == [
        *("lambda", "async B", "step C", "async D", "object", "method", "async object", "mock")
    ]
    named = {"an_async_function", "method"}
    assert {o.name for o in mock_ctx.operations} == {"wait_for_condition", *named}


def test_a_check_runs_as_a_step_does() -> None:
    def look() -> str:
        current = current_step()
        return f"{current.name} {current.attempt}"

    @workflow
    async def main(ctx: WorkflowContext) -> str:
        return await ctx.wait_for_condition(look, until=lambda s: s.endswith("2"), every=1)

    assert run(main) == "look 2"


def test_a_check_is_no_workflow_code() -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> None:
        await ctx.wait_for_condition(lambda: ctx.sleep(1), every=1)

    with pytest.raises(UsageError, match="called inside step 'wait_for_condition'"):
        run(main)


def test_builtins_are_asked_for_the_state_as_they_are_given_one() -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> list[Any]:
        with_state = await ctx.wait_for_condition(max, [3, 1], every=1)  # it tells no signature
        return [with_state, await ctx.wait_for_condition(dict, until=lambda _: True, every=1)]

    assert run(main) == [3, {}]


def test_an_initial_state_goes_to_a_parameter_with_a_default() -> None:
    def look(n: int = 5, *, step: int = 1) -> int:
        return n + step

    @workflow
    async def main(ctx: WorkflowContext) -> int:
        return await ctx.wait_for_condition(look, 1, every=1)

    assert run(main) == 2


def test_states_have_the_type_of_the_check() -> None:
    seen: list[str] = []

    def look(job: Job | None) -> Job:
        seen.append(str(job))
        job = job or Job(done=False)
        job.looks += 1  # it is this poll's own
        job.done = job.looks == 2
        return job

    def is_done(job: Job) -> bool:
        return job.done

    @workflow
    async def main(ctx: WorkflowContext) -> Any:
        job = await ctx.wait_for_condition(look, until=is_done, every=1)
        again = await ctx.wait_for_condition(look, Job(done=False, looks=1), until=is_done, every=1)
        assert isinstance(job, Job)
        return [job.looks, again.looks]

    assert run(main) == [2, 2]
    assert seen == ["None", *[str(Job(done=False, looks=1))] * 2]


def test_a_result_type_that_is_given() -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> str:
        job = await ctx.wait_for_condition(lambda: {"done": True}, every=1, result_type=Job)
        return type(job).__name__

    assert run(main) == "Job"


def test_a_state_that_does_not_fit_is_an_error() -> None:
    @workflow
    async def wrong_state(ctx: WorkflowContext) -> None:
        await ctx.wait_for_condition(lambda: "x", every=1, result_type=int)

    @workflow
    async def wrong_initial(ctx: WorkflowContext) -> None:
        await ctx.wait_for_condition(count, "x", every=1)

    with pytest.raises(SerializationError, match="[Tt]he state of condition 'wait_for_condition'"):
        run(wrong_state)
    mock_ctx = MockDurableContext()
    with pytest.raises(SerializationError, match="[Tt]he initial state of condition 'count'"):
        run(wrong_initial, None, mock_ctx)
    assert mock_ctx.operations == ()


# -- identity ------------------------------------------------------------------------------------


def test_a_name_and_a_key() -> None:
    @workflow
    async def first(ctx: WorkflowContext) -> int:
        return await ctx.wait_for_condition(
            count, 0, until=lambda n: n == 2, every=1, name="look", key="k"
        )

    @workflow
    async def changed(ctx: WorkflowContext) -> Any:
        polls = ctx.wait_for_condition(
            count, 0, until=lambda n: n == 2, every=1, name="look", key="k"
        )
        return (await asyncio.gather(step_one(), polls))[1]

    @step
    async def step_one() -> None: ...

    world = World()
    world.suspend(first)
    assert world.finish(changed) == 2
    assert world.names() == ["look", "step_one"]


def test_a_coroutine_that_nobody_awaits_is_an_error() -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> None:
        _ = ctx.wait_for_condition(count, 0, every=1)

    with pytest.raises(UsageError, match="wait_for_condition of condition 'count': called but"):
        run(main)


def test_it_can_be_cancelled() -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> str:
        try:
            async with asyncio.timeout(100):
                await ctx.wait_for_condition(count, 0, until=lambda _: False, every=30)
        except TimeoutError:
            return "late"
        return "met"

    mock_ctx = MockDurableContext()
    assert run(main, None, mock_ctx) == "late"
    assert mock_ctx.operations[0].attempt == 4


# -- limits --------------------------------------------------------------------------------------


async def look_bounded(ctx: WorkflowContext, options: dict[str, Any]) -> Any:
    try:
        return await ctx.wait_for_condition(
            count, 0, until=lambda n: n == 10, name="ten", every="30s", **options
        )
    except ConditionTimeoutError as error:
        return [str(error), error.polls, error.state]


@workflow
async def bounded(ctx: WorkflowContext, options: dict[str, Any]) -> Any:
    return await look_bounded(ctx, options)


def test_a_limit_in_time() -> None:
    mock_ctx = MockDurableContext()
    for timeout in ("100s", 100, timedelta(seconds=99.5)):
        found = bounded_by(mock_ctx, timeout=timeout)
        assert found == ["condition 'ten' was not met within 1m40s, in 5 polls", 5, 5]
        assert waits(mock_ctx) == [30, 30, 30, 10, None]
    assert bounded_by(mock_ctx, timeout="270s") == 10


def bounded_by(mock_ctx: MockDurableContext, **options: Any) -> Any:
    @workflow
    async def main(ctx: WorkflowContext) -> Any:
        return await look_bounded(ctx, options)

    return run(main, None, mock_ctx)


def test_time_that_polls_take_counts() -> None:
    mock_ctx = MockDurableContext()
    mock_ctx.mock_step("ten", result=1, takes="1m")
    for timeout, polls in (("3m50s", 3), ("4m", 3), ("4m30s", 4)):  # the third takes 3m to 4m
        found = bounded_by(mock_ctx, timeout=timeout)
        assert found == [
            f"condition 'ten' was not met within {timeout}, in {polls} polls",
            polls,
            1,
        ]


def test_a_limit_in_polls() -> None:
    mock_ctx = MockDurableContext()
    assert bounded_by(mock_ctx, max_attempts=10) == 10
    said = "condition 'ten' was not met, in 9 polls"
    assert bounded_by(mock_ctx, max_attempts=9) == [said, 9, 9]


def test_a_crash_at_any_checkpoint_keeps_the_limit() -> None:
    results = crashes(bounded, {"timeout": 100})
    assert results == [["condition 'ten' was not met within 1m40s, in 5 polls", 5, 5]] * len(
        results
    )


def test_a_state_too_large_for_an_error() -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> list[Any]:
        with pytest.raises(ConditionTimeoutError, match="not met, in 1 poll") as caught:
            await ctx.wait_for_condition(
                lambda: "x" * 50_000, until=lambda _: False, every=1, max_attempts=1
            )
        return [caught.value.polls, caught.value.state]

    assert run(main) == [0, None]


# -- errors --------------------------------------------------------------------------------------


def test_an_error_of_the_check_is_raised_at_once() -> None:
    mock_ctx = MockDurableContext()
    mock_ctx.fail_step("ten", error=ConnectionError("down"))
    with pytest.raises(ConnectionError, match="down"):
        bounded_by(mock_ctx)
    assert the_operation(mock_ctx).attempt == 1


def test_a_retryable_error_is_another_poll() -> None:
    mock_ctx = MockDurableContext()
    mock_ctx.fail_step("ten", 2, RetryableError("busy", retry_after="50s"))
    assert bounded_by(mock_ctx) == 10
    assert waits(mock_ctx)[:3] == [50, 50, 30]
    assert the_operation(mock_ctx).attempt == 12


# -- wrong use -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"check": 5}, "takes a function to call, not 5"),
        ({"until": "done"}, "until= of condition 'look' takes a function of the state, not 'done'"),
        ({"every": 0}, "every= of condition 'look' must be longer than 0"),
        ({"every": "5"}, "has no unit"),
        ({"every": 10, "max_every": 5}, "max_every=5 of condition 'look' is shorter than every=10"),
        ({"backoff": 0.5}, "backoff= of condition 'look' is invalid: .* found 0.5"),
        ({"max_attempts": 0}, "max_attempts= or .* of condition 'look' is invalid: .* found 0"),
        ({"timeout": 0}, "timeout= of condition 'look' must be longer than 0"),
        ({"name": ""}, "the name of a condition must have 1 to 256"),
        ({"key": ""}, "the key of condition 'look' must be a non-empty str"),
        ({"check": lambda a, b: a}, "the check of condition '.*' takes more than the state"),
        ({"check": lambda a, *, b: a}, "takes more than the state"),
        ({"check": lambda *, b: b}, "takes more than the state"),
        ({"initial": 1}, "takes no state, but initial= gives one"),
        ({"check": lambda a=1: a}, "has a default for the state"),
    ],
)
def test_wrong_use_is_told(given: dict[str, Any], said: str) -> None:
    def look() -> bool:
        return True

    @workflow
    async def main(ctx: WorkflowContext) -> None:
        options: dict[str, Any] = {"check": look, "every": 1, **given}
        await ctx.wait_for_condition(**options)

    mock_ctx = MockDurableContext()
    with pytest.raises(UsageError, match=said):
        run(main, None, mock_ctx)
    assert mock_ctx.operations == ()


def test_an_unknown_option_is_told() -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> None:
        await ctx.wait_for_condition(count, 0, every=1, retries=3)  # type: ignore[call-overload]

    with pytest.raises(TypeError, match="retries"):
        run(main)
