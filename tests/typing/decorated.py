"""What type checkers see: a decorated function keeps its exact types.

mypy and pyright check this file, both strict; `test_typing.py` runs it, too.
"""

from __future__ import annotations

import random
from collections.abc import Coroutine
from datetime import datetime
from typing import Any, assert_type
from uuid import UUID

from pyworkflow import (
    BatchResult,
    CurrentStep,
    Retry,
    Step,
    StepFuture,
    SyncWorkflowContext,
    Workflow,
    WorkflowContext,
    current_context,
    current_step,
    sleep,
    step,
    workflow,
)

# -- steps, bare and with options ----------------------------------------------------------------


@step
async def fetch(order_id: str, *, limit: int = 1) -> list[str]:
    return [order_id] * limit


@step()
async def fetch_called(order_id: str) -> list[str]:
    return [order_id]


@step(name="fetch", retry=Retry(max_attempts=5), timeout="1m")
async def fetch_with_options(order_id: str) -> list[str]:
    return [order_id]


@step
def total(amounts: list[int], tax: float = 0.2) -> float:
    return sum(amounts) * (1 + tax)


@step(inline=True, retry=False)
def total_with_options(amounts: list[int]) -> int:
    return sum(amounts)


def takes_any_step(which: Step[..., Any]) -> str:
    return which.name


takes_any_step(fetch)
takes_any_step(total)


class Shop:
    @step
    async def order(self, item: str, count: int) -> dict[str, int]:
        return {item: count}

    @step(at_most_once=True)
    def charge(self, amount: int) -> str:
        return str(amount)

    @staticmethod
    @step
    def tax(amount: int) -> int:
        return amount // 5

    @staticmethod
    @step
    def default(kind: type[int], amount: int) -> int:
        return kind(amount)

    @classmethod
    @step
    async def open_one(cls, count: int) -> str:
        return cls.__name__ * count

    @classmethod
    @step(retry=False)
    def name_of(cls, count: int) -> str:
        return cls.__name__ * count

    @classmethod
    @workflow
    async def run_all(cls, ctx: WorkflowContext, count: int) -> str:
        return await cls.open_one(count)

    @classmethod
    @workflow(name="counted")
    def run_all_sync(cls, ctx: SyncWorkflowContext, count: int) -> str:
        return cls.name_of(count)

    @workflow
    async def run(self, ctx: WorkflowContext, item: str) -> int:
        return (await self.order(item, 2))[item]

    @workflow(name="other")
    def run_sync(self, ctx: SyncWorkflowContext, item: str) -> str:
        return self.charge(len(item))


@step
def takes_anything(value: Any) -> int:
    return len(str(value))


@step
def takes_object(value: object, count: int) -> int:
    return len(str(value)) * count


def length(text: str) -> int:
    return len(text)


def five() -> int:
    return 5


async def indexed(text: str, index: int) -> int:
    return len(text) + index


# -- workflows -----------------------------------------------------------------------------------


@workflow
async def child(ctx: WorkflowContext, order_id: str) -> int:
    return len(await fetch(order_id))


@workflow()
def sync_child(ctx: SyncWorkflowContext, amount: int) -> str:
    return str(amount)


