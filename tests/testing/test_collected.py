"""What an invocation held is collected once it is over, also after a crash in its midst."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from pyworkflow import SyncWorkflowContext, Workflow, WorkflowContext, step, workflow
from pyworkflow._engine.execution import Execution
from pyworkflow.aws.testing import MockDurableContext, create_test_handler


@step
async def counted(number: int) -> int:
    return number


@workflow
async def waits_for_others(ctx: WorkflowContext) -> int:
    batch = await ctx.map(counted, [1, 2, 3])
    ctx.sleep(60)
    return sum(batch.results)


@workflow
def waits_blocking(ctx: SyncWorkflowContext) -> int:
    return sum(ctx.map(lambda number: number + 1, [1, 2, 3]).results)


def executions() -> int:
    gc.collect()
    return sum(type(each) is Execution for each in gc.get_objects())


@pytest.mark.parametrize("flow", [waits_for_others, waits_blocking])
@pytest.mark.parametrize("checkpoint", [1, 2, 3])
def test_what_a_crashed_invocation_held_is_collected(
    flow: Workflow[..., Any], checkpoint: int
) -> None:
    before = executions()
    for _ in range(3):
        mock_ctx = MockDurableContext()
        mock_ctx.crash_after(checkpoint)
        create_test_handler(flow, mock_ctx)({})
        del mock_ctx
    assert executions() <= before
