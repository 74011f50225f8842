"""Shapes of one line of control: sequences, retries, errors, clean-up, keys, patches, care.

Blocking code is among them: to the engine it is the same line, on a greenlet.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pyworkflow import (
    FatalError,
    Retry,
    StepInterruptedError,
    StepTimeoutError,
    SyncWorkflowContext,
    WorkflowContext,
    sleep,
    step,
)
from tests.corpus.registry import (
    Raises,
    act,
    act_blocking,
    act_fail,
    act_flaky,
    always,
    do,
    do_sync,
    races,
    submit,
)

# -- sequences -----------------------------------------------------------------------------------


@always(["a!", "b!", "c!"])
async def sequence() -> Any:
    a = await act("a")
    b = await act("b", a)
    return [a, b, await act("c", a, b)]


@always(["a!", "b!", "c!"])
async def sequence_with_waits(ctx: WorkflowContext) -> Any:
    a = await act("a")
    ctx.sleep(60)
    b = await act("b", a)
    await sleep("1h", name="rest")
    return [a, b, await act("c", b)]


@always([f"{n}!" for n in range(12)])
async def long_sequence() -> Any:
    seen: list[str] = []
    for number in range(12):
        seen.append(await act(str(number), *seen[-1:]))
    return seen


@always("a!")
async def returns_what_a_step_gave() -> Any:
    return await act("a")


@always(None)
async def waits_alone(ctx: WorkflowContext) -> None:
    ctx.sleep(1)
    await sleep("7d")


@always([True, "b!"])
async def branches_on_results() -> Any:
    a = await act("a")
    return [a == "a!", await (act("b", a) if a == "a!" else act("c", a))]


@always([1, 3, "then!"])
async def loops_on_chance(ctx: WorkflowContext) -> Any:
    """The numbers of operations come from `ctx.random`, which is seeded."""
    drawn = [ctx.random.randrange(1, 4) for _ in range(2)]
    seen = ""
    for index in range(drawn[0]):
        seen = await act(f"turn {index}", seen)
    return [*drawn, await act("then", seen, str(ctx.uuid4()))]


# -- failures ------------------------------------------------------------------------------------


@always(["a!", "b!", "c!"])
async def retries() -> Any:
    a = await act_flaky("a")
    b = await act_flaky("b", 3, a)
    return [a, b, await act_flaky("c", 0, b)]


@always(Raises("ConnectionError", "a failed"))
async def retries_that_run_out() -> Any:
    await act_flaky("a", 9)


@always(["a failed", "b!"])
async def caught() -> Any:
    try:
        await act_fail("a")
    except FatalError as error:
        seen = str(error)
    return [seen, await act("b", seen)]


class OrderError(Exception):
    """A base of this module's errors."""


class DeclinedError(OrderError):
    """What this module's own step raises."""


@step(retry=False)
async def decline(name: str, *seen: Any) -> str:
    raise DeclinedError(f"{name} declined")


@always(["a declined", "b!"])
async def errors_of_its_own() -> Any:
    try:
        await decline("a")
    except DeclinedError as error:
        seen = str(error)
    except Exception as error:
        seen = f"another class: {error}"
    return [seen, await act("b", seen)]


@always(["a declined", "c!"])
async def errors_of_its_own_out_of_a_child(ctx: WorkflowContext) -> Any:
    async def child() -> None:
        await decline("a")

    try:
        await ctx.child(child)
    except OrderError as error:
        seen = str(error)
    return [seen, await act("c", seen)]


@always(Raises("FatalError", "b failed"))
async def uncaught() -> Any:
    await act_fail("b", await act("a"))


@always(Raises("ValueError", "own fault, after a!"))
async def raises_by_itself() -> Any:
    raise ValueError(f"own fault, after {await act('a')}")


@always(["a!", "undo a!", "b failed"])
async def compensates() -> Any:
    done: list[str] = []
    try:
        done.append(await act("a"))
        done.append(await act_fail("b", *done))
    except FatalError as error:
        for each in reversed(done):
            done.append(await act(f"undo {each[0]}", each))
        return [*done, str(error)]


@always(["a!", "f1 failed", "clean!", "f2 failed"])
async def fails_while_failing() -> Any:
    log = [await act("a")]
    try:
        try:
            await act_fail("f1")
        except FatalError as error:
            log.append(str(error))
            raise
        finally:
            log.append(await act("clean", *log))
            await act_fail("f2")
    except FatalError as error:
        log.append(str(error))
    return log


@races()
async def steps_with_timeouts() -> Any:
    """What an attempt that was cut off still returns comes too late."""
    log = []
    for name, limit in (("a", 10), ("b", 1), ("c", 30)):
        try:
            policy = Retry(max_attempts=2, jitter=False)
            log.append(await act(name, timeout=limit, retry=policy))
        except StepTimeoutError:
            log.append("late")
    return [*log, await act("d")]


# -- clean-up ------------------------------------------------------------------------------------


@always(["a!", "b failed", "clean!", "c!"])
async def try_finally() -> Any:
    log = [await act("a")]
    try:
        try:
            await act_fail("b", *log)
        finally:
            log.append("b failed")
            log.append(await act("clean", log[0]))
    except FatalError:
        log.append(await act("c"))
    return log


@asynccontextmanager
async def _around(name: str, log: list[Any]) -> AsyncIterator[str]:
    opened = await act(f"open {name}")
    try:
        yield opened
    except FatalError as error:
        log.append(await act(f"rescue {name}", opened, str(error)))
        raise
    finally:
        log.append(await act(f"close {name}", opened))


@always(["b!", "close inner!", "close outer!"])
async def async_with() -> Any:
    log: list[Any] = []
    async with _around("outer", log) as outer, _around("inner", log) as inner:
        log.append(await act("b", outer, inner))
    return log


