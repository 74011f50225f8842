"""AWS's own test runner runs a PyWorkflow handler as one of its SDK's."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from aws_durable_execution_sdk_python.lambda_service import InvocationStatus
from aws_durable_execution_sdk_python_testing.runner import DurableFunctionTestRunner

from pyworkflow import RetryableError, WorkflowContext, current_step, sleep, step, workflow
from pyworkflow.aws import aws_workflow_handler
from pyworkflow.aws._injected import InjectedService
from tests.aws.lambda_world import load_example

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyworkflow._protocol.executions import Committed
    from pyworkflow._protocol.records import Update
    from pyworkflow.aws.handler import WorkflowHandler

PATIENCE_SECONDS = 60


class Run:
    """A finished run on AWS's runner: its result, its history, and its invocations."""

    def __init__(
        self, handler: WorkflowHandler[..., Any], value: object, page_bytes: int | None = None
    ) -> None:
        self.answers: list[str] = []

        def watched(event: Any, context: Any) -> Any:
            answer = handler(event, context)
            self.answers.append(answer["Status"])
            return answer

        runner = DurableFunctionTestRunner(watched, max_invocation_page_bytes=page_bytes)
        with contextlib.closing(runner._scheduler._loop), runner:
            self.arn = runner.run_async(
                input=json.dumps(value), function_name="order", execution_name="run-1"
            )
            self.result = runner.wait_for_result(self.arn, timeout=PATIENCE_SECONDS)
            events = runner.get_execution_history(self.arn).events
        self.events = [" ".join(filter(None, (one.event_type, one.name))) for one in events]

    @property
    def value(self) -> Any:
        assert self.result.status is InvocationStatus.SUCCEEDED, self.result.error
        assert self.result.result is not None
        return json.loads(self.result.result)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What was checkpointed, a list for each call."""
    batches: list[list[str]] = []
    commit = InjectedService.commit

    async def watched(
        self: InjectedService, execution_id: str, token: str, updates: Sequence[Update]
    ) -> Committed:
        batches.append([f"{one.action} {one.name or one.type}" for one in updates])
        return await commit(self, execution_id, token, updates)

    monkeypatch.setattr(InjectedService, "commit", watched)
    return batches


def test_the_order(batches: list[list[str]]) -> None:
    run = Run(load_example("order_workflow").handler, {"order_id": "ORD-123"})
    assert run.value["status"] == "shipped"
    assert run.events == [
        "ExecutionStarted run-1",
        "StepStarted validate_order",
        "StepSucceeded validate_order",
        "WaitStarted",
        "InvocationCompleted",
        "WaitSucceeded",
        "StepStarted process_payment",
        "StepFailed process_payment",
        "InvocationCompleted",
        "StepStarted process_payment",
        "StepSucceeded process_payment",
        "StepStarted ship_order",
        "StepSucceeded ship_order",
        "InvocationCompleted",
        "ExecutionSucceeded run-1",
    ]
    assert batches == [
        ["START validate_order", "SUCCEED validate_order"],
        ["START WAIT"],
        ["START process_payment", "RETRY process_payment"],
        ["START process_payment", "SUCCEED process_payment"],
        ["START ship_order", "SUCCEED ship_order"],
    ]


def test_a_failure() -> None:
    run = Run(load_example("order_workflow").handler, {"order_id": "ORD-9"})
    assert run.result.status is InvocationStatus.FAILED
    error = run.result.error
    assert error is not None
    assert error.type == "pyworkflow.errors.FatalError"
    assert error.message == "there is no order ORD-9"
    assert run.answers == ["FAILED"]


def test_an_input_that_does_not_fit() -> None:
    run = Run(load_example("order_workflow").handler, {"order": 1})
    assert run.result.error is not None
    assert run.result.error.type == "pyworkflow.errors.InputError"


@step
async def square(number: int) -> int:
    return number * number


@aws_workflow_handler
@workflow
async def fan_out(count: int) -> int:
    return sum(await asyncio.gather(*(square(number) for number in range(count))))


def test_a_fan_out_of_250_steps_is_a_few_checkpoints(batches: list[list[str]]) -> None:
    run = Run(fan_out, {"count": 250})
    assert run.value == sum(number * number for number in range(250))
    assert run.answers == ["SUCCEEDED"]
    assert sum(map(len, batches)) == 500
    assert len(batches) <= 5


def test_each_thread_of_the_runner_has_its_own_loop() -> None:
    @step
    async def ask() -> str:
        if current_step().attempt == 1:
            raise RetryableError("busy", retry_after="10m")
        return current_step().execution_id

    @aws_workflow_handler
    @workflow
    async def main(ctx: WorkflowContext) -> dict[str, str]:
        answer, _ = await asyncio.gather(ask(), sleep("1d"))
        return {"id": answer, "own": ctx.execution_id}

    run = Run(main, {})
    assert run.value == {"id": run.arn, "own": run.arn}
    assert run.answers == ["PENDING", "PENDING", "SUCCEEDED"]


def test_a_history_of_several_pages() -> None:
    @step
    async def much(number: int) -> str:
        return str(number) * 10_000

    @aws_workflow_handler
    @workflow
    async def main(ctx: WorkflowContext, text: str) -> list[int]:
        sizes = []
        for number in range(6):
            sizes.append(len(await much(number)))
            ctx.sleep(60)
        return [*sizes, len(text)]

    run = Run(main, {"text": "x" * 100_000}, page_bytes=30_000)
    assert run.value == [10_000] * 6 + [100_000]
    assert run.answers == ["PENDING"] * 6 + ["SUCCEEDED"]


def test_a_result_too_large_for_an_answer(batches: list[list[str]]) -> None:
    @aws_workflow_handler
    @workflow
    async def main() -> str:
        return "€" * 1_200_000

    run = Run(main, {})
    assert run.value == "€" * 1_200_000
    assert batches == [["SUCCEED EXECUTION"]]
