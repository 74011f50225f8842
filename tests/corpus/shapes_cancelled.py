"""Shapes in which something is cancelled, or left behind, while it goes on."""

from __future__ import annotations

import asyncio
from typing import Any

from pyworkflow import (
    FatalError,
    StepInterruptedError,
    WorkflowContext,
    sleep,
    workflow,
)
from tests.corpus.registry import act, act_blocking, act_fail, act_flaky, races, submit


@races()
async def task_group_that_fails() -> Any:
    done: list[str] = []

    async def one(name: str) -> None:
        try:
            done.append(await (act_fail(name) if name[0] == "f" else act(name)))
        finally:
            done.append(await act(f"clean {name}"))

    try:
        async with asyncio.TaskGroup() as group:
            for name in ("a", "f1", "b", "f2"):
                group.create_task(one(name))
    except* FatalError as errors:
        done += [str(each) for each in errors.exceptions]
    return done


@races()
async def gather_that_fails() -> Any:
    """The others go on after the first failure, and are left behind by the workflow's end."""
    try:
        await asyncio.gather(act("a"), act_fail("f"), act_flaky("b", 2))
    except FatalError as error:
        return [str(error), await act("after")]


@races()
async def cancelled_step() -> Any:
    task = asyncio.create_task(act("a"))
    await act("b")
    task.cancel()
    end: Any
    (end,) = await asyncio.gather(task, return_exceptions=True)
    return [type(end).__name__, await act("c")]


@races()
async def cancelled_retry() -> Any:
    task = asyncio.create_task(act_flaky("a", 3))
    await sleep(4)
    task.cancel()
    end: Any
    (end,) = await asyncio.gather(task, return_exceptions=True)
    return [type(end).__name__, await act("b")]


@races()
async def cancelled_wait() -> Any:
    task = asyncio.create_task(sleep(20, name="cut short"))
    await act("a")
    task.cancel()
    end: Any
    (end,) = await asyncio.gather(task, return_exceptions=True)
    return [type(end).__name__, await act("b")]


@races()
async def cancelled_careful_step() -> Any:
    task = asyncio.create_task(act("a", at_most_once=True))
    await act("b")
    task.cancel()
    end: Any
    (end,) = await asyncio.gather(task, return_exceptions=True)
    return [type(end).__name__ if isinstance(end, BaseException) else end, await act("c")]


@workflow
async def slow_child(name: str) -> Any:
    seen = await asyncio.gather(act(f"{name} 1"), act(f"{name} 2"))
    return [*seen, await act(f"{name} 3", *seen)]


@races()
async def cancelled_child() -> Any:
    task = asyncio.create_task(slow_child("x"))
    seen = [await act("a"), await act("b")]
    task.cancel()
    end: Any
    (end,) = await asyncio.gather(task, return_exceptions=True)
    return [*seen, type(end).__name__, await act("c")]


@races()
async def cancelled_gather() -> Any:
    async def lot() -> Any:
        return await asyncio.gather(act("a"), act("b"), sleep(30))

    task = asyncio.create_task(lot())
    await act("c")
    task.cancel()
    end: Any
    (end,) = await asyncio.gather(task, return_exceptions=True)
    return [type(end).__name__, await act("d")]


@races()
async def cancelled_blocking_code(ctx: WorkflowContext) -> Any:
    log: list[str] = []

    async def work() -> None:
        try:
            log.append(act_blocking("a"))
            ctx.sleep(60)
        except asyncio.CancelledError:
            log.append(act_blocking("undo"))
            raise

    task = asyncio.create_task(work())
    await act("b")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return [*log, await act("c")]


@races()
async def cancelled_in_a_queue() -> Any:
    queue: asyncio.Queue[str] = asyncio.Queue()

    async def consume() -> str:
        try:
            return await queue.get()
        except asyncio.CancelledError:
            return await act("nothing came")  # type: ignore[no-any-return]

    task = asyncio.create_task(consume())
    await act("a")
    task.cancel()
    return [await task, await act("b")]


@races()
async def cancelled_twice() -> Any:
    async def stubborn() -> str:
        for name in ("a", "b"):
            try:
                return await act(name)  # type: ignore[no-any-return]
            except asyncio.CancelledError:
                await act(f"clean {name}")
        return "gave up"

    task = asyncio.create_task(stubborn())
    log = []
    for name in ("x", "y"):
        log.append(await act(name))
        task.cancel()
    end: Any
    (end,) = await asyncio.gather(task, return_exceptions=True)
    return [*log, str(end), await act("last")]


@races()
async def shielded() -> Any:
    inner = asyncio.create_task(act("a"))

    async def guard() -> Any:
        return await asyncio.shield(inner)

    outer = asyncio.create_task(guard())
    await act("b")
    outer.cancel()
    end: Any
    (end,) = await asyncio.gather(outer, return_exceptions=True)
    return [type(end).__name__, await inner, await act("c")]


@races()
async def leaves_tasks() -> Any:
    """What still runs when the workflow returns is cancelled, and may clean up."""

    async def loser(name: str) -> None:
        try:
            await act(name)
        finally:
            await act(f"clean {name}")
            await sleep(2)

    tasks = [asyncio.create_task(loser(name)) for name in ("a", "b")]
    return [await act("first"), len(tasks)]


@races()
async def leaves_a_submitted_step() -> Any:
    future = submit("slow")
    future.add_done_callback(lambda _: None)
    return await act("quick")


@races()
async def leaves_what_would_begin_more() -> Any:
    """An end that comes after the workflow's return reaches nobody, live or replayed."""
    loop = asyncio.get_running_loop()
    future = submit("slow")
    future.add_done_callback(lambda _: loop.create_task(act("more")))
    return await act("quick")


@races()
async def careful_under_a_limit() -> Any:
    try:
        async with asyncio.timeout(6):
            return [await act("a", at_most_once=True), "in time"]
    except TimeoutError:
        return [await act("b"), "late"]
    except StepInterruptedError:
        return [await act("c"), "interrupted"]
