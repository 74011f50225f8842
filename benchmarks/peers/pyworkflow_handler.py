"""A Lambda function with PyWorkflow, as its user writes it: a file with nothing else imported."""

from pyworkflow import WorkflowContext, step, workflow
from pyworkflow.aws import aws_workflow_handler


@step()
async def add(i: int) -> int:
    return i + 1


@aws_workflow_handler
@workflow
async def handler(ctx: WorkflowContext, n: int) -> int:
    total = 0
    for i in range(n):
        total = await add(i)
    return total