@workflow(name="parent")
async def parent(ctx: WorkflowContext, order_id: str) -> list[object]:
    """Use all of them: this runs, and what it returns is looked at."""
    awaitable: Coroutine[Any, Any, list[str]] = fetch(order_id, limit=2)
    found = await awaitable
    assert_type(found, list[str])
    assert_type(await fetch_called(order_id), list[str])
    assert_type(await fetch_with_options(order_id), list[str])
    assert_type(total([1], tax=0.5), float)
    assert_type(total_with_options([1, 2]), int)

    future = fetch.submit(order_id)
    assert_type(future, StepFuture[list[str]])
    assert_type(await future, list[str])
    assert_type(await fetch.submit(order_id, limit=3), list[str])
    assert_type(fetch.submit(order_id).result(), list[str])
    sync_future = total.submit([1])
    assert_type(sync_future, StepFuture[float])
    assert_type(sync_future.result(), float)
    assert_type(sync_future.exception(), BaseException | None)
    assert_type(await total.submit([1]), float)
    assert_type(total.submit([1]).result(), float)

    assert_type(await fetch.options(key="f")(order_id), list[str])
    assert_type(await fetch.options(name="f", retry=2).submit(order_id), list[str])
    assert_type(total.options(timeout=5, at_most_once=True)([1]), float)

    shop = Shop()
    assert_type(await shop.order("tea", count=1), dict[str, int])
    assert_type(shop.charge(1), str)
    assert_type(await shop.order.submit("tea", 1), dict[str, int])
    assert_type(await shop.charge.options(key="c").submit(2), str)
    assert_type(await Shop.order(shop, "tea", 1), dict[str, int])
    assert_type(Shop.tax(5), int)
    assert_type(Shop.default(int, 5), int)
    assert_type(await Shop.open_one(2), str)
    assert_type(await shop.open_one(count=2), str)
    assert_type(Shop.name_of(2), str)
    assert_type(await Shop.run_all(ctx, 2), str)
    assert_type(await shop.run_all(ctx, count=2), str)
    assert_type(Shop.run_all_sync.options(name="other").name, str)
    assert_type(takes_anything(5), int)
    assert_type(takes_object("a", count=5), int)

    assert_type(await child(ctx, order_id), int)
    assert_type(await child.options(key="child")(ctx, order_id), int)
    assert_type(await shop.run(ctx, "tea"), int)
    assert_type(await shop.run.options(name="again")(ctx, item="tea"), int)

    assert_type(await ctx.child(fetch, order_id), list[str])
    assert_type(await ctx.child(fetch(order_id), name="one"), list[str])
    assert_type(await ctx.child(total, [1]), float)
    assert_type(await ctx.map(fetch, ["a"]), BatchResult[list[str]])
    assert_type((await ctx.map(length, ["a"], max_concurrency=2)).results, list[int])
    assert_type(await ctx.map(indexed, ["a"], item_name=str), BatchResult[int])
    assert_type(await ctx.parallel([fetch("a"), fetch("b")]), BatchResult[list[str]])
    named = await ctx.parallel({"a": five}, min_successful=1)
    assert_type(named["a"], int)
    assert_type(await ctx.parallel([five, fetch("a")]), BatchResult[Any])

    assert_type(ctx.now(), datetime)
    assert_type(ctx.uuid4(), UUID)
    assert_type(ctx.random, random.Random)
    assert_type(ctx.patched("faster"), bool)
    assert_type(ctx.execution_id, str)
    assert_type(ctx.is_replaying, bool)
    assert_type(current_context(), WorkflowContext)
    await ctx.sleep("5m")
    ctx.sleep(5)
    assert_type(await sleep("1h30m"), None)
    return [found, total([1], tax=0.5)]


@workflow
def blocking(ctx: SyncWorkflowContext, order_id: str) -> int:
    assert_type(fetch.submit(order_id).result(), list[str])
    assert_type(sync_child(ctx, 5), str)
    assert_type(sync_child.options(key="s")(ctx, amount=5), str)
    assert_type(Shop().run_sync(ctx, "tea"), str)
    assert_type(ctx.child(fetch(order_id)), list[str])
    assert_type(ctx.child(length, order_id), int)
    assert_type(ctx.map(fetch, ["a"]), BatchResult[list[str]])
    assert_type(ctx.map(indexed, ["a"]).results, list[int])
    assert_type(ctx.parallel([fetch("a")]).results, list[list[str]])
    ctx.sleep("5m")
    return len(order_id)


def attempt() -> CurrentStep:
    assert_type(current_step().attempt, int)
    assert_type(current_step().idempotency_key, str)
    return current_step()


def takes_any_workflow(which: Workflow[..., Any]) -> str:
    return which.name


takes_any_workflow(parent)
takes_any_workflow(blocking)


def mistakes(shop: Shop, ctx: WorkflowContext) -> None:
    """Each line is an error to a type checker; an ignore that nothing needs is one, too."""
    Shop.open_one("x")  # type: ignore[arg-type,unused-coroutine] # pyright: ignore[reportArgumentType, reportUnusedCoroutine]
    total("x")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    total([1], vat=1)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    total.submit(5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    shop.charge("x")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    total.options(retries=3)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    _ = ctx.map(length, ["a"], min_sucessful=1)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportUnknownVariableType]
    sync_child(5)  # type: ignore[call-arg,arg-type] # pyright: ignore[reportCallIssue]
