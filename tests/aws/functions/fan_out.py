"""A function whose workflow runs many steps at once."""

from __future__ import annotations

import asyncio

from pyworkflow import WorkflowContext, step, workflow
from pyworkflow.aws import aws_workflow_handler


@step
async def square(number: int) -> int:
    return number * number


@aws_workflow_handler(log_payloads=True)
@workflow
async def squares(ctx: WorkflowContext, count: int) -> int:
    found = await asyncio.gather(*(square(number) for number in range(count)))
    ctx.sleep("30d")
    return sum(found)
