from __future__ import annotations

import asyncio
import inspect
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow import (
    SyncWorkflowContext,
    UsageError,
    WorkflowContext,
    current_context,
    sleep,
    step,
    workflow,
)
from pyworkflow.aws.testing import MockDurableContext
from pyworkflow.errors import DurationError
from tests.api.world import run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

START = datetime(2026, 1, 1, tzinfo=UTC)


def waits(workflow: Any) -> list[int]:
    mock_ctx = MockDurableContext()
    run(workflow, None, mock_ctx)
    return mock_ctx.waits


# -- durations -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        (5, 5),
        (0.2, 1),
        (1.001, 2),
        ("90s", 90),
        ("1h30m", 5400),
        ("366d", 366 * 86_400),
        (timedelta(minutes=1, milliseconds=1), 61),
    ],
)
def test_waits_are_whole_seconds_rounded_up(duration: Any, seconds: int) -> None:
    @workflow
    async def waiting(ctx: WorkflowContext) -> None:
        ctx.sleep(duration)
        await ctx.sleep(duration)
        await sleep(duration)

    @workflow
    def blocking(ctx: SyncWorkflowContext) -> None:
        assert ctx.sleep(duration) is None  # type: ignore[func-returns-value]

    assert waits(waiting) == [seconds] * 3
    assert waits(blocking) == [seconds]


@pytest.mark.parametrize("nothing", [0, 0.0, "0s", timedelta(0)])
def test_no_time_records_nothing(nothing: Any) -> None:
    @workflow
    async def instant(ctx: WorkflowContext) -> int:
        ctx.sleep(nothing)
        await ctx.sleep(nothing)
        await sleep(nothing)
        return 1

    mock_ctx = MockDurableContext()
    assert run(instant, None, mock_ctx) == 1
    assert (mock_ctx.operations, mock_ctx.invocations) == ((), 1)


@pytest.mark.parametrize("wrong", ["5", "", "5 minutes", -1, "367d", float("nan"), None, True])
def test_malformed_durations_are_clear_errors(wrong: Any) -> None:
    @workflow
    async def by_context(ctx: WorkflowContext) -> None:
        ctx.sleep(wrong)

    @workflow
    async def lazily(ctx: WorkflowContext) -> None:
        await sleep(wrong)

    for each in (by_context, lazily):
        with pytest.raises(DurationError, match="The duration"):
            run(each)


# -- names and keys --------------------------------------------------------------------------------


def test_names_and_keys() -> None:
    @workflow
    async def named(ctx: WorkflowContext) -> None:
        ctx.sleep(1, name="cool down")
        await sleep(2, name="warm up", key="k")
        ctx.sleep_until(ctx.now() + timedelta(seconds=3), name="until")

    mock_ctx = MockDurableContext()
    run(named, None, mock_ctx)
    assert [op.name for op in mock_ctx.operations] == ["cool down", "warm up", "until"]
    assert mock_ctx.waits == [1, 2, 3]


@pytest.mark.parametrize(
    ("options", "fault"),
    [({"name": ""}, "the name of a sleep"), ({"key": ""}, "the key of a sleep")],
)
def test_bad_names_and_keys(options: dict[str, str], fault: str) -> None:
    @workflow
    async def wrong(ctx: WorkflowContext) -> None:
        ctx.sleep(1, **options)

    with pytest.raises(UsageError, match=fault):
        run(wrong)


def test_one_key_for_two_sleeps_is_an_error() -> None:
    @workflow
    async def twice(ctx: WorkflowContext) -> None:
        ctx.sleep(1, key="k")
        await sleep(1, key="k")

    with pytest.raises(UsageError, match="the key 'k' is used twice"):
        run(twice)


# -- until -----------------------------------------------------------------------------------------


def test_sleep_until() -> None:
    @workflow
    async def until(ctx: WorkflowContext) -> list[bool]:
        moment = START + timedelta(hours=2, milliseconds=1)
        await ctx.sleep_until(moment)
        ctx.sleep_until(moment)
        ctx.sleep_until(START - timedelta(days=400))
        return [ctx.now() >= moment]

    assert waits(until) == [7201]

    @workflow
    def blocking(ctx: SyncWorkflowContext) -> None:
        ctx.sleep_until(START + timedelta(seconds=9))
        ctx.sleep_until(START)

    assert waits(blocking) == [9]


@pytest.mark.parametrize("when", [datetime(2030, 1, 1), "2030-01-01", 5, None])  # noqa: DTZ001
def test_sleep_until_wants_a_time_zone(when: Any) -> None:
    @workflow
    async def naive(ctx: WorkflowContext) -> None:
        ctx.sleep_until(when)

    with pytest.raises(UsageError, match=r"a datetime with a time zone.*ctx\.now\(\)"):
        run(naive)


def test_sleep_until_has_a_limit() -> None:
    @workflow
    async def far(ctx: WorkflowContext) -> None:
        ctx.sleep_until(START + timedelta(days=367))

    with pytest.raises(DurationError, match="longer than 366 days"):
        run(far)


# -- where it can't be called ----------------------------------------------------------------------


def test_outside_of_a_workflow() -> None:
    with pytest.raises(UsageError, match=r"pyworkflow\.sleep\(\) was called outside of a running"):
        asyncio.run(sleep(1))


