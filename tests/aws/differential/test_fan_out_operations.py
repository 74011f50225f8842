"""Fan-outs on AWS's own test runner: written for AWS's SDK and for PyWorkflow, the same operations.

Compared are id, parent, type, subtype, name and status of each operation.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from aws_durable_execution_sdk_python import durable_execution
from aws_durable_execution_sdk_python.config import (
    ChildConfig,
    CompletionConfig,
    Duration,
    MapConfig,
    ParallelBranch,
    ParallelConfig,
)
from aws_durable_execution_sdk_python_testing.runner import DurableFunctionTestRunner

from pyworkflow import FatalError, WorkflowContext, sleep, step, workflow
from pyworkflow.aws import aws_workflow_handler

if TYPE_CHECKING:
    from collections.abc import Callable

Row = tuple[Any, ...]

PATIENCE_SECONDS = 60


def rows_of(handler: Callable[..., Any]) -> tuple[Any, set[Row]]:
    """Run a handler to its end; return its result and a row for each operation."""
    runner = DurableFunctionTestRunner(handler)
    with runner, contextlib.closing(runner._scheduler._loop):
        arn = runner.run_async(input="{}", function_name="fan-out", execution_name="run-1")
        result = runner.wait_for_result(arn, timeout=PATIENCE_SECONDS)
        rows: set[Row] = set()
        _collect(result.operations, rows)
        runner.close()  # type: ignore[no-untyped-call]
    assert result.result is not None, result.error
    return json.loads(result.result), rows


def _collect(operations: list[Any], rows: set[Row]) -> None:
    for one in operations:
        # Where ends were learned out of order, ours has a record of that, which no code asks for.
        if one.operation_type.value != "EXECUTION" and one.name != "pyworkflow delivery order":
            kind = (one.operation_type.value, one.sub_type)
            name = one.name or None
            rows.add((one.operation_id, one.parent_id, *kind, name, one.status.value))
        _collect(getattr(one, "child_operations", None) or [], rows)


@step(retry=False)
async def work(n: int) -> int:
    if n < 0:
        raise FatalError("no")
    return n


# -- map -------------------------------------------------------------------------------------------


@durable_execution
def theirs_map(event: Any, context: Any) -> Any:
    def one(child: Any, item: int, index: int, items: list[int]) -> int:
        child.wait(Duration.from_seconds(1))
        return int(child.step(lambda _: item, name="work"))

    config: MapConfig[int] = MapConfig(max_concurrency=2)
    batch = context.map([1, 2, 3], one, name="items", config=config)
    return batch.get_results()


@aws_workflow_handler
@workflow
async def ours_map(ctx: WorkflowContext) -> list[int]:
    async def one(item: int) -> int:
        await sleep(1)
        return await work(item)

    return (await ctx.map(one, [1, 2, 3], name="items", max_concurrency=2)).results


# -- parallel, with a failure that is tolerated, and names -----------------------------------------


@durable_execution
def theirs_parallel(event: Any, context: Any) -> Any:
    def fails(child: Any) -> int:
        raise ValueError("no")

    branches: list[ParallelBranch[int]] = [
        ParallelBranch(lambda child: child.step(lambda _: 1, name="work"), "left"),
        ParallelBranch(fails, "right"),
    ]
    config = ParallelConfig(completion_config=CompletionConfig(tolerated_failure_count=1))
    batch = context.parallel(branches, name="both", config=config)
    return [batch.success_count, batch.failure_count, batch.completion_reason.value]


@aws_workflow_handler
@workflow
async def ours_parallel(ctx: WorkflowContext) -> list[Any]:
    async def fails() -> int:
        raise ValueError("no")

    batch = await ctx.parallel(
        {"left": work(1), "right": fails}, name="both", tolerated_failure_count=1
    )
    return [batch.success_count, batch.failure_count, batch.completion_reason]


# -- enough have succeeded, one still waits --------------------------------------------------------


@durable_execution
def theirs_first(event: Any, context: Any) -> Any:
    def waits(child: Any) -> Any:
        return child.create_callback(name="never").result()

    def quick(child: Any) -> int:
        child.wait(Duration.from_seconds(1))
        return int(child.step(lambda _: 1, name="work"))

    config = ParallelConfig(completion_config=CompletionConfig(min_successful=1))
    batch = context.parallel([waits, quick], name="race", config=config)
    return [batch.get_results(), batch.completion_reason.value]


@aws_workflow_handler
@workflow
async def ours_first(ctx: WorkflowContext) -> list[Any]:
    async def waits() -> Any:
        return await ctx.callback("never").result()

    async def quick() -> int:
        await sleep(1)
        return await work(1)

    batch = await ctx.parallel([waits, quick], name="race", min_successful=1)
    return [batch.results, batch.completion_reason]


# -- a child whose result is too large to be stored ------------------------------------------------


@durable_execution
def theirs_large(event: Any, context: Any) -> Any:
    def large(child: Any) -> str:
        child.step(lambda _: 1, name="work")
        return "x" * 300_000

    text = context.run_in_child_context(large, name="large", config=ChildConfig())
    context.wait(Duration.from_seconds(1))
    return len(text)


@aws_workflow_handler
@workflow
async def ours_large(ctx: WorkflowContext) -> int:
    async def large() -> str:
        await work(1)
        return "x" * 300_000

    text = await ctx.child(large)
    await sleep(1)
    return len(text)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (theirs_map, ours_map),
        (theirs_parallel, ours_parallel),
        (theirs_first, ours_first),
        (theirs_large, ours_large),
    ],
    ids=["map", "parallel", "first", "large"],
)
def test_the_operations_are_the_same(theirs: Any, ours: Any) -> None:
    assert rows_of(ours) == rows_of(theirs)
