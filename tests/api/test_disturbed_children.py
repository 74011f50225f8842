"""A child context that was cancelled from outside and went on: every run does the same."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import Any

import pytest

from pyworkflow import WorkflowContext, sleep, step, workflow
from pyworkflow._protocol.records import OperationType, Status
from pyworkflow.aws.testing import MockDurableContext, create_test_handler

NAP = 3


@step(inline=True)
def note(what: str) -> str:
    return what


@step(retry=False)
async def fail(what: str) -> None:
    raise ValueError(what)


@step
async def slow() -> None: ...


async def swallows() -> str:
    try:
        await sleep("1h")
    except asyncio.CancelledError:
        note("cleanup")
    return "went on"


async def fails_to_clean_up() -> None:
    try:
        await sleep("1h")
    finally:
        await fail("no cleanup")


def swallows_blocking(ctx: WorkflowContext) -> str:
    try:
        ctx.sleep("1h")
    except asyncio.CancelledError:
        note("cleanup")
    return "went on"


async def cleans_up_in_a_child(ctx: WorkflowContext) -> list[str]:
    try:
        await ctx.child(swallows, name="inner")
        await sleep("1h")
    except asyncio.CancelledError:
        note("cleanup")
    return ["went on"]


async def of_branches(ctx: WorkflowContext) -> Any:
    try:
        await ctx.parallel([swallows, functools.partial(sleep, "2h")])
    except asyncio.CancelledError:
        note("cleanup")
        raise


@workflow
def blocking_child(ctx: WorkflowContext) -> str:
    return swallows_blocking(ctx)


async def within_a_limit(ctx: WorkflowContext, code: Callable[[], Any]) -> Any:
    try:
        async with asyncio.timeout(NAP):
            return await ctx.child(code, name="child")
    except TimeoutError:
        return "late"


async def by_another_task(ctx: WorkflowContext, code: Callable[[], Any]) -> Any:
    task = asyncio.create_task(ctx.child(code, name="child"))
    await sleep(NAP)
    task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        return "cancelled"


async def by_its_own_task(ctx: WorkflowContext, code: Callable[[], Any]) -> Any:
    async def task() -> Any:
        me = asyncio.current_task()
        assert me is not None
        me.cancel()
        return await ctx.child(code, name="child")

    return (await asyncio.gather(task(), return_exceptions=True))[0]


CODES: dict[str, Callable[[WorkflowContext], Callable[[], Any]]] = {
    "swallows": lambda _: swallows,
    "fails to clean up": lambda _: fails_to_clean_up,
    "blocks": lambda ctx: lambda: swallows_blocking(ctx),
    "blocks below": lambda ctx: lambda: blocking_child(ctx),
    "has a child": lambda ctx: lambda: cleans_up_in_a_child(ctx),
    "has branches": lambda ctx: lambda: of_branches(ctx),
}


@pytest.mark.parametrize("disturb", [within_a_limit, by_another_task, by_its_own_task])
@pytest.mark.parametrize("code", CODES)
def test_each_run_sees_how_it_went_on(
    code: str, disturb: Callable[[WorkflowContext, Callable[[], Any]], Any]
) -> None:
    """Be the outcome seen live, after a suspension or after a crash."""

    @workflow
    async def main(ctx: WorkflowContext) -> Any:
        try:
            found = await disturb(ctx, CODES[code](ctx))
        except ValueError as error:
            found = str(error)
        note(repr(found))
        await sleep(NAP)
        return repr(found)

    calm = MockDurableContext()
    expected = create_test_handler(main, calm)({})
    assert expected in calm.checkpoints.values()
    for checkpoint in range(1, 12):
        mock_ctx = MockDurableContext()
        mock_ctx.crash_after(checkpoint)
        assert create_test_handler(main, mock_ctx)({}) == expected
        assert [each.id for each in mock_ctx.operations] == [each.id for each in calm.operations]


def test_it_has_no_recorded_outcome() -> None:
    """As one that ends with the cancellation: its code runs again over what is recorded below."""

    @workflow
    async def main(ctx: WorkflowContext) -> Any:
        return await within_a_limit(ctx, swallows)

    mock_ctx = MockDurableContext()
    assert create_test_handler(main, mock_ctx)({}) == "went on"
    (child,) = (each for each in mock_ctx.operations if each.type is OperationType.CONTEXT)
    assert child.status is Status.STARTED


def test_what_its_own_code_cancels_changes_nothing() -> None:
    """Nor does a limit within, or a task that it leaves."""

    async def child() -> str:
        left = asyncio.create_task(swallows())
        group = asyncio.gather(swallows(), swallows())
        await asyncio.sleep(1)
        group.cancel()
        try:
            async with asyncio.timeout(NAP):
                await left
        except TimeoutError:
            note("late")
        return "done"

    @workflow
    async def main(ctx: WorkflowContext) -> Any:
        return await ctx.child(child)

    mock_ctx = MockDurableContext()
    assert create_test_handler(main, mock_ctx)({}) == "done"
    (context,) = (each for each in mock_ctx.operations if each.type is OperationType.CONTEXT)
    assert context.status is Status.SUCCEEDED


def test_a_task_that_is_left_at_the_end() -> None:
    """Its child may go on, and so may it: a crash meanwhile finds the same operations."""

    async def task(ctx: WorkflowContext) -> None:
        note(str(await ctx.child(swallows)))

    @workflow
    async def main(ctx: WorkflowContext) -> Any:
        left = asyncio.create_task(task(ctx))
        await sleep(NAP)
        return left.done()

    for checkpoint in range(1, 8):
        mock_ctx = MockDurableContext()
        mock_ctx.crash_after(checkpoint)
        assert create_test_handler(main, mock_ctx)({}) is False
        assert list(mock_ctx.checkpoints.values()) == ["cleanup", "went on"]


async def by_swallowing() -> None:
    me = asyncio.current_task()
    assert me is not None
    me.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await sleep(1)


async def by_a_group() -> None:
    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(fail("one"))


@pytest.mark.parametrize("code", [by_swallowing, by_a_group])
def test_requests_to_cancel_do_not_outlive_the_child_that_made_them(
    code: Callable[[], Any],
) -> None:
    """A limit around it would else not know its own cancellation, but on a replay it would."""

    @workflow
    async def main(ctx: WorkflowContext) -> Any:
        try:
            async with asyncio.timeout(NAP):
                await ctx.child(code)
                await slow()
        except TimeoutError:
            return "late"

    for checkpoint in range(1, 8):
        mock_ctx = MockDurableContext()
        mock_ctx.mock_step("slow", takes="1h")  # so the run is not suspended meanwhile
        mock_ctx.crash_after(checkpoint)
        assert create_test_handler(main, mock_ctx)({}) == "late"
