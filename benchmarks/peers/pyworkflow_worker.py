"""PyWorkflow, by what its users call: a test handler over the service in memory."""

from __future__ import annotations

from measure import Execution, run_worker

from pyworkflow import WorkflowContext, step, workflow
from pyworkflow.aws.testing import MockDurableContext, create_test_handler


@step()
async def add(i: int) -> int:
    return i + 1


@workflow
async def count(ctx: WorkflowContext, n: int) -> int:
    total = 0
    for i in range(n):
        total = await add(i)
    return total


def live(n: int) -> Execution:
    return lambda: create_test_handler(count, MockDurableContext())({"n": n})


def replay_pyworkflow(n: int) -> Execution:
    """Record an execution of ``n`` steps, and return what replays it from its history.

    What it returns has to load the history anew at each call and run no step.
    """
    mock = MockDurableContext()
    create_test_handler(count, mock)({"n": n})
    return mock.replay


if __name__ == "__main__":
    run_worker(
        {"live": live, "replay": replay_pyworkflow},
        ["pyworkflow", "msgspec", "greenlet"],
    )
