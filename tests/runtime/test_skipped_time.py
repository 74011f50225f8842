"""Clients that skip time: waits take none, bodies take theirs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pyworkflow import AsyncClient, WorkflowContext, step, workflow
from pyworkflow._protocol.executions import ExecutionStatus
from tests.runtime.local import on_a_loop

if TYPE_CHECKING:
    from pathlib import Path


class Gate:
    """Where a body waits; each test has its own, since events belong to a loop."""

    begun: asyncio.Event
    done: asyncio.Event


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Gate.begun, Gate.done = asyncio.Event(), asyncio.Event()


@step(retry=False)
async def hangs() -> str:
    Gate.begun.set()
    await Gate.done.wait()
    return "done"


@workflow
async def long() -> str:
    return await hangs()


@workflow
async def limited() -> str:
    try:
        async with asyncio.timeout(1):
            return await hangs()
    except TimeoutError:
        return "timed out"


@workflow
async def sleeper(ctx: WorkflowContext, wait: str) -> str:
    await ctx.sleep(wait)
    return wait


@pytest.fixture(params=["memory", "local"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncClient:
    if request.param == "memory":
        return AsyncClient.memory(skip_time=True)
    return AsyncClient.local(tmp_path / "e.db", skip_time=True)


@on_a_loop
async def test_a_timeout_cuts_a_body_that_hangs(client: AsyncClient) -> None:
    async with client:
        assert await (await client.start(limited)).result() == "timed out"


@on_a_loop
async def test_a_long_step_does_not_stop_the_time_of_others(client: AsyncClient) -> None:
    async with client:
        handle = await client.start(long)
        await Gate.begun.wait()
        for wait in ("1h", "30d"):
            assert await (await client.start(sleeper, wait)).result() == wait
        assert await handle.status() is ExecutionStatus.RUNNING
        Gate.done.set()
        assert await handle.result() == "done"


@on_a_loop
async def test_the_timeout_of_an_execution_is_not_skipped_while_its_body_runs(
    client: AsyncClient,
) -> None:
    async with client:
        handle = await client.start(long, timeout="1h")
        await Gate.begun.wait()
        for wait in ("1m", "2m"):
            assert await (await client.start(sleeper, wait)).result() == wait
        Gate.done.set()
        assert await handle.result() == "done"


@on_a_loop
async def test_the_timeout_of_a_suspended_execution_is_skipped(client: AsyncClient) -> None:
    async with client:
        handle = await client.start(sleeper, "2h", timeout="1h")
        with pytest.raises(Exception, match="timed out"):
            await handle.result()
