"""Workflows in the shapes that asyncio offers: what each must return, and nothing else of interest.

`test_asyncio_shapes` runs them and holds the ids of their operations against a golden file.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from contextvars import Context, ContextVar, copy_context
from typing import Any

from pyworkflow import Workflow, WorkflowContext, sleep, step, workflow

SHAPES: dict[str, tuple[Workflow[..., Any], Any]] = {}
"""Workflow and expected result, by name."""

variable: ContextVar[int] = ContextVar("variable", default=0)


def returns(expected: Any) -> Callable[[Callable[..., Any]], Workflow[..., Any]]:
    def add(function: Callable[..., Any]) -> Workflow[..., Any]:
        made: Workflow[..., Any] = workflow(function)
        assert made.name not in SHAPES
        SHAPES[made.name] = (made, expected)
        return made

    return add


@step
async def double(number: int) -> int:
    return 2 * number


@step(inline=True)
def triple(number: int) -> int:
    return 3 * number


async def after(seconds: float, number: int) -> int:
    await asyncio.sleep(seconds)
    return await double(number)


# -- several at once ---------------------------------------------------------------------------


@returns([2, 4, 6, None])
async def gather_of_coroutines() -> Any:
    return await asyncio.gather(double(1), double(2), after(1, 3), sleep(2))


@returns([2, [4, 6], 8])
async def gather_in_gather() -> Any:
    inner = asyncio.gather(after(2, 2), after(1, 3))
    return await asyncio.gather(double(1), inner, double(4))


@returns([2, "ValueError", 6])
async def gather_with_exceptions() -> Any:
    async def bad() -> int:
        await sleep(1)
        raise ValueError

    found = await asyncio.gather(double(1), bad(), double(3), return_exceptions=True)
    return [type(one).__name__ if isinstance(one, Exception) else one for one in found]


@returns([2, 4, 6])
async def task_group() -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(after(3 - i, i)) for i in (1, 2, 3)]
    return [task.result() for task in tasks]


@returns([["ValueError"], ["cancelled", "cancelled"], 2])
async def task_group_that_fails(ctx: WorkflowContext) -> Any:
    ends: list[str] = []

    async def bad() -> None:
        await sleep(1)
        raise ValueError

    async def blocked() -> None:
        try:
            ctx.sleep(100)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    failures: list[str] = []
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(blocked())
            group.create_task(bad())
            group.create_task(blocked())
    except* ValueError as found:
        failures = [type(one).__name__ for one in found.exceptions]
    return [failures, ends, await double(1)]


@returns([4, 8, 6])
async def nested_tasks() -> Any:
    async def leaf(number: int) -> int:
        return await double(number)

    async def branch(number: int) -> int:
        first = await leaf(number)
        return await asyncio.create_task(leaf(first))

    one, two = asyncio.create_task(branch(1)), asyncio.create_task(branch(2))
    return [await one, await two, await leaf(3)]


@returns([["fast"], ["middle", "slow"], 2])
async def wait_for_the_first() -> Any:
    tasks = [
        asyncio.create_task(sleep(seconds), name=name)
        for name, seconds in (("slow", 30), ("fast", 10), ("middle", 20))
    ]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    names = [sorted(task.get_name() for task in part) for part in (done, pending)]
    for task in pending:
        task.cancel()
    return [*names, await double(1)]


@returns([[2, 4, 6], 0])
async def wait_for_all() -> Any:
    tasks = [asyncio.create_task(after(3 - i, i)) for i in (1, 2, 3)]
    done, pending = await asyncio.wait(tasks)
    # A set: its order is the same on each replay, so that a step for each of them is too.
    await asyncio.gather(*(double(task.result()) for task in done))
    return [[task.result() for task in tasks], len(pending)]


@returns([["a"], ["b"]])
async def wait_with_a_limit() -> Any:
    tasks = [asyncio.create_task(sleep(s), name=n) for n, s in (("a", 5), ("b", 50))]
    done, pending = await asyncio.wait(tasks, timeout=10)
    return [[task.get_name() for task in part] for part in (done, pending)]


@returns([6, 4, 2])
async def as_completed_of_tasks() -> Any:
    tasks = [asyncio.create_task(after(10 - 2 * i, i)) for i in (1, 2, 3)]
    return [await one for one in asyncio.as_completed(tasks)]


@returns([2, 4])
async def as_completed_with_a_limit() -> Any:
    tasks = [asyncio.create_task(after(1, i)) for i in (1, 2)]
    return [await one for one in asyncio.as_completed(tasks, timeout=60)]


# -- limits and cancellation ---------------------------------------------------------------------


@returns(["too long", 2])
async def timeout() -> Any:
    try:
        async with asyncio.timeout(5):
            await sleep(50)
    except TimeoutError:
        return ["too long", await double(1)]


@returns([2, 4])
async def timeout_that_is_kept() -> Any:
    async with asyncio.timeout(5):
        first = await double(1)
    return [first, await double(2)]


@returns(["inner", "outer", 2])
async def timeouts_around_blocking_code(ctx: WorkflowContext) -> Any:
    found = []
    try:
        async with asyncio.timeout(10):
            try:
                async with asyncio.timeout(3):
                    ctx.sleep(100)
            except TimeoutError:
                found.append("inner")
            ctx.sleep(100)
    except TimeoutError:
        found.append("outer")
    return [*found, triple(0) + await double(1)]


@returns([2, "too long", 4])
async def wait_for() -> Any:
    first = await asyncio.wait_for(double(1), 10)
    try:
        await asyncio.wait_for(after(50, 1), 5)
    except TimeoutError:
        return [first, "too long", await double(2)]


@returns([2, 4])
async def wait_for_a_task() -> Any:
    first = await asyncio.wait_for(asyncio.create_task(after(1, 1)), 10)
    return [first, await double(2)]


@returns(["cancelled", 2, 4])
async def shield() -> Any:
    inner = asyncio.create_task(after(5, 1))
    outer = asyncio.create_task(_shielded(inner))
    await sleep(1)
    outer.cancel()
    try:
        await outer
    except asyncio.CancelledError:
        return ["cancelled", await inner, await double(2)]


async def _shielded(inner: asyncio.Task[int]) -> int:
    return await asyncio.shield(inner)


@returns(["cancelled", 2, 3])
async def cleanup_after_cancellation(ctx: WorkflowContext) -> Any:
    async def worker() -> Any:
        try:
            ctx.sleep(60)
        except asyncio.CancelledError:
            ctx.sleep(1)
            return ["cancelled", await double(1), triple(1)]

    task = asyncio.create_task(worker())
    await sleep(5)
    task.cancel()
    return await task


# -- between tasks -------------------------------------------------------------------------------


@returns([0, 2, 4, 6, 8, 10])
async def producers_and_consumers() -> Any:
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=2)
    found: list[int] = []

    async def produce(first: int) -> None:
        for number in range(first, first + 3):
            await queue.put(await double(number))

    async def consume() -> None:
        while True:
            number = await queue.get()
            await sleep(1)
            found.append(number)
            queue.task_done()

    consumers = [asyncio.create_task(consume()) for _ in range(2)]
    await asyncio.gather(produce(0), produce(3))
    await queue.join()
    for consumer in consumers:
        consumer.cancel()
    return sorted(found)


@returns([2, 4])
async def event() -> Any:
    ready = asyncio.Event()

    async def waiter(number: int) -> int:
        await ready.wait()
        return await double(number)

    tasks = [asyncio.create_task(waiter(i)) for i in (1, 2)]
    await sleep(5)
    ready.set()
    return [await task for task in tasks]


@returns(["a in", "a out", "b in", "b out", "c in", "c out"])
async def lock() -> Any:
    mutex = asyncio.Lock()
    log: list[str] = []

    async def enter(name: str) -> None:
        async with mutex:
            log.append(f"{name} in")
            await sleep(2)
            log.append(f"{name} out")

    await asyncio.gather(*(enter(name) for name in "abc"))
    return log


@returns([3, 2])
async def condition() -> Any:
    changed = asyncio.Condition()
    items: list[int] = []

    async def take() -> int:
        async with changed:
            await changed.wait_for(lambda: len(items) == 3)
            return len(items)

    async def put() -> None:
        for number in range(3):
            await sleep(1)
            async with changed:
                items.append(number)
                changed.notify_all()

    taken, _ = await asyncio.gather(take(), put())
    return [taken, await double(1)]


@returns([2, [0, 2, 4, 6, 8]])
async def semaphore() -> Any:
    free, inside, most = asyncio.Semaphore(2), 0, 0

    async def work(number: int) -> int:
        nonlocal inside, most
        async with free:
            inside += 1
            most = max(most, inside)
            result = await after(1 + number % 2, number)
            inside -= 1
            return result

    results = await asyncio.gather(*(work(i) for i in range(5)))
    return [most, results]


@returns([3, 3, 3])
async def barrier() -> Any:
    meet = asyncio.Barrier(3)

    async def arrive(seconds: int) -> int:
        await sleep(seconds)
        async with meet:
            return triple(1)

    return await asyncio.gather(*(arrive(i) for i in (1, 2, 3)))


# -- callbacks, contexts, generators -------------------------------------------------------------


@returns([2, 4])
async def tasks_made_in_callbacks() -> Any:
    loop = asyncio.get_running_loop()
    made: list[asyncio.Task[int]] = []
    loop.call_soon(lambda: made.append(loop.create_task(double(1))))
    loop.call_later(3, lambda: made.append(loop.create_task(double(2))))
    await sleep(10)
    return [await task for task in made]


@returns([2, 4, 6])
async def tasks_made_in_done_callbacks() -> Any:
    loop = asyncio.get_running_loop()
    made: list[asyncio.Task[int]] = []

    def go_on(task: asyncio.Task[int]) -> None:
        made.append(loop.create_task(double(task.result())))

    first, second = (asyncio.create_task(after(i, i)) for i in (2, 1))
    first.add_done_callback(go_on)
    await second
    await first
    await asyncio.sleep(0)
    return [await second, await first, (await made[0]) - 2]


@returns([[1, 11], [2, 12], 0])
async def context_variables(ctx: WorkflowContext) -> Any:
    async def work(number: int) -> list[int]:
        variable.set(number)
        ctx.sleep(1)
        before = variable.get()
        triple(1)
        variable.set(before + 10)
        await sleep(1)
        return [before, variable.get()]

    one, two = await asyncio.gather(work(1), work(2))
    return [one, two, variable.get()]


@returns([[1, 2, 0], [5, 5], 6])
async def tasks_with_a_context() -> Any:
    async def count() -> int:
        variable.set(variable.get() + 1)
        await double(1)
        return variable.get()

    async def remember() -> int:
        variable.set(5)
        await sleep(1)
        return variable.get()

    shared, empty = copy_context(), Context()
    counts = [await asyncio.create_task(count(), context=shared) for _ in range(2)]
    kept = await asyncio.create_task(remember(), context=empty)
    return [[*counts, variable.get()], [kept, empty[variable]], await double(3)]


@returns([0, 2, 4])
async def async_generator() -> Any:
    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            yield await double(number)
            await sleep(1)

    return [number async for number in numbers()]


@returns([[1, "closed"], [1, "closed"], 2])
async def async_generators_left_early() -> Any:
    async def numbers(log: list[Any]) -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
        finally:
            log.append("closed")

    dropped: list[Any] = []
    async for number in numbers(dropped):
        dropped.append(number)
        break
    await sleep(1)
    closed: list[Any] = []
    async with aclosing(numbers(closed)) as generator:
        async for number in generator:
            closed.append(number)
            break
    return [dropped, closed, await double(1)]


@returns([2, 4, 6])
async def async_context_manager() -> Any:
    found: list[int] = []

    @asynccontextmanager
    async def around() -> AsyncIterator[None]:
        found.append(await double(1))
        try:
            yield
        finally:
            found.append(await double(3))

    async with around():
        found.append(await double(2))
    return found


# -- blocking code -------------------------------------------------------------------------------


@returns([[3, 6], [3, 6], 9])
async def blocking_steps_in_tasks() -> Any:
    async def work() -> list[int]:
        return [triple(1), triple(2)]

    one, two = await asyncio.gather(work(), work())
    return [one, two, triple(3)]


@returns([2, 4, 3])
def blocking_workflow() -> Any:
    futures = [double.submit(1), double.submit(2)]
    return [*(future.result() for future in futures), triple(1)]


@workflow
async def child(number: int) -> int:
    return sum(await asyncio.gather(double(number), after(1, number)))


@workflow
def blocking_child(number: int) -> int:
    return triple(number) + double.submit(number).result()


@returns([[4, 8, 5], 10, 2])
async def child_workflows() -> Any:
    at_once = await asyncio.gather(child(1), child(2), _calls_blocking_child(1))
    return [at_once, blocking_child(2), await double(1)]


async def _calls_blocking_child(number: int) -> int:
    return blocking_child(number)
