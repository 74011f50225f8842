"""What users are told about workflows on Lambda, statement by statement, and that it holds."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from pyworkflow import FatalError, RetryableError, WorkflowContext, current_step, step, workflow
from pyworkflow.aws import aws_workflow_handler
from pyworkflow.aws.testing import MockDurableContext, create_test_handler
from tests.test_examples import ROOT, run_script

EXAMPLE = ROOT / "examples/aws/order_workflow.py"

# -- steps: "automatically checkpointed" ---------------------------------------------------------


@step()
async def my_step(data: str) -> dict[str, str]:
    return {"processed": data}


def test_a_step_is_checkpointed_under_its_name() -> None:
    @workflow
    async def one_step(ctx: WorkflowContext, data: str) -> dict[str, str]:
        return await my_step(data)

    mock_ctx = MockDurableContext()
    assert create_test_handler(one_step, mock_ctx)({"data": "x"}) == {"processed": "x"}
    assert mock_ctx.checkpoints == {"my_step": {"processed": "x"}}


class Ledger:
    """A workflow of two steps around a wait, and how often each body ran."""

    def __init__(self) -> None:
        self.bodies: list[str] = []

        @step()
        async def validate(order_id: str) -> dict[str, str]:
            self.bodies.append("validate")
            return {"order": order_id, "run": str(len(self.bodies))}

        @step()
        async def ship(order: dict[str, str]) -> str:
            self.bodies.append("ship")
            return f"shipped {order['order']}, validated in run {order['run']}"

        @aws_workflow_handler
        @workflow
        async def shop(ctx: WorkflowContext, order_id: str) -> str:
            order = await validate(order_id)
            ctx.sleep(300)
            return await ship(order)

        self.workflow = shop


def test_completed_steps_do_not_run_again_after_an_interruption() -> None:
    ledger, mock_ctx = Ledger(), MockDurableContext()
    mock_ctx.crash_after(1)  # right after the result of `validate` became durable
    create_test_handler(ledger.workflow, mock_ctx)({"order_id": "A"})
    assert mock_ctx.invocations == 3  # interrupted, suspended, done
    assert ledger.bodies == ["validate", "ship"]


@pytest.mark.parametrize("checkpoint", [1, 2, 3, 4, 5])
def test_results_are_replayed_from_checkpoints(checkpoint: int) -> None:
    ledger, mock_ctx = Ledger(), MockDurableContext()
    mock_ctx.crash_after(checkpoint)
    result = create_test_handler(ledger.workflow, mock_ctx)({"order_id": "A"})
    assert result == "shipped A, validated in run 1"
    assert mock_ctx.checkpoints["validate"] == {"order": "A", "run": "1"}


def test_execution_continues_from_the_last_checkpoint() -> None:
    ledger, mock_ctx = Ledger(), MockDurableContext()
    for checkpoint in (1, 2):
        mock_ctx.crash_after(checkpoint)
    create_test_handler(ledger.workflow, mock_ctx)({"order_id": "A"})
    kinds = [event.type for event in mock_ctx.history()]
    assert kinds == [
        "ExecutionStarted",
        "StepStarted",
        "StepSucceeded",
        "WaitStarted",
        "WaitSucceeded",
        "StepStarted",
        "StepSucceeded",
        "ExecutionSucceeded",
    ]


def test_data_passes_between_steps() -> None:
    ledger, mock_ctx = Ledger(), MockDurableContext()
    result = create_test_handler(ledger.workflow, mock_ctx)({"order_id": "B-7"})
    assert result.startswith("shipped B-7")


# -- sleep: "Lambda is suspended, not running" ---------------------------------------------------


@pytest.mark.parametrize(("duration", "seconds"), [(300, 300), ("5m", 300), ("1h", 3600)])
def test_sleep_suspends_and_resumes_by_itself(duration: float | str, seconds: int) -> None:
    @workflow
    async def sleeper(ctx: WorkflowContext) -> bool:
        before = ctx.now()
        ctx.sleep(duration)
        return (ctx.now() - before).total_seconds() == seconds

    mock_ctx = MockDurableContext()
    assert create_test_handler(sleeper, mock_ctx)({}) is True
    assert mock_ctx.waits == [seconds]
    assert mock_ctx.invocations == 2  # one ended when the wait began; another came after it


def test_awaiting_the_sleep_is_the_same() -> None:
    @workflow
    async def sleeper(ctx: WorkflowContext) -> None:
        await ctx.sleep(300)

    mock_ctx = MockDurableContext()
    create_test_handler(sleeper, mock_ctx)({})
    assert (mock_ctx.waits, mock_ctx.invocations) == ([300], 2)


# -- errors --------------------------------------------------------------------------------------


def failing(failure: Exception, times: int) -> Any:
    """Return a workflow whose step raises ``failure`` in its first ``times`` attempts."""

    @step()
    async def my_step() -> int:
        attempt = current_step().attempt
        if attempt <= times:
            raise failure
        return attempt

    @workflow
    async def shaky(ctx: WorkflowContext) -> int:
        return await my_step()

    return shaky


def test_a_fatal_error_is_not_retried() -> None:
    mock_ctx = MockDurableContext()
    handler = create_test_handler(failing(FatalError("Cannot proceed"), times=1), mock_ctx)
    with pytest.raises(FatalError) as caught:
        handler({})
    assert str(caught.value) == "Cannot proceed"
    assert [operation.attempt for operation in mock_ctx.operations] == [1]
    assert "my_step" not in mock_ctx.checkpoints


def test_a_retryable_error_is_retried() -> None:
    mock_ctx = MockDurableContext()
    handler = create_test_handler(failing(RetryableError("Try again"), times=2), mock_ctx)
    assert handler({}) == 3
    assert [operation.attempt for operation in mock_ctx.operations] == [3]
    assert mock_ctx.wait_count == 0  # the delays between attempts are no waits


def test_retries_end() -> None:
    mock_ctx = MockDurableContext()
    handler = create_test_handler(failing(RetryableError("Try again"), times=99), mock_ctx)
    with pytest.raises(RetryableError) as caught:
        handler({})
    assert str(caught.value) == "Try again"
    assert [operation.attempt for operation in mock_ctx.operations] == [3]


# -- testing -------------------------------------------------------------------------------------


@step()
async def validate(data: str) -> bool:
    return bool(data)


@aws_workflow_handler
@workflow
async def my_workflow(ctx: WorkflowContext, input: str) -> bool:  # noqa: A002 - the user's name
    valid = await validate(input)
    ctx.sleep("1h")
    return valid


def test_my_workflow() -> None:
    mock_ctx = MockDurableContext()
    handler = create_test_handler(my_workflow, mock_ctx)

    result = handler({"input": "data"})

    assert result is True
    assert "validate" in mock_ctx.checkpoints
    assert mock_ctx.wait_count > 0


def test_the_handler_takes_a_workflow_without_the_lambda_decorator() -> None:
    assert create_test_handler(my_workflow.workflow)({"input": "data"}) is True


# -- the example ---------------------------------------------------------------------------------


def test_the_example_prints_what_happened(tmp_path: Path) -> None:
    printed = run_script(EXAMPLE, tmp_path)
    sections: dict[str, list[str]] = {}
    for line in printed.splitlines():
        if line.startswith(" "):
            sections[next(reversed(sections))].append(" ".join(line.split()))
        else:
            sections[line] = []
    assert sections["Result"][:2] == ["order_id ORD-123", "status shipped"]
    assert [line.split()[0] for line in sections["Checkpoints"]] == [
        "validate_order",
        "process_payment",
        "ship_order",
    ]
    assert sections["Attempts"] == ["validate_order 1", "process_payment 2", "ship_order 1"]
    assert sections["Waits"] == ["5m"]
    assert "Invocations: 3" in sections


def test_the_example_has_a_handler() -> None:
    spec = spec_from_file_location("order_workflow", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = module_from_spec(spec)
    spec.loader.exec_module(example)
    assert example.handler is example.order_workflow
    assert create_test_handler(example.handler)({"order_id": "ORD-123"})["status"] == "shipped"
    with pytest.raises(FatalError, match="no order ORD-9"):
        create_test_handler(example.handler)({"order_id": "ORD-9"})
