"""AWS's SDK, by its `durable_execution` handler over a service that keeps history in memory.

`MemoryService` is the least that the SDK's `DurableServiceClient` asks for: no network, no JSON, no
copy. So what is timed is the SDK's own work. Its checks are few, for each would be charged to the
SDK: a token is good once, and an update has to be a start or a success of a step.
"""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from typing import Any, cast

from aws_durable_execution_sdk_python import (
    DurableContext,
    StepContext,
    durable_execution,
    durable_step,
)
from aws_durable_execution_sdk_python.execution import (
    DurableExecutionInvocationInputWithClient,
    InitialExecutionState,
)
from aws_durable_execution_sdk_python.lambda_service import (
    CheckpointOutput,
    CheckpointUpdatedExecutionState,
    ExecutionDetails,
    Operation,
    OperationAction,
    OperationStatus,
    OperationType,
    OperationUpdate,
    StateOutput,
    StepDetails,
)
from aws_durable_execution_sdk_python.types import LambdaContext
from measure import Execution, run_worker

EXECUTION_ID = "execution"
ARN = (
    "arn:aws:lambda:us-east-1:123456789012:function:count:1/durable-execution/count/" + EXECUTION_ID
)
PAGE_SIZE = 1000


@durable_step
def add(_context: StepContext, i: int) -> int:
    return i + 1


@durable_execution
def count(event: dict[str, Any], context: DurableContext) -> int:
    total = 0
    for i in range(event["n"]):
        total = context.step(add(i))
    return total


class MemoryService:
    """The history of one execution, behind the SDK's `DurableServiceClient` protocol."""

    def __init__(self, n: int) -> None:
        self.commits = 0
        self.operations: dict[str, Operation] = {
            EXECUTION_ID: Operation(
                operation_id=EXECUTION_ID,
                operation_type=OperationType.EXECUTION,
                status=OperationStatus.STARTED,
                start_timestamp=datetime.datetime.now(datetime.UTC),
                execution_details=ExecutionDetails(input_payload=json.dumps({"n": n})),
            )
        }

    def checkpoint(
        self,
        durable_execution_arn: str,
        checkpoint_token: str,
        updates: list[OperationUpdate],
        client_token: str | None,
    ) -> CheckpointOutput:
        if checkpoint_token != str(self.commits):
            raise ValueError(f"expected the token {self.commits}, found {checkpoint_token}")
        self.commits += 1
        now = datetime.datetime.now(datetime.UTC)
        changed: dict[str, Operation] = {}
        for update in updates:
            operation = self._apply(update, now)
            self.operations[update.operation_id] = changed[update.operation_id] = operation
        state = CheckpointUpdatedExecutionState(operations=list(changed.values()))
        return CheckpointOutput(str(self.commits), state)

    def get_execution_state(
        self,
        durable_execution_arn: str,
        checkpoint_token: str,
        next_marker: str,
        max_items: int = PAGE_SIZE,
    ) -> StateOutput:
        begin = int(next_marker)
        return StateOutput(*self.read_page(begin, begin + max_items))

    def read_page(self, begin: int, end: int) -> tuple[list[Operation], str | None]:
        operations = list(self.operations.values())
        return operations[begin:end], str(end) if end < len(operations) else None

    def _apply(self, update: OperationUpdate, now: datetime.datetime) -> Operation:
        match update.operation_type, update.action:
            case OperationType.STEP, OperationAction.START:
                return Operation(
                    operation_id=update.operation_id,
                    operation_type=update.operation_type,
                    status=OperationStatus.STARTED,
                    parent_id=update.parent_id,
                    name=update.name,
                    start_timestamp=now,
                    sub_type=update.sub_type,
                    step_details=StepDetails(attempt=1),
                )
            case OperationType.STEP, OperationAction.SUCCEED:
                return replace(
                    self.operations[update.operation_id],
                    status=OperationStatus.SUCCEEDED,
                    end_timestamp=now,
                    step_details=StepDetails(attempt=1, result=update.payload),
                )
        raise ValueError(f"expected a step's start or success, found {update}")


def invoke(service: MemoryService) -> object:
    """Run one invocation over the history so far, loaded by pages, and return its result."""
    first_page, marker = service.read_page(0, PAGE_SIZE)
    event = DurableExecutionInvocationInputWithClient(
        durable_execution_arn=ARN,
        checkpoint_token=str(service.commits),
        initial_execution_state=InitialExecutionState(first_page, marker or ""),
        service_client=service,
    )
    # The handler never looks into Lambda's own context.
    output = count(event, cast("LambdaContext", None))
    if output["Status"] != "SUCCEEDED":
        raise SystemExit(f"expected SUCCEEDED, found {output}")
    return json.loads(output["Result"])


def live(n: int) -> Execution:
    return lambda: invoke(MemoryService(n))


def replay(n: int) -> Execution:
    service = MemoryService(n)
    invoke(service)
    commits = service.commits

    def replay_once() -> object:
        result = invoke(service)
        if service.commits != commits:
            raise SystemExit(f"expected no checkpoint on replay, found {service.commits - commits}")
        return result

    return replay_once


if __name__ == "__main__":
    run_worker(
        {"live": live, "replay": replay},
        ["aws-durable-execution-sdk-python", "boto3", "botocore"],
    )
