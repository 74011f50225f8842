"""A workflow over the real runner: suspended, the file opened anew, and gone on with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow import step, workflow
from pyworkflow._engine.messages import Succeeded, Suspended
from pyworkflow._protocol.executions import ExecutionStatus
from pyworkflow._runtime.runner import Runner
from pyworkflow._values import codec
from pyworkflow._values.exceptions import KnownErrors
from pyworkflow.services.sqlite import SqliteService
from tests.runtime.world import START_MS, JumpingLoop, LoopClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyworkflow._engine.messages import End
    from pyworkflow._protocol.executions import Invocation

ran: list[str] = []


@step
async def validate(order_id: str) -> dict[str, Any]:
    ran.append("validate")
    return {"id": order_id, "amount": 17.5}


@step(retry=3)
def charge(order: dict[str, Any]) -> str:
    ran.append("charge")
    if ran.count("charge") == 1:
        raise ConnectionError("no answer")
    return f"paid {order['amount']}"


@step
async def ship(order: dict[str, Any], approval: str) -> str:
    ran.append("ship")
    return f"{order['id']} shipped, {approval}"


@workflow
async def receipt(ctx: Any, paid: str) -> str:
    ctx.sleep("1h")
    return f"receipt: {paid}"


@workflow
async def order_workflow(ctx: Any, order_id: str) -> list[str]:
    order = await validate(order_id)
    await ctx.sleep("5m")
    paid = charge(order)
    approval = ctx.callback("approval", timeout="7d")
    shipped = await ship(order, await approval.result())
    return [shipped, await ctx.invoke(receipt, {"paid": paid})]


WORKFLOWS = {one.name: one for one in (order_workflow, receipt)}


class Machine:
    """Opens the file anew for each invocation, as if the process had been restarted."""

    def __init__(self, path: Path) -> None:
        self.loop = JumpingLoop()
        self.clock = LoopClock(self.loop)
        self.path = path

    def open(self) -> SqliteService:
        return SqliteService.open(self.path, self.clock.now_ms, durability="normal")

    def do(self, action: Any) -> Any:
        """Do something with a service of its own."""

        async def with_service() -> Any:
            service = self.open()
            try:
                return await action(service)
            finally:
                await service.close()

        return self.loop.run_until_complete(with_service())

    def look(self) -> list[tuple[str, End]]:
        """Run once what is due, and say how each invocation ended."""
        return self.do(self._run_due)  # type: ignore[no-any-return]

    async def _run_due(self, service: SqliteService) -> list[tuple[str, End]]:
        claimed = await service.claim_due("me", list(WORKFLOWS), 10)
        return [(one.workflow_name, await self._invoke(service, one)) for one in claimed]

    async def _invoke(self, service: SqliteService, invocation: Invocation) -> End:
        workflow = WORKFLOWS[invocation.workflow_name]
        runner = Runner(invocation, service, workflow, self.clock, KnownErrors.snapshot())
        end = await runner.run_and_record()
        if isinstance(end, Suspended) and runner.token is not None:
            await service.release(invocation.execution_id, runner.token)
        return end

    def sleep_until_due(self) -> int:
        """Let time pass to the next timer; return how many seconds."""
        due_ms = self.do(lambda service: service.next_due())
        before = self.loop.time()
        self.loop.selector.now = max(before, (due_ms - START_MS) / 1000)
        return round(self.loop.selector.now - before)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    ran.clear()
    machine = Machine(tmp_path / "orders.db")
    yield machine
    machine.loop.close()


def test_an_order_goes_on_where_the_file_has_it(machine: Machine) -> None:
    payload = codec.encode({"order_id": "o-1"}, what="the input")
    execution_id = machine.do(
        lambda service: service.start("order_workflow", payload, execution_name="order-1")
    )
    assert [name for name, end in machine.look() if isinstance(end, Suspended)] == [
        "order_workflow"
    ]
    assert machine.look() == []
    assert machine.sleep_until_due() == 300
    machine.look()
    assert ran == ["validate", "charge"]
    machine.sleep_until_due()
    machine.look()
    assert ran == ["validate", "charge", "charge"]

    operations = machine.do(lambda service: service.operations(execution_id))
    (callback_id,) = (one.callback_id for one in operations if one.callback_id)
    assert machine.look() == []
    machine.do(lambda service: service.complete_callback(callback_id, '"approved"'))
    ends = machine.look()
    assert [name for name, _ in ends] == ["order_workflow"]
    assert [name for name, _ in machine.look()] == ["receipt"]
    assert machine.sleep_until_due() == 3600
    ends = machine.look()
    assert [(name, type(end)) for name, end in ends] == [("receipt", Succeeded)]
    ends = machine.look()
    assert [(name, type(end)) for name, end in ends] == [("order_workflow", Succeeded)]

    assert ran == ["validate", "charge", "charge", "ship"]
    summary = machine.do(lambda service: service.get(execution_id))
    assert summary.status is ExecutionStatus.SUCCEEDED
    assert summary.result == '["o-1 shipped, approved","receipt: paid 17.5"]'
    told = [event.type for event in machine.do(lambda service: service.history(execution_id))]
    assert told == [
        "ExecutionStarted",
        "StepStarted",
        "StepSucceeded",
        "WaitStarted",
        "WaitSucceeded",
        "StepStarted",
        "StepFailed",
        "StepStarted",
        "StepSucceeded",
        "CallbackStarted",
        "CallbackSucceeded",
        "StepStarted",
        "StepSucceeded",
        "ChainedInvokeStarted",
        "ChainedInvokeSucceeded",
        "ExecutionSucceeded",
    ]
