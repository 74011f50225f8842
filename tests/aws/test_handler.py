from __future__ import annotations

import inspect

import pytest

from pyworkflow import UsageError, WorkflowContext, step, workflow
from pyworkflow._protocol.records import OperationType
from pyworkflow.aws import aws_workflow_handler
from pyworkflow.aws.testing import MockDurableContext, create_test_handler


@step
async def double(number: int) -> int:
    return 2 * number


@aws_workflow_handler
@workflow(name="inner")
async def inner(ctx: WorkflowContext, number: int) -> int:
    """Double it."""
    doubled: int = await double(number)
    return doubled


@aws_workflow_handler
@workflow
def blocking(number: int) -> int:
    return number + 1


def test_inside_an_execution_it_is_a_child_context() -> None:
    @workflow
    async def outer(ctx: WorkflowContext) -> int:
        doubled: int = await inner(ctx, 4)
        return doubled + int(blocking(number=1))

    mock = MockDurableContext()
    assert create_test_handler(outer, mock)({}) == 10
    names = [op.name for op in mock.operations if op.type is OperationType.CONTEXT]
    assert names == ["inner", "blocking"]


def test_outside_of_one_it_says_how_to_test() -> None:
    with pytest.raises(UsageError, match=r"'inner' was called outside of a workflow.*test_handler"):
        inner({"number": 4}, None)


def test_it_looks_like_the_workflow() -> None:
    assert vars(inner)["__name__"] == "inner"
    assert inner.__doc__ == "Double it."
    assert inner.workflow.name == "inner"
    assert repr(inner) == "<Lambda handler of <workflow 'inner'>>"
    assert list(inspect.signature(inner).parameters) == ["ctx", "number"]


def test_it_wants_a_workflow() -> None:
    def plain() -> None:
        """Has no decorator."""

    with pytest.raises(UsageError, match=r"takes a function with @workflow, not <function .*plain"):
        aws_workflow_handler(plain)
    with pytest.raises(UsageError, match="put @workflow between them"):
        aws_workflow_handler(double)
