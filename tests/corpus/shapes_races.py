"""Shapes whose outcome depends on who is faster, and on what is cancelled then."""

from __future__ import annotations

import asyncio
from typing import Any

from pyworkflow import (
    FatalError,
    Retry,
    StepTimeoutError,
    WorkflowContext,
    sleep,
)
from tests.corpus.registry import act, act_blocking, act_fail, act_flaky, races, submit

# -- who is first --------------------------------------------------------------------------------


@races(one_of=(["a!", "won a!"], ["b!", "won b!"], ["c!", "won c!"]))
async def first_completed() -> Any:
    """The losers are cancelled, and may not run again."""
    tasks = [asyncio.create_task(act(name)) for name in "abc"]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    (winner,) = {task.result() for task in done}
    return [winner, await act(f"won {winner[0]}", winner)]


@races()
async def first_completed_and_the_rest() -> Any:
    pending = {asyncio.create_task(act(name)) for name in "abcd"}
    log: list[str] = []
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            log.append(await act(f"after {task.result()[0]}", task.result()))
    return log


@races()
async def as_completed() -> Any:
    tasks = [asyncio.create_task(act(name)) for name in "abcd"]
    log = []
    for each in asyncio.as_completed(tasks):
        seen = await each
        log.append(await act(f"after {seen[0]}", seen))
    return log


@races()
async def as_completed_with_failures() -> Any:
    calls = [act("a"), act_flaky("b"), act_fail("c"), act_flaky("d", 2)]
    tasks = [asyncio.create_task(call) for call in calls]
    log: list[str] = []
    for each in asyncio.as_completed(tasks):
        try:
            log.append(await each)
        except FatalError as error:
            log.append(await act("mend", str(error)))
    return log


@races()
async def first_exception() -> Any:
    tasks = [asyncio.create_task(call) for call in (act("a"), act_fail("f"), act_flaky("b", 2))]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in pending:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return [len(done), await act(f"{len(done)} done")]


@races()
async def order_of_arrival() -> Any:
    """Tasks add to one list; the next step is named after it."""
    log: list[str] = []

    async def one(name: str) -> None:
        log.append(await act(name))

    await asyncio.gather(*(one(name) for name in "abcd"))
    return [log, await act(f"then {log[0][0]}{log[-1][0]}", *log)]


@races()
async def queue_with_two_consumers() -> Any:
    queue: asyncio.Queue[str] = asyncio.Queue()
    log: list[str] = []

    async def produce(name: str) -> None:
        for number in range(2):
            queue.put_nowait(await act(f"{name}{number}"))

    async def consume(name: str) -> None:
        while True:
            seen = await queue.get()
            log.append(await act(f"{name} uses {seen[:2]}", seen))
            queue.task_done()

    consumers = [asyncio.create_task(consume(name)) for name in "xy"]
    await asyncio.gather(produce("a"), produce("b"))
    await queue.join()
    for consumer in consumers:
        consumer.cancel()
    return log


@races()
async def lock_by_arrival() -> Any:
    mutex = asyncio.Lock()
    log: list[str] = []

    async def one(name: str) -> None:
        first = await act(name)
        async with mutex:
            log.append(await act(f"{len(log)} {name}", first))

    await asyncio.gather(*(one(name) for name in "abc"))
    return log


@races()
async def submits_and_the_first() -> Any:
    futures = [submit(name) for name in "abc"]
    done, pending = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    for future in pending:
        future.cancel()
    return [*sorted(future.result() for future in done), await act("last")]


@races()
async def careful_and_the_first() -> Any:
    """Steps that may run once lose a race: before they begin, or in their midst."""
    futures = [submit(name, at_most_once=True) for name in "abc"]
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    for future in futures:
        future.cancel()
    kinds = {type(f.exception()).__name__ for f in futures if f.done() and not f.cancelled()}
    return [len(kinds), await act("last")]


# -- limits --------------------------------------------------------------------------------------


@races()
async def timeouts() -> Any:
    log = []
    for name in ("a", "b"):
        try:
            async with asyncio.timeout(12):
                log.append(await act(name))
        except TimeoutError:
            log.append(f"late {name}")
        log.append(await act(f"after {name}"))
    return log


@races()
async def timeout_around_a_sequence() -> Any:
    log: list[str] = []
    try:
        async with asyncio.timeout(30):
            for number in range(4):
                log.append(await act(str(number), *log[-1:]))
    except TimeoutError:
        log.append("late")
    return [*log, await act("after")]


@races()
async def nested_timeouts() -> Any:
    log: list[str] = []
    try:
        async with asyncio.timeout(25):
            for name in "abc":
                try:
                    async with asyncio.timeout(10):
                        log.append(await act(name))
                except TimeoutError:
                    log.append(await act(f"mend {name}"))
    except TimeoutError:
        log.append("out of time")
    return log


@races()
async def timeout_that_moves(ctx: WorkflowContext) -> Any:
    loop = asyncio.get_running_loop()
    log: list[str] = []
    try:
        async with asyncio.timeout(8) as limit:
            for name in "abc":
                log.append(await act(name))
                limit.reschedule(loop.time() + 8)
    except TimeoutError:
        log.append("late")
    return log


@races()
async def wait_for() -> Any:
    async def one(name: str, limit: int) -> str:
        try:
            return await asyncio.wait_for(act(name), limit)
        except TimeoutError:
            return await act(f"late {name}")  # type: ignore[no-any-return]

    return await asyncio.gather(one("a", 5), one("b", 15), one("c", 25))


@races()
async def retries_within_a_limit() -> Any:
    try:
        async with asyncio.timeout(20):
            return [await act_flaky("a", 2), "in time"]
    except TimeoutError:
        return [await act("b"), "late"]


@races()
async def steps_with_timeouts_side_by_side() -> Any:
    """While one runs its second attempt, what its first one still returns may come in."""

    async def one(name: str, limit: int) -> str:
        try:
            policy = Retry(max_attempts=3, delay=1, backoff=1, jitter=False)
            return await act(name, timeout=limit, retry=policy)  # type: ignore[no-any-return]
        except StepTimeoutError:
            return "late"

    limits = {"a": 2, "b": 3, "c": 5, "d": 12, "e": 60}
    return await asyncio.gather(*(one(name, limit) for name, limit in limits.items()))


@races()
async def step_or_timer() -> Any:
    tasks = [asyncio.create_task(act("a")), asyncio.create_task(sleep(11))]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    is_step = tasks[0].done()
    for task in tasks:
        task.cancel()
    return [is_step, await act("step" if is_step else "timer")]


@races()
async def blocking_under_a_limit(ctx: WorkflowContext) -> Any:
    log: list[str] = []
    try:
        async with asyncio.timeout(9):
            log.append(act_blocking("a"))
            ctx.sleep(3)
            log.append(act_blocking("b"))
    except TimeoutError:
        log.append("late")
    return [*log, act_blocking("c")]
