"""The workflows whose processes are killed: the corpus, and what only several processes show.

Of the corpus those are left out that ask for callbacks with a timeout: where time is skipped, the
timeout is over before anybody can answer. Those here ask without one, and are answered by another
process.
"""

from __future__ import annotations

import asyncio
from typing import Any

from pyworkflow import StepInterruptedError, SyncWorkflowContext, WorkflowContext, sleep, workflow
from tests.corpus.registry import Raises, Shape, act, act_flaky, do_sync
from tests.corpus.shapes import SHAPES as CORPUS

INVOKED = 3
"""How many executions one of `invokes` starts."""


def answer(callback_name: str | None) -> str:
    """Return what a callback of that name is answered with."""
    return f"answer to {callback_name}"


@workflow
async def asks(ctx: WorkflowContext) -> Any:
    first = ctx.callback("first")
    a = await act("a")
    seen = await first.result()
    await sleep("1h")
    second = ctx.callback("second")
    return [a, seen, await act("b", seen), await second.result()]


@workflow
async def asks_several(ctx: WorkflowContext) -> Any:
    async def one(name: str) -> Any:
        seen = await ctx.callback(name).result()
        return [seen, await act(f"after {name}", seen)]

    return await asyncio.gather(*(one(name) for name in "xyz"))


@workflow
def asks_and_blocks(ctx: SyncWorkflowContext) -> Any:
    asked = ctx.callback("blocking")
    a = do_sync.options(name="a")("a")
    seen = asked.result()
    return [a, seen, do_sync.options(name="b", at_most_once=True)("b", seen)]


@workflow
async def invoked(number: int) -> Any:
    return [number, await act(f"in {number}"), await act_flaky(f"flaky in {number}")]


@workflow
async def invokes(ctx: WorkflowContext) -> Any:
    found = await asyncio.gather(*(ctx.invoke(invoked, number) for number in range(INVOKED)))
    return [*found, await act("after")]


@workflow
async def careful_in_threads() -> Any:
    log = []
    for name in "abc":
        try:
            log.append(do_sync.options(name=name, at_most_once=True)(name))
        except StepInterruptedError:
            log.append("who knows")
    return log


@workflow
async def many_at_once() -> Any:
    return await asyncio.gather(*(act(f"{number}") for number in range(20)))


@workflow
async def long_line() -> Any:
    seen = ""
    for number in range(30):
        seen = await act(f"{number}", seen)
    return seen


_UNKNOWN = tuple(
    [a, b, c] for a in ("a!", "who knows") for b in ("b!", "who knows") for c in ("c!", "who knows")
)


OWN = (
    Shape(asks, False, (["a!", answer("first"), "b!", answer("second")],)),
    Shape(asks_several, False, ([[answer(name), f"after {name}!"] for name in "xyz"],)),
    Shape(
        asks_and_blocks,
        False,
        (["a!", answer("blocking"), "b!"],),
        interrupted=(Raises("StepInterruptedError", "step 'b' was found started (attempt 1)"),),
    ),
    Shape(
        invokes, False, ([*([n, f"in {n}!", f"flaky in {n}!"] for n in range(INVOKED)), "after!"],)
    ),
    Shape(careful_in_threads, False, (["a!", "b!", "c!"],), interrupted=_UNKNOWN),
    Shape(many_at_once, False, ([f"{number}!" for number in range(20)],)),
    Shape(long_line, False, ("29!",)),
)

SHAPES = {
    shape.name: shape for shape in (*(each for each in CORPUS.values() if not each.callbacks), *OWN)
}
WORKFLOWS = (*(shape.workflow for shape in SHAPES.values()), invoked)

DRAWN = {"loops_on_chance"}
"""Its result hangs on the id of the execution; its replay says whether it is the right one."""
