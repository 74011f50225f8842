"""Workers and clients on a file in which one execution can't be read."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from pathlib import Path

import pytest

from pyworkflow import AsyncClient, WorkflowContext, step, workflow
from pyworkflow._protocol.executions import ExecutionStatus
from pyworkflow.errors import StorageError
from tests.runtime.local import on_a_loop


@step
async def double(number: int) -> int:
    return number * 2


@workflow
async def doubles(ctx: WorkflowContext, number: int) -> int:
    doubled = await double(number)
    await ctx.callback("go on").result()
    return doubled


@workflow
async def main(number: int) -> int:
    return await double(number)


def by_hand(file: Path, statement: str) -> None:
    vandal = sqlite3.connect(file)
    with vandal:
        vandal.execute(statement)
    vandal.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE operations SET record = x'c1' WHERE key = 1 << 32",
        "UPDATE operations SET record = 7 WHERE key = 1 << 32",
        "UPDATE executions SET unread = 'text' WHERE number = 1",
        "UPDATE executions SET wake_ms = 'soon', tokens = 'many' WHERE number = 1",
        "UPDATE executions SET deadline_ms = 'soon', tokens = 'many' WHERE number = 1",
    ],
)
def test_a_damaged_execution_that_is_due_ends_no_worker(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    @on_a_loop
    async def scenario() -> None:
        file = tmp_path / "shop.db"
        async with AsyncClient.local(file, worker=False) as client:
            bad = await client.start(main, 1, execution_name="bad")
            others = [await client.start(main, number) for number in range(5)]
        by_hand(file, damage)
        async with AsyncClient.local(file, workflows=[main]) as client:
            handles = [await client.get(each.id, main) for each in others]
            assert [await handle.result() for handle in handles] == [0, 2, 4, 6, 8]
            shown = (await client.list())[-1]
            assert (shown.id, shown.status) == (bad.id, ExecutionStatus.RUNNING)
            assert shown.problem is not None
            assert f"{bad.id!r} can't be read: row " in shown.problem.message
        told = [record for record in caplog.records if bad.id in record.getMessage()]
        assert len(told) <= 1
        assert not [record for record in caplog.records if record.exc_info]

    with caplog.at_level(logging.WARNING, "pyworkflow"):
        scenario()


@on_a_loop
async def test_who_waits_for_another_hears_nothing_of_a_damaged_one(tmp_path: Path) -> None:
    file = tmp_path / "shop.db"
    async with AsyncClient.local(file, workflows=[doubles]) as client:
        bad, good = await client.start(doubles, 1), await client.start(doubles, 2)
        results = [asyncio.ensure_future(each.result()) for each in (bad, good)]
        opened = None
        while opened is None:
            found = await good.operations()
            opened = next((each.callback_id for each in found if each.callback_id), None)
        by_hand(file, "UPDATE operations SET record = x'c1' WHERE key = 1 << 32")
        with pytest.raises(StorageError, match=bad.id):
            await results[0]
        await client.complete_callback(opened)
        assert await results[1] == 4
