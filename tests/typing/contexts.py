"""What type checkers see of both kinds of ``ctx``: the same signatures, awaited or not."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, assert_type

from pyworkflow import BatchResult, SyncWorkflowContext, WorkflowContext, step, workflow


@step
async def fetch(text: str) -> list[str]:
    return [text]


@workflow
async def priced(ctx: WorkflowContext, item: str) -> int:
    return len(item)


class Shop:
    @classmethod
    @workflow
    def price(cls, ctx: SyncWorkflowContext, item: str) -> float:
        return len(item)

    @workflow
    async def order(self, ctx: WorkflowContext, item: str) -> str:
        return item


async def look() -> bool:
    return True


def count(seen: int) -> int:
    return seen + 1


def five() -> int:
    return 5


async def awaits(ctx: WorkflowContext) -> None:
    pending: Coroutine[Any, Any, int] = ctx.child(five)
    assert_type(await pending, int)
    assert_type(await ctx.child(fetch, "a", name="n", key="k"), list[str])
    assert_type(await ctx.parallel([five, five], min_successful=1), BatchResult[int])
    assert_type(await ctx.map(fetch, ["a"], item_name=str), BatchResult[list[str]])
    assert_type(await ctx.wait_for_condition(look, every="5s"), bool)
    assert_type(await ctx.wait_for_condition(count, 0, every=5, max_attempts=3), int)
    assert_type(await ctx.wait_for_condition(look, every=5, result_type=int), int)
    assert_type(await ctx.invoke(priced, {"item": "a"}), int)
    assert_type(await ctx.invoke(priced.options(name="n"), "a", tenant_id="t"), int)
    assert_type(await ctx.invoke(Shop.price, "a"), float)
    assert_type(await ctx.invoke(Shop().order, "a"), str)
    await ctx.sleep_until(datetime(2030, 1, 1, tzinfo=UTC), name="n")
    async with ctx.saga() as saga:
        saga.add(fetch, "a")


def blocks(ctx: SyncWorkflowContext) -> None:
    assert_type(ctx.child(five), int)
    assert_type(ctx.child(fetch, "a", name="n", key="k"), list[str])
    assert_type(ctx.parallel([five, five], min_successful=1), BatchResult[int])
    assert_type(ctx.map(fetch, ["a"], item_name=str), BatchResult[list[str]])
    assert_type(ctx.wait_for_condition(look, every="5s"), bool)
    assert_type(ctx.wait_for_condition(count, 0, every=5, max_attempts=3), int)
    assert_type(ctx.wait_for_condition(look, every=5, result_type=int), int)
    assert_type(ctx.invoke(priced, {"item": "a"}), int)
    assert_type(ctx.invoke(priced.options(name="n"), "a", tenant_id="t"), int)
    assert_type(ctx.invoke(Shop.price, "a"), float)
    assert_type(ctx.invoke(Shop().order, "a"), str)
    ctx.sleep_until(datetime(2030, 1, 1, tzinfo=UTC), name="n")
    with ctx.saga() as saga:
        saga.add(fetch, "a")


async def mistakes(ctx: WorkflowContext, blocking: SyncWorkflowContext) -> None:
    """Each line is an error to a type checker; an ignore that nothing needs is one, too."""
    await ctx.sleep("5m", nmae="n")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    blocking.sleep("5m", nmae="n")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    await blocking.sleep("5m")  # type: ignore[func-returns-value,misc] # pyright: ignore[reportGeneralTypeIssues]
    await ctx.wait_for_condition(look)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
    blocking.wait_for_condition(look)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
    await blocking.child(five)  # type: ignore[misc] # pyright: ignore[reportGeneralTypeIssues]
