"""PyWorkflow, by what its users call: a test handler over the service in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import pyworkflow_sqlite
from measure import Execution, run_worker
from pyworkflow_sqlite import count

from pyworkflow import Workflow, WorkflowContext, step, workflow
from pyworkflow._engine.messages import End, Succeeded
from pyworkflow._protocol.executions import Committed, Invocation, Page
from pyworkflow._protocol.records import Operation, OperationType, Status, Update
from pyworkflow._runtime.clock import SystemClock
from pyworkflow._runtime.runner import Runner
from pyworkflow._values.exceptions import KnownErrors
from pyworkflow.aws.testing import MockDurableContext, create_test_handler
from pyworkflow.services.memory import ImmediateMemoryService


@step()
async def fetch(i: int) -> dict[str, object]:
    await asyncio.sleep(0)
    return {"id": i, "name": "item", "ok": True}


@workflow
async def gather(ctx: WorkflowContext, n: int) -> int:
    return len(await asyncio.gather(*(fetch(i) for i in range(n))))


def live(flow: Workflow[..., Any], n: int) -> Execution:
    return lambda: create_test_handler(flow, MockDurableContext())({"n": n})


def live_engine(flow: Workflow[..., Any], n: int) -> Execution:
    """Run ``n`` steps as a worker does: the runner over a service, without the mock's checks."""
    known_errors = KnownErrors.snapshot()

    def run() -> object:
        clock = SystemClock()
        service = ImmediateMemoryService(clock.now_ms)
        execution_id = service.start(flow.name, f'{{"n": {n}}}')

        async def main() -> End:
            invocation = service.claim(execution_id)
            return await Runner(invocation, service, flow, clock, known_errors).run_and_record()

        end = asyncio.run(main())
        assert isinstance(end, Succeeded), end
        return end.value

    return run


class Recorded:
    """A service that only holds a history: a replay of a finished execution asks for no more."""

    async def load(self, execution_id: str, token: str, marker: str) -> Page:
        raise AssertionError("the history is on the first page")

    async def commit(self, execution_id: str, token: str, updates: Sequence[Update]) -> Committed:
        raise AssertionError("a replay writes nothing")


def replay(flow: Workflow[..., Any], n: int) -> Execution:
    """Record an execution of ``n`` steps; return what replays it from its history, as Lambda does.

    Each call is a new invocation: a loop, an engine, the whole history, the result.
    """
    mock = MockDurableContext()
    create_test_handler(flow, mock)({"n": n})
    root = Operation(
        id="root",
        type=OperationType.EXECUTION,
        status=Status.STARTED,
        start_ms=mock.operations[0].start_ms,
        payload=f'{{"n": {n}}}',
    )
    invocation = Invocation(
        execution_id=mock.execution_id,
        execution_name="replay",
        workflow_name=flow.name,
        token="token",
        operations=(root, *mock.operations),
    )
    service, clock, known_errors = Recorded(), SystemClock(), KnownErrors.snapshot()

    async def main() -> End:
        return await Runner(invocation, service, flow, clock, known_errors).run()

    def run() -> object:
        end = asyncio.run(main())
        assert isinstance(end, Succeeded), end
        return end.value

    return run


if __name__ == "__main__":
    run_worker(
        {
            "live": partial(live, count),
            "replay": partial(replay, count),
            "live gather": partial(live_engine, gather),
            "replay gather": partial(replay, gather),
        },
        ["pyworkflow", "msgspec", "greenlet"],
        pyworkflow_sqlite.WORKS,
    )
