"""Shapes of several lines of control whose outcome does not depend on who is faster."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

from pyworkflow import FatalError, StepInterruptedError, WorkflowContext, sleep
from tests.corpus.registry import (
    act,
    act_blocking,
    act_fail,
    act_flaky,
    always,
    do_sync,
    submit,
)

variable: ContextVar[str] = ContextVar("variable", default="none")

# -- gather and groups ---------------------------------------------------------------------------


@always(["a!", "b!", "c!", "d!"])
async def gather() -> Any:
    seen = await asyncio.gather(*(act(name) for name in "abc"))
    return [*seen, await act("d", *seen)]


@always([["a!", "a then!"], ["b!", "b then!"], ["c!", "c then!"]])
async def gather_of_sequences() -> Any:
    """Each has steps of its own, whose ids must not depend on the others' pace."""

    async def line(name: str) -> list[str]:
        seen = await act(name)
        return [seen, await act(f"{name} then", seen)]

    return await asyncio.gather(*(line(name) for name in "abc"))


@always([["a!", "b!"], ["c!", "d!"], "e!"])
async def gather_in_gather() -> Any:
    async def pair(one: str, two: str) -> Any:
        return await asyncio.gather(act(one), act(two))

    return await asyncio.gather(pair("a", "b"), pair("c", "d"), act("e"))


@always(["a!", "f failed", "b!", "g failed"])
async def gather_that_returns_errors() -> Any:
    calls = (act("a"), act_fail("f"), act_flaky("b", 2), act_fail("g"))
    found = await asyncio.gather(*calls, return_exceptions=True)
    return [str(each) for each in found]


@always(["a!", "b!", "c!", "late!"])
async def task_group() -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(act(name)) for name in "abc"]
    seen = [task.result() for task in tasks]
    return [*seen, await act("late", *seen)]


@always(["a!", "of a!", "b!", "of b!"])
async def task_group_that_grows() -> Any:
    found: dict[str, str] = {}

    async def parent(name: str, group: asyncio.TaskGroup) -> None:
        found[name] = await act(name)
        group.create_task(child(name, found[name]))

    async def child(name: str, seen: str) -> None:
        found[f"of {name}"] = await act(f"of {name}", seen)

    async with asyncio.TaskGroup() as group:
        for name in "ab":
            group.create_task(parent(name, group))
    return [found[name] for name in ("a", "of a", "b", "of b")]


@always([f"{n}!" for n in range(12)])
async def fan_out() -> Any:
    return await asyncio.gather(*(act(str(number)) for number in range(12)))


@always([[f"{n}.{m}!" for m in range(3)] for n in range(3)])
async def fan_out_of_fan_outs() -> Any:
    async def one(n: int) -> list[str]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(act(f"{n}.{m}")) for m in range(3)]
        return [task.result() for task in tasks]

    return await asyncio.gather(*(one(n) for n in range(3)))


@always([3, 3, "after!"])
async def retries_side_by_side() -> Any:
    async def one(name: str) -> int:
        return len([await act(f"{name} before"), await act_flaky(name, 2), await act(f"{name} on")])

    counts = await asyncio.gather(*(one(name) for name in "ab"))
    return [*counts, await act("after")]


# -- nested tasks --------------------------------------------------------------------------------


@always(["leaf a!", "leaf b!", "twig!", "root!"])
async def nested_tasks() -> Any:
    async def branch(name: str) -> str:
        return await asyncio.create_task(act(f"leaf {name}"))

    one, two = asyncio.create_task(branch("a")), asyncio.create_task(branch("b"))
    twig = await act("twig")
    seen = [await one, await two, twig]
    return [*seen, await act("root", *seen)]


@always("0!1!2!3!4!5!")
async def tasks_in_tasks() -> Any:
    async def deep(level: int) -> str:
        seen: str = await act(str(level))
        if level == 5:
            return seen
        return seen + await asyncio.create_task(deep(level + 1))

    return await deep(0)


@always(["first!", "second!", "third!"])
async def tasks_made_in_callbacks() -> Any:
    loop = asyncio.get_running_loop()
    made: list[asyncio.Task[str]] = []
    loop.call_soon(lambda: made.append(loop.create_task(act("first"))))
    loop.call_later(3, lambda: made.append(loop.create_task(act("second"))))
    await sleep(10)
    seen = [await task for task in made]
    return [*seen, await act("third", *seen)]


@always(["a!", "of a!", "b!", "of b!"])
async def tasks_made_when_others_are_done() -> Any:
    """The numbers of tasks that are made in callbacks do not depend on whose callback came first"""
    made: dict[str, asyncio.Future[Any]] = {}

    def go_on(task: asyncio.Task[str]) -> None:
        seen = task.result()
        made[seen].set_result(seen)

    async def follow(name: str) -> str:
        seen = await made[f"{name}!"]
        return await act(f"of {name}", seen)  # type: ignore[no-any-return]

    loop = asyncio.get_running_loop()
    for name in "ab":
        made[f"{name}!"] = loop.create_future()
        asyncio.create_task(act(name)).add_done_callback(go_on)
    followers = await asyncio.gather(follow("a"), follow("b"))
    return ["a!", followers[0], "b!", followers[1]]


@always([["a", "a!"], ["b", "b!"], "none"])
async def context_variables() -> Any:
    async def one(name: str) -> list[str]:
        variable.set(name)
        seen = await act(name)
        return [variable.get(), seen]

    return [*await asyncio.gather(one("a"), one("b")), variable.get()]


