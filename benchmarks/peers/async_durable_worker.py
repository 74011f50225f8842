"""async-durable-execution, by its local runner, which keeps the history in memory."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from async_durable_execution import (
    InvocationStatus,
    create_local_runner,
    durable_callable,
    durable_execution,
    step,
)
from measure import Execution, run_worker


@durable_callable
async def add(i: int) -> int:
    return i + 1


@durable_execution
async def count(event: dict[str, Any]) -> int:
    total = 0
    for i in range(event["n"]):
        total = await step(add(i), name="add")
    return total


async def run_locally(n: int) -> object:
    async with create_local_runner(handler=count, input={"n": n}, timeout=600) as runner:
        outcome = await runner.run()
    if outcome.status is not InvocationStatus.SUCCEEDED:
        raise SystemExit(f"expected SUCCEEDED, found {outcome.status}: {outcome.error}")
    return json.loads(outcome.result)


def live(n: int) -> Execution:
    loop = asyncio.Runner()
    return lambda: loop.run(run_locally(n))


if __name__ == "__main__":
    run_worker({"live": live}, ["async-durable-execution", "botocore"])