def test_inside_a_step() -> None:
    kept: list[WorkflowContext] = []

    @step(retry=False)
    async def lazily() -> None:
        await sleep(1)

    @step(retry=False)
    def by_context() -> None:
        kept[0].sleep(1)

    @step(retry=False, inline=True)
    def until() -> None:
        kept[0].sleep_until(START)

    @workflow
    async def wrong(ctx: WorkflowContext) -> list[str]:
        kept[:] = [ctx]
        found = []
        calls: list[Callable[[], Awaitable[None] | None]] = [lazily, by_context, until]
        for call in calls:
            try:
                result = call()
                if result is not None:
                    await result
            except UsageError as error:
                found.append(str(error).partition(". ")[0])
        return found

    assert run(wrong) == [
        "pyworkflow.sleep() was called inside step 'lazily'",
        "ctx.sleep() was called inside step 'by_context'",
        "ctx.sleep_until() was called inside step 'until'",
    ]


# -- ctx.sleep and await ---------------------------------------------------------------------------


async def _create_task(ctx: WorkflowContext) -> None:
    await asyncio.create_task(ctx.sleep(10))  # type: ignore[arg-type]


async def _gather(ctx: WorkflowContext) -> None:
    await asyncio.gather(ctx.sleep(10), ctx.sleep(20))


async def _wait_for(ctx: WorkflowContext) -> None:
    await asyncio.wait_for(ctx.sleep(10), 5)


async def _task_group(ctx: WorkflowContext) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.sleep(10))  # type: ignore[arg-type]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _other_task(ctx: WorkflowContext) -> None:
    slept = ctx.sleep(10)

    async def other() -> None:
        await slept

    await asyncio.create_task(other())


@pytest.mark.parametrize("use", [_create_task, _gather, _wait_for, _task_group, _other_task])
def test_in_another_task_the_error_names_the_lazy_twin(
    use: Callable[[WorkflowContext], Awaitable[None]],
) -> None:
    @workflow
    async def wrong(ctx: WorkflowContext) -> None:
        await use(ctx)

    with pytest.raises(UsageError, match=r"Use pyworkflow\.sleep\(\.\.\.\), which starts when"):
        run(wrong)


def test_a_cancelled_task_of_a_sleep_that_is_over() -> None:
    @workflow
    async def cancelling(ctx: WorkflowContext) -> bool:
        task = asyncio.create_task(ctx.sleep(1))  # type: ignore[arg-type,var-annotated]
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert run(cancelling) is True


def test_to_asyncio_it_is_a_coroutine_that_has_ended() -> None:
    @workflow
    async def inspecting(ctx: WorkflowContext) -> str:
        slept: Any = ctx.sleep(1)
        slept.close()
        assert asyncio.iscoroutine(slept)
        return inspect.getcoroutinestate(slept)

    assert run(inspecting) == inspect.CORO_CLOSED


def test_the_lazy_twin_runs_at_once_with_others() -> None:
    @workflow
    async def together(ctx: WorkflowContext) -> float:
        await asyncio.gather(sleep(10), sleep(20), asyncio.create_task(sleep(30)))
        return (ctx.now() - START).total_seconds()

    assert run(together) == 30


def test_the_lazy_twin_under_a_timeout() -> None:
    @workflow
    async def impatient(ctx: WorkflowContext) -> list[Any]:
        try:
            await asyncio.wait_for(sleep("1h", name="long"), 60)
        except TimeoutError:
            return [(ctx.now() - START).total_seconds()]
        return []

    assert run(impatient) == [60]


def test_a_cancelled_sleep_ends_at_once() -> None:
    @workflow
    async def cancelling(ctx: WorkflowContext) -> float:
        async def blocked() -> None:
            ctx.sleep("1h")

        tasks = [asyncio.create_task(sleep("1h")), asyncio.create_task(blocked())]
        await sleep(1)
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in done] == [asyncio.CancelledError] * 2
        return (ctx.now() - START).total_seconds()

    assert run(cancelling) == 1


def test_ctx_sleep_blocks_its_task_alone() -> None:
    @workflow
    async def two(ctx: WorkflowContext) -> list[str]:
        order: list[str] = []

        async def nap(name: str, seconds: int) -> None:
            current_context().sleep(seconds)
            order.append(name)

        await asyncio.gather(nap("long", 20), nap("short", 10))
        return order

    assert run(two) == ["short", "long"]


def test_blocking_in_a_bare_callback_is_an_error() -> None:
    @workflow
    async def callback(ctx: WorkflowContext) -> str:
        found: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def call() -> None:
            try:
                ctx.sleep(5)
            except UsageError as error:
                found.set_result(str(error))

        asyncio.get_running_loop().call_soon(call)
        return await found

    assert "bare callback" in run(callback)


def test_a_sleep_that_nobody_awaits_is_told() -> None:
    @workflow
    async def forgetful() -> None:
        sleep("1d")  # type: ignore[unused-coroutine]

    @workflow
    def blocking() -> None:
        sleep("1d")  # type: ignore[unused-coroutine]

    for each in (forgetful, blocking):
        with pytest.raises(UsageError, match=r"pyworkflow\.sleep\(\): called but never awaited"):
            run(each)
