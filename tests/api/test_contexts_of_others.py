"""Each workflow has a ctx of its own kind, and of its own run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pyworkflow import SyncWorkflowContext, UsageError, WorkflowContext, step, workflow
from pyworkflow.aws.testing import create_test_handler


@step
async def work(what: str) -> str:
    return what


@workflow
def blocking(ctx: SyncWorkflowContext, what: str) -> list[str]:
    assert type(ctx) is SyncWorkflowContext
    ctx.sleep(5)
    batch = ctx.map(work, what.split())
    return [*batch.results, ctx.child(lambda: work("child"))]


@workflow
async def asynchronous(ctx: WorkflowContext, what: str) -> list[str]:
    assert type(ctx) is WorkflowContext
    await ctx.sleep(5)
    batch = await ctx.map(work, what.split())
    return [*batch.results, await ctx.child(lambda: work("child"))]


def test_an_async_workflow_hands_its_ctx_to_a_blocking_one() -> None:
    """Which receives one whose methods block, as it does when it is started by itself."""
    child: Callable[..., list[str]] = blocking

    @workflow
    async def main(ctx: WorkflowContext) -> Any:
        async def as_task() -> list[str]:
            return child(what="c", ctx=ctx)

        return [child(ctx, "a b"), await asyncio.create_task(as_task())]

    assert create_test_handler(main)({}) == [["a", "b", "child"], ["c", "child"]]


def test_a_blocking_workflow_hands_its_ctx_to_an_async_one() -> None:
    """Which can await what it asks of it."""
    child: Callable[..., Any] = asynchronous

    @workflow
    def main(ctx: SyncWorkflowContext) -> Any:
        return ctx.child(lambda: child(ctx, "a b"))

    assert create_test_handler(main)({}) == ["a", "b", "child"]


@pytest.mark.parametrize(
    "use",
    [
        lambda ctx: ctx.now(),
        lambda ctx: ctx.uuid4(),
        lambda ctx: ctx.sleep(1),
        lambda ctx: asynchronous(ctx, "a"),
    ],
    ids=["now", "uuid4", "sleep", "child"],
)
def test_a_ctx_that_was_kept_is_refused_in_another_run(use: Callable[[Any], Any]) -> None:
    """Its time would be that of the other run. Outside of all runs it may be asked."""
    kept: list[WorkflowContext] = []

    @workflow
    async def keeps(ctx: WorkflowContext) -> None:
        kept.append(ctx)

    @workflow
    async def uses() -> Any:
        found = use(kept[0])
        return await found if asyncio.iscoroutine(found) else str(found)

    create_test_handler(keeps)({})
    with pytest.raises(UsageError, match="this ctx belongs to another run, of execution"):
        create_test_handler(uses)({})
    with pytest.raises(UsageError, match="that is over"):
        kept[0].now()