@always(["rescue inner!", "close inner!", "rescue outer!", "close outer!", "f failed"])
async def async_with_that_fails() -> Any:
    log: list[Any] = []
    try:
        async with _around("outer", log), _around("inner", log) as inner:
            await act_fail("f", inner)
    except FatalError as error:
        log.append(str(error))
    return log


async def _numbers(log: list[Any], most: int) -> AsyncGenerator[str, None]:
    try:
        for number in range(most):
            yield await act(f"make {number}")
            await sleep(2)
    finally:
        log.append(await act("close"))


@always(["make 0!", "use 0!", "make 1!", "use 1!", "close!"])
async def async_generator_to_its_end() -> Any:
    log: list[Any] = []
    async for each in _numbers(log, 2):
        log += [each, await act(f"use {each[5]}", each)]
    return log


@always(["make 0!", "close!", "after!"])
async def async_generator_closed_early() -> Any:
    log: list[Any] = []
    async with aclosing(_numbers(log, 5)) as numbers:
        async for each in numbers:
            log.append(each)
            break
    return [*log, await act("after", *log)]


@always(["a!", "sent a!", "b!", "sent b!"])
async def async_generator_that_is_sent_to() -> Any:
    async def echo() -> AsyncGenerator[str, str]:
        seen = yield ""
        while True:
            seen = yield await act(f"sent {seen[0]}", seen)

    log: list[Any] = []
    async with aclosing(echo()) as generator:
        await generator.asend(None)  # type: ignore[arg-type] # as a generator is begun
        for name in "ab":
            log.append(await act(name))
            log.append(await generator.asend(log[-1]))
    return log


# -- blocking code -------------------------------------------------------------------------------


@always(["a!", "b!", "c!"])
def blocking(ctx: SyncWorkflowContext) -> Any:
    a = act_blocking("a")
    ctx.sleep(30)
    return [a, act_blocking("b", a), do_sync.options(name="c")("c", a)]


@always(["a!", "b!", "c!", "d!"])
def blocking_that_submits(ctx: SyncWorkflowContext) -> Any:
    futures = [submit(name) for name in "abc"]
    ctx.sleep(3)
    seen = [future.result() for future in futures]
    return [*seen, submit("d", *seen).result()]


@always(["a failed", "clean!", "b!"])
def blocking_with_clean_up() -> Any:
    log = []
    try:
        raise FatalError("a failed")
    except FatalError as error:
        log.append(str(error))
    finally:
        log.append(act_blocking("clean", *log))
    return [*log, submit("b", *log).result()]


@always(["a!", "b!", "c!", "d!"])
async def async_that_blocks(ctx: WorkflowContext) -> Any:
    a = act_blocking("a")
    b = await act("b", a)
    ctx.sleep(10)
    return [a, b, do_sync.options(name="c")("c", b), await act("d")]


# -- identities ----------------------------------------------------------------------------------


@always(["a!", "b!", "c!"])
async def keyed() -> Any:
    a = await act("a", key="first")
    await sleep(5, key="pause")
    b = await act("b", a)
    return [a, b, await act("c", b, key="last")]


@always(["item 0!", "item 1!", "item 2!"])
async def keyed_in_a_loop() -> Any:
    """Equal names, told apart by their keys."""
    return [
        await do.options(name="item", key=f"item-{number}")(f"item {number}") for number in range(3)
    ]


@always([True, "new!", True, "b!"])
async def patched(ctx: WorkflowContext) -> Any:
    first = ctx.patched("one")
    seen = await act("new" if first else "old")
    return [first, seen, ctx.patched("two"), await act("b", seen)]


@dataclass
class Receipt:
    number: int
    lines: tuple[str, ...]


_lines: list[list[str]] = []


@step
async def note(line: str) -> list[str]:
    """Return a list that the next call changes: what the workflow received must be a copy."""
    for each in _lines:
        each.append(line)
    _lines[:] = [[line]]
    return _lines[0]


@step
async def receipt(number: int) -> Receipt:
    return Receipt(number, ("a", "b"))


@always([["a"], ["b"], 7, "tuple"])
async def decoded_values() -> Any:
    first = await note.options(name="first")("a")
    second = await note.options(name="second")("b")
    paper = await receipt(7)
    return [first, second, paper.number, type(paper.lines).__name__]


# -- at most once --------------------------------------------------------------------------------


@always(
    ["a!", "b!"], interrupted=(["who knows", "b!"], ["a!", "who knows"], ["who knows", "who knows"])
)
async def careful() -> Any:
    log: list[str] = []
    for name in "ab":
        try:
            log.append(await act(name, at_most_once=True))
        except StepInterruptedError:
            log.append("who knows")
    return log


@always(["a!", "b!"], interrupted=(Raises("StepInterruptedError", "step "),))
async def careful_with_retry() -> Any:
    """An attempt that was cut off is followed by the next, up to the last; none runs twice."""
    policy = Retry(max_attempts=5, delay=3, jitter=False)
    a = await act("a", at_most_once=True, retry=policy)
    return [a, await act_flaky("b", 1, a, at_most_once=True, retry=policy)]


@always(
    ["a!", "b!", "c!"],
    interrupted=(Raises("StepInterruptedError", "step 'b' was found started (attempt 1)"),),
)
async def careful_between_others() -> Any:
    a = await act("a")
    b = await act("b", a, at_most_once=True)
    return [a, b, await act("c", b)]


@always(
    ["f failed", "a!"],
    interrupted=(["who knows", "a!"],),
)
async def careful_that_fails() -> Any:
    try:
        seen = await act_flaky("f", 9, at_most_once=True)
    except ConnectionError as error:
        seen = str(error)
    except StepInterruptedError:
        seen = "who knows"
    return [seen, await act("a")]
