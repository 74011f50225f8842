"""Workflows for the command line, written to a folder as the file ``shop.py``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from pyworkflow import FatalError, WorkflowContext, current_step, step, workflow


def note(line: str) -> None:
    with Path("bodies").open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


@step
async def charge(cents: int) -> str:
    note("charge")
    print("charging")  # noqa: T201 - it must not get among the results
    if current_step().attempt == 1 and cents > 100:
        raise ConnectionError("the provider is \x1b[31mbusy[/red]")
    return f"PAY-{cents}"


@step
def blocked() -> str:
    """Say so, and read a line from a named pipe."""
    note("blocked")
    sys.stderr.write("blocked\n")
    sys.stderr.flush()
    with Path("gate").open(encoding="utf-8") as gate:
        return gate.readline().strip()


@step
async def stuck() -> None:
    """Block the loop."""
    sys.stderr.write("stuck\n")
    sys.stderr.flush()
    with Path("gate").open(encoding="utf-8") as gate:  # noqa: ASYNC230 - it blocks, as it says
        gate.readline()


@step
def refuse() -> None:
    raise FatalError("no \x1b[31msuch[/red] order")


@step
async def number(index: int) -> int:
    return index


@workflow
async def order(ctx: WorkflowContext, cents: int, wait: str = "5m") -> dict[str, str]:
    payment = await charge(cents)
    ctx.sleep(wait)
    return {"payment": payment}


@workflow
async def approval(ctx: WorkflowContext, cents: int = 1) -> str:
    payment = await charge(cents)
    answer = ctx.callback("ap[bold]proval", timeout="7d", heartbeat_timeout="1d")
    return f"{payment}: {await answer.result()}"


@workflow
async def gated(ctx: WorkflowContext) -> str:
    return f"{await charge(1)}: {blocked()}"


@workflow
async def blocking(ctx: WorkflowContext) -> None:
    await stuck()


@workflow
async def refused(ctx: WorkflowContext) -> None:
    refuse()


@workflow
async def wide(ctx: WorkflowContext, count: int) -> int:
    return sum(await asyncio.gather(*(number(index) for index in range(count))))
