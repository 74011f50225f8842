"""A deployed function of AWS's SDK whose process is killed, on AWS's emulator, over HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.aws.lambda_world import PATIENCE_SECONDS, build_package, deploy, lambda_function

FUNCTIONS = Path(__file__).parent / "functions" / "sdk_interrupted.py"
INTERRUPTED = "aws_durable_execution_sdk_python.exceptions.StepInterruptedError"


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the functions are unpacked."""
    return deploy(build_package(), [FUNCTIONS], tmp_path_factory.mktemp("lambda"))


@pytest.mark.parametrize(
    ("name", "result", "engines"),
    [
        ("step", [True, 1], "ours ours"),  # an attempt that was cut off is none that failed
        ("step_at_most_once", INTERRUPTED, "ours ours"),
        ("step_at_most_once", INTERRUPTED, "sdk ours"),
        ("step_at_most_once_per_attempt", 2, "ours sdk"),
        ("child", [True, 1], "ours ours"),
        ("child", [True, 1], "ours sdk"),
        ("code_of_a_child", [True, True], "ours ours"),
        ("code_of_a_child", [True, True], "ours sdk"),
        ("nested_branch", [1, 1, 1], "ours ours"),
        ("nested_branch", [1, 1, 1], "sdk ours"),
        ("flat_branch", [1, 1, 1], "ours sdk"),
    ],
)
def test_a_process_that_is_killed(task: Path, name: str, result: object, engines: str) -> None:
    with lambda_function(task, f"sdk_interrupted.{name}", ENGINES=engines) as function:
        arn = function.start(None)
        assert function.reached.get(timeout=PATIENCE_SECONDS) == "work"
        function.kill()
        function.passes.set()
        found = function.wait(arn)
        history = function.history(arn)
    assert found["Status"] == "SUCCEEDED", function.logs
    assert json.loads(found["Result"]) == result
    assert function.statuses[0] == "PENDING"
    assert function.statuses[-1] == "SUCCEEDED"
    assert function.statuses.count("Runtime.ExitError") == 1
    steps = [event for event in history if event.startswith("StepSucceeded")]
    assert len(set(steps)) == len(steps)
