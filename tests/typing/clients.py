"""What type checkers see of clients: mypy and pyright, both strict."""

from __future__ import annotations

from typing import Any, assert_type

import pyworkflow
from pyworkflow import AsyncClient, Client, WorkflowContext, workflow
from pyworkflow.aws import aws_workflow_handler
from pyworkflow.types import AsyncHandle, Handle


class Receipt:
    total: int = 0


@workflow
async def priced(ctx: WorkflowContext, item: str) -> Receipt:
    return Receipt()


@workflow
def priced_blocking(item: str) -> int:
    return len(item)


@aws_workflow_handler
@workflow
async def handled(item: str) -> Receipt:
    return Receipt()


def blocks() -> None:
    with Client.local("file.db", worker=False, durability="normal") as client:
        handle = client.start(priced, {"item": "a"}, execution_name="n", timeout="1h")
        assert_type(handle, Handle[Receipt])
        assert_type(handle.result(timeout=5), Receipt)
        assert_type(client.start(priced_blocking, "a").result(), int)
        assert_type(client.start(handled, "a").result(), Receipt)
        assert_type(client.start("priced", "a"), Handle[Any])
        assert_type(client.get("n"), Handle[Any])
        assert_type(client.get("n", priced), Handle[Receipt])
        assert_type(client.get("n", priced_blocking), Handle[int])
    with Client.memory(workflows=[priced, handled, "file.py", pyworkflow]):
        pass
    assert_type(pyworkflow.run(priced, "a"), Receipt)
    assert_type(pyworkflow.run(priced_blocking, "a", db="file.db", skip_time=True), int)
    assert_type(pyworkflow.run(handled, "a"), Receipt)


async def awaits() -> None:
    async with AsyncClient.memory() as client:
        handle = await client.start(priced, {"item": "a"})
        assert_type(handle, AsyncHandle[Receipt])
        assert_type(await handle.result(), Receipt)
        assert_type(await client.start(priced_blocking, "a"), AsyncHandle[int])
        assert_type(await client.start(handled, "a"), AsyncHandle[Receipt])
        assert_type(await client.start("priced"), AsyncHandle[Any])
        assert_type(await client.get("n", priced), AsyncHandle[Receipt])


def mistakes(client: Client) -> None:
    client.start(len, "a")  # type: ignore[call-overload]
    client.start(priced, "a", execution_nmae="n")  # type: ignore[call-overload]
    Client.local(durability="none")  # type: ignore[arg-type]
