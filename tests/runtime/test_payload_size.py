"""A payload that is too large for the file fails what it belongs to at once: nothing is put off."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from pyworkflow import SerializationError, SyncWorkflowContext, WorkflowContext, step, workflow
from pyworkflow._protocol.executions import ExecutionStatus
from pyworkflow._runtime.clock import SystemClock
from pyworkflow.services.memory import ImmediateMemoryService
from pyworkflow.services.sqlite import SqliteService
from pyworkflow.services.sqlite._schema import largest_payload
from tests.runtime.local import ended, future_clock, on_a_loop, working

LIMIT = 60
LARGE = "x" * LIMIT


@step
async def large() -> str:
    return LARGE


@step(inline=True)
def large_inline() -> str:
    return LARGE


@workflow
async def of_a_step(ctx: WorkflowContext) -> str:
    return await large()


@workflow
def of_an_inline_step(ctx: SyncWorkflowContext) -> str:
    return large_inline()


@workflow
async def of_itself(ctx: WorkflowContext) -> str:
    return LARGE


@workflow
async def of_a_child(ctx: WorkflowContext) -> str:
    return await of_itself(ctx)


@workflow
async def of_an_invoke(ctx: WorkflowContext) -> Any:
    return await ctx.invoke(of_itself, LARGE)


@workflow
async def of_a_callee(ctx: WorkflowContext) -> Any:
    return await ctx.invoke("of_itself")


@workflow
async def of_a_state(ctx: WorkflowContext) -> Any:
    return await ctx.wait_for_condition(lambda: LARGE, every=1, until=lambda _: False, name="look")


FLOWS: list[Any] = [
    of_a_step,
    of_an_inline_step,
    of_itself,
    of_a_child,
    of_an_invoke,
    of_a_callee,
    of_a_state,
]


def open_small(path: Path, clock: Any) -> SqliteService:
    return SqliteService.open(
        path,
        clock.now_ms,
        machine_ms=SystemClock().now_ms,
        durability="normal",
        max_payload_bytes=LIMIT,
    )


@pytest.mark.parametrize("flow", FLOWS, ids=[flow.name for flow in FLOWS])
@on_a_loop
async def test_it_fails_at_once(flow: Any, tmp_path: Path) -> None:
    clock = future_clock()
    service = open_small(tmp_path / "small.db", clock)
    try:
        async with working(service, *FLOWS, clock=clock):
            summary = await ended(service, await service.start(flow.name, "{}"))
        assert summary.status is ExecutionStatus.FAILED
        assert summary.failed_invocations == 0
        assert summary.error is not None
        assert "the service takes at most 60" in summary.error.message
    finally:
        await service.close()


@on_a_loop
async def test_an_input_and_an_answer_are_refused(tmp_path: Path) -> None:
    service = open_small(tmp_path / "small.db", SystemClock())
    try:
        with pytest.raises(SerializationError, match=r"input of 'flow' .* it has 62 bytes"):
            await service.start("flow", f'"{LARGE}"')
        with pytest.raises(SerializationError, match=r"answer of a callback .* at most 60"):
            await service.complete_callback("any", f'"{LARGE}"')
        assert await service.list() == ()
    finally:
        await service.close()


def test_memory_has_a_limit_if_it_is_given_one() -> None:
    service = ImmediateMemoryService(lambda: 1, max_payload_bytes=LIMIT)
    with pytest.raises(SerializationError, match="input of 'flow'"):
        service.start("flow", LARGE + "x")
    with pytest.raises(SerializationError, match="answer of a callback"):
        service.complete_callback("any", LARGE + "x")
    execution_id = service.start("flow", LARGE)
    assert service.claim(execution_id).max_payload_bytes == LIMIT


@on_a_loop
async def test_the_file_s_own_limit_is_sqlite_s(tmp_path: Path) -> None:
    connection = sqlite3.connect(":memory:")
    most = connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH)
    assert most - 100_000 < largest_payload(connection) < most
    connection.close()
    service = SqliteService.open(tmp_path / "large.db", lambda: 1)
    try:
        invocation = await service.claim(await service.start("flow", "{}"))
        found = invocation.max_payload_bytes
        assert found is not None
        assert most - 100_000 < found < most
        assert invocation.max_result_bytes == found
    finally:
        await service.close()
