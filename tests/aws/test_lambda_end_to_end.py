"""A deployed function: the package that users build, AWS's runtime client, AWS's emulator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.aws.lambda_world import PATIENCE_SECONDS, ROOT, build_package, deploy, lambda_function

EXAMPLE = ROOT / "examples/aws/order_workflow.py"
FUNCTIONS = sorted((Path(__file__).parent / "functions").glob("*.py"))


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the functions are unpacked."""
    return deploy(build_package(), [EXAMPLE, *FUNCTIONS], tmp_path_factory.mktemp("lambda"))


def test_the_order(task: Path) -> None:
    environ = {"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "INFO"}
    with lambda_function(task, "order_workflow.handler", **environ) as function:
        arn = function.start({"order_id": "ORD-123"})
        found = function.wait(arn)
        history = function.history(arn)
    assert found["Status"] == "SUCCEEDED", function.logs
    assert json.loads(found["Result"])["tracking"] == "TRACK-ORD-123"
    assert function.statuses == ["PENDING", "PENDING", "SUCCEEDED"]
    assert function.checkpoints == [
        ["START validate_order", "SUCCEED validate_order"],
        ["START WAIT"],
        ["START process_payment", "RETRY process_payment"],
        ["START process_payment", "SUCCEED process_payment"],
        ["START ship_order", "SUCCEED ship_order"],
    ]
    assert len(function.calls) == 5
    assert [event for event in history if not event.startswith(("Execution", "Invocation"))] == [
        "StepStarted validate_order",
        "StepSucceeded validate_order",
        "WaitStarted",
        "WaitSucceeded",
        "StepStarted process_payment",
        "StepFailed process_payment",
        "StepStarted process_payment",
        "StepSucceeded process_payment",
        "StepStarted ship_order",
        "StepSucceeded ship_order",
    ]
    assert len({invocation.process for invocation in function.invocations}) == 1  # it stays warm


def test_a_failure_and_its_log(task: Path) -> None:
    environ = {"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "INFO"}
    with lambda_function(task, "order_workflow.handler", **environ) as function:
        arn = function.start({"order_id": "ORD-9"})
        found = function.wait(arn)
    assert found["Status"] == "FAILED"
    assert found["Error"]["ErrorType"] == "pyworkflow.errors.FatalError"
    (line,) = [json.loads(line) for line in function.logs.splitlines() if "FatalError" in line]
    assert line["logger"] == "pyworkflow.aws"
    assert line["execution_id"] == arn
    assert line["requestId"] == function.invocations[0].id


def test_an_event_of_a_function_that_is_not_durable(task: Path) -> None:
    with lambda_function(task, "order_workflow.handler") as function:
        invocation = function.invoke(b'{"order_id": "ORD-123"}')
    assert invocation.is_error
    error = json.loads(invocation.answer or b"")
    assert error["errorType"] == "UsageError"
    assert "--durable-config" in error["errorMessage"]


def test_a_process_that_is_killed_in_the_midst_of_a_step(task: Path) -> None:
    with lambda_function(task, "interrupted.packing") as function:
        arn = function.start({"item": "A"})
        assert function.reached.get(timeout=PATIENCE_SECONDS) == "pack"
        function.kill()
        function.passes.set()
        found = function.wait(arn)
        history = function.history(arn)
    assert found["Status"] == "SUCCEEDED", function.logs
    assert function.statuses == ["Runtime.ExitError", "SUCCEEDED"]
    result = json.loads(found["Result"])
    assert result["first"] != result["last"]  # recorded in one process, replayed in another
    assert Path(result["library"]).is_relative_to(task)
    assert result["attempt"] == 1  # an attempt that was cut off is no attempt that failed
    assert history.count("StepSucceeded reserve") == 1
    assert history.count("StepSucceeded pack") == 1


def test_an_at_most_once_step_that_was_cut_off_is_not_run_again(task: Path) -> None:
    with lambda_function(task, "interrupted.charging") as function:
        arn = function.start({"item": "A"})
        assert function.reached.get(timeout=PATIENCE_SECONDS) == "charge"
        function.kill()
        function.passes.set()
        found = function.wait(arn)
    assert json.loads(found["Result"]) == "to be looked into"
    assert function.checkpoints == [["START charge"], ["FAIL charge"]]
    assert function.reached.empty()


def test_250_steps_at_once_are_a_few_requests(task: Path) -> None:
    with lambda_function(task, "fan_out.squares", AWS_LAMBDA_LOG_LEVEL="INFO") as function:
        found = function.run({"count": 250})
    assert found["Status"] == "SUCCEEDED", function.logs
    assert json.loads(found["Result"]) == sum(number * number for number in range(250))
    assert function.statuses == ["PENDING", "SUCCEEDED"]
    assert {call.name for call in function.calls} == {"checkpoint"}
    assert sum(map(len, function.checkpoints)) == 501
    assert len(function.calls) <= 6
    lines = [line for line in function.logs.splitlines() if line]
    assert [line.rpartition("\t")[2] for line in lines] == [
        'input: {"count": 250}',
        f"result: {found['Result']}",
    ]
    assert [line.split("\t")[2] for line in lines] == [one.id for one in function.invocations]


def test_a_module_that_cannot_be_imported_is_told(task: Path) -> None:
    with lambda_function(task, "order_workflow.hander") as function:
        invocation = function.invoke(b"{}")
    assert b"Handler 'hander' missing" in (invocation.answer or b"")
