"""A Lambda function with AWS's SDK, as its user writes it; the SDK makes its client itself."""

from typing import Any

from aws_durable_execution_sdk_python import (
    DurableContext,
    StepContext,
    durable_execution,
    durable_step,
)


@durable_step
def add(_context: StepContext, i: int) -> int:
    return i + 1


@durable_execution
def handler(event: dict[str, Any], context: DurableContext) -> int:
    total = 0
    for i in range(event["n"]):
        total = context.step(add(i))
    return total