# -- blocking tasks ------------------------------------------------------------------------------


@always([["a 1!", "a 2!"], ["b 1!", "b 2!"], "last!"])
async def blocking_tasks(ctx: WorkflowContext) -> Any:
    async def one(name: str) -> list[str]:
        seen = act_blocking(f"{name} 1")
        ctx.sleep(5)
        return [seen, do_sync.options(name=f"{name} 2")(f"{name} 2", seen)]

    return [*await asyncio.gather(one("a"), one("b")), act_blocking("last")]


@always(["a!", "b!", "c!"])
async def blocking_and_async_tasks(ctx: WorkflowContext) -> Any:
    async def slow() -> str:
        ctx.sleep(20)
        return act_blocking("a")

    return await asyncio.gather(slow(), act("b"), act_flaky("c"))


# -- submit --------------------------------------------------------------------------------------


@always(["a!", "b!", "c!", "d!"])
async def submits() -> Any:
    futures = [submit(name) for name in "abc"]
    await sleep(4)
    seen = [await future for future in futures]
    return [*seen, await act("d", *seen)]


@always(["a!", "f failed", "b!"])
async def submits_and_an_error() -> Any:
    futures = [submit("a"), submit("b")]
    try:
        await act_fail("f")
    except FatalError as error:
        return [await futures[0], str(error), await futures[1]]


@always(["a!", "b!"], interrupted=(["?", "b!"], ["a!", "?"], ["?", "?"]))
async def careful_side_by_side() -> Any:
    async def one(name: str) -> str:
        try:
            return await act(name, at_most_once=True)  # type: ignore[no-any-return]
        except StepInterruptedError:
            return "?"

    return await asyncio.gather(one("a"), one("b"))


# -- between tasks -------------------------------------------------------------------------------


@always(["use 0!", "use 1!", "use 2!", "use 3!"])
async def queue_in_order() -> Any:
    queue: asyncio.Queue[str | None] = asyncio.Queue(maxsize=1)
    log: list[str] = []

    async def produce() -> None:
        for number in range(4):
            await queue.put(await act(f"make {number}"))
        await queue.put(None)

    async def consume() -> None:
        while (seen := await queue.get()) is not None:
            log.append(await act(f"use {seen[5]}", seen))

    await asyncio.gather(produce(), consume())
    return log


@always(["ready!", "a!", "b!"])
async def event() -> Any:
    is_ready = asyncio.Event()
    seen: list[str] = []

    async def waiter(name: str) -> str:
        await is_ready.wait()
        return await act(name, *seen)  # type: ignore[no-any-return]

    tasks = [asyncio.create_task(waiter(name)) for name in "ab"]
    seen.append(await act("ready"))
    is_ready.set()
    return [*seen, *[await task for task in tasks]]


@always(["a in!", "a out!", "b in!", "b out!", "c in!", "c out!"])
async def lock() -> Any:
    """Who asked first is let in first, whatever the steps take."""
    mutex = asyncio.Lock()
    log: list[str] = []

    async def enter(name: str) -> None:
        async with mutex:
            log.append(await act(f"{name} in"))
            await sleep(2)
            log.append(await act(f"{name} out", log[-1]))

    await asyncio.gather(*(enter(name) for name in "abc"))
    return log


@always([["0!", "1!", "2!", "3!", "4!", "5!"], 2])
async def semaphore() -> Any:
    free, inside, most = asyncio.Semaphore(2), 0, 0

    async def one(name: str) -> str:
        nonlocal inside, most
        async with free:
            inside += 1
            most = max(most, inside)
            seen = await act(name)
            inside -= 1
            return seen  # type: ignore[no-any-return]

    return [await asyncio.gather(*(one(str(number)) for number in range(6))), most]


@always([3, "last!"])
async def condition() -> Any:
    changed = asyncio.Condition()
    items: list[str] = []

    async def take() -> int:
        async with changed:
            await changed.wait_for(lambda: len(items) == 3)
            return len(items)

    async def put() -> None:
        for number in range(3):
            item = await act(f"item {number}")
            async with changed:
                items.append(item)
                changed.notify_all()

    taken, _ = await asyncio.gather(take(), put())
    return [taken, await act("last", *items)]


@always(["a!", "b!", "together a!", "together b!"])
async def barrier() -> Any:
    meet = asyncio.Barrier(2)
    seen: list[str] = []

    async def one(name: str) -> list[str]:
        first = await act(name)
        seen.append(first)
        async with meet:
            return [first, await act(f"together {name}", *sorted(seen))]

    one_, two = await asyncio.gather(one("a"), one("b"))
    return [one_[0], two[0], one_[1], two[1]]


# -- many keys -----------------------------------------------------------------------------------


@always(["a!", "b!", "c!"])
async def keyed_side_by_side() -> Any:
    return await asyncio.gather(*(act(name, key=f"key {name}") for name in "abc"))


@always([[True, "new a!"], [True, "new b!"]])
async def patched_in_tasks(ctx: WorkflowContext) -> Any:
    async def one(name: str) -> list[Any]:
        is_new = ctx.patched("tasks")
        return [is_new, await act(f"{'new' if is_new else 'old'} {name}")]

    return await asyncio.gather(one("a"), one("b"))
