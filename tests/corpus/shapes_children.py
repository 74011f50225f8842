"""Shapes of child contexts, fan-outs, conditions, callbacks: operations made of operations."""

from __future__ import annotations

import asyncio
from typing import Any

from pyworkflow import FatalError, SyncWorkflowContext, WorkflowContext, sleep, workflow
from tests.corpus.registry import (
    act,
    act_blocking,
    act_fail,
    act_flaky,
    always,
    races,
    submit,
)


@workflow
async def pair(name: str) -> list[str]:
    first = await act(f"{name} 1")
    return [first, await act(f"{name} 2", first)]


@workflow
def blocking_pair(ctx: SyncWorkflowContext, name: str) -> list[str]:
    first = act_blocking(f"{name} 1")
    ctx.sleep(3)
    return [first, act_blocking(f"{name} 2")]


@workflow
async def wide(name: str) -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(act(f"{name} {n}")) for n in range(3)]
    await sleep(2)
    return [task.result() for task in tasks]


@workflow
async def deep(level: int) -> str:
    seen: str = await act(f"level {level}")
    return seen if level == 0 else seen + await deep(level - 1)


@workflow
async def failing(name: str) -> Any:
    return await act_fail(name, await act(f"before {name}"))


# -- one after another, and inside one another ---------------------------------------------------


@always([["x 1!", "x 2!"], "a!", ["y 1!", "y 2!"]])
async def children() -> Any:
    x = await pair("x")
    return [x, await act("a"), await pair("y")]


@always("level 3!level 2!level 1!level 0!")
async def children_in_children() -> Any:
    return await deep(3)


@always([["x 1!", "x 2!"], ["y 0!", "y 1!", "y 2!"], ["z 1!", "z 2!"], "a!"])
async def children_side_by_side(ctx: WorkflowContext) -> Any:
    async def blocks() -> list[str]:
        return blocking_pair(ctx, "z")  # type: ignore[arg-type] # it takes any context

    seen = await asyncio.gather(pair("x"), wide("y"), blocks())
    return [*seen, await act("a")]


@always(["x failed", "before x", "y failed", "z 1!"])
async def children_that_fail() -> Any:
    log = []
    for name in "xy":
        try:
            await failing(name)
        except FatalError as error:
            log.append(str(error))
    (seen, _) = await pair("z")
    return [log[0], "before x", log[1], seen]


@always([["x 1!", "x 2!"], ["y 1!", "y 2!"]])
async def keyed_children() -> Any:
    return await asyncio.gather(
        pair.options(key="one", name="first pair")("x"), pair.options(key="two")("y")
    )


@always(["a!", "b!", True])
async def children_with_keys_and_patches(ctx: WorkflowContext) -> Any:
    async def inside(name: str) -> Any:
        return [await act(name, key="same key"), ctx.patched("inside")]

    one, two = await asyncio.gather(ctx.child(inside, "a"), ctx.child(inside, "b"))
    return [one[0], two[0], one[1] and two[1]]


@always(["a!", "b!", "c!"])
def blocking_children(ctx: SyncWorkflowContext) -> Any:
    def inside(name: str) -> str:
        ctx.sleep(1)
        return act_blocking(name)

    return [ctx.child(inside, "a"), ctx.child(inside, "b", name="b"), submit("c").result()]


@always(["a!", 300_000, "b!"])
async def child_with_a_large_result(ctx: WorkflowContext) -> Any:
    """It is not stored: a replay runs the code again over what is recorded below."""

    async def inside() -> list[str]:
        return [await act("a"), "x" * 300_000]

    seen, text = await ctx.child(inside, name="large")
    return [seen, len(text), await act("b", seen)]


@races()
async def child_that_leaves_tasks(ctx: WorkflowContext) -> Any:
    async def inside() -> str:
        left = asyncio.create_task(act("left"))
        seen: str = await act("first")
        return seen + str(left.done())

    return [await ctx.child(inside, name="inside"), await act("after")]


@races()
async def child_under_a_limit() -> Any:
    log: list[Any] = []
    for name in ("x", "y"):
        try:
            async with asyncio.timeout(15):
                log.append(await pair(name))
        except TimeoutError:
            log.append(await act(f"late {name}"))
    return log


# -- map and parallel ----------------------------------------------------------------------------


@always([["0!", "1!", "2!", "3!"], "after!"])
async def mapped(ctx: WorkflowContext) -> Any:
    async def one(number: int) -> Any:
        return await act(str(number))

    batch = await ctx.map(one, [0, 1, 2, 3])
    return [batch.results, await act("after", *batch.results)]


@always(["0!0 on!", "1!1 on!", "2!2 on!", "3!3 on!", "4!4 on!"])
async def mapped_two_at_a_time(ctx: WorkflowContext) -> Any:
    async def one(number: int) -> str:
        seen = await act(str(number))
        return seen + await act(f"{number} on", seen)  # type: ignore[no-any-return]

    return (await ctx.map(one, range(5), max_concurrency=2, name="two")).results


@always([["a!", "c!"], ["f failed"]])
async def parallel_that_tolerates(ctx: WorkflowContext) -> Any:
    branches = [lambda: act("a"), lambda: act_fail("f"), lambda: act_flaky("c")]
    batch = await ctx.parallel(branches, tolerated_failure_count=1)
    return [batch.results, [str(error) for error in batch.errors]]


@races()
async def parallel_until_one_succeeds(ctx: WorkflowContext) -> Any:
    batch = await ctx.parallel({name: act(name) for name in "abc"}, min_successful=1)
    return [sorted(batch.results), await act("after")]


# -- conditions and callbacks --------------------------------------------------------------------


@always(["yes", "late!"], callbacks=(("approval", 90),))
async def callback(ctx: WorkflowContext) -> Any:
    asked = ctx.callback("approval", timeout="1d")
    await act("ask")
    answer = await asked.result()
    return [answer, await act("late")]


@races(callbacks=(("approval", 9),))
async def callback_or_step(ctx: WorkflowContext) -> Any:
    asked = ctx.callback("approval")
    tasks = [asyncio.create_task(asked.result()), asyncio.create_task(act("a"))]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    is_answer = tasks[0].done()
    for task in tasks:
        task.cancel()
    return [is_answer, await act("yes" if is_answer else "no")]
