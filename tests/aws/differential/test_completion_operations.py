"""When a fan-out is over: each completion option on AWS's test runner, as in AWS's SDK.

Which branch ends first is settled by what the branches do. With one slot they run in turn; with two
the first branch may keep one of them, waiting for a callback that nobody completes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from aws_durable_execution_sdk_python.config import (
    CompletionConfig,
    Duration,
    MapConfig,
    ParallelBranch,
    ParallelConfig,
    StepConfig,
)
from aws_durable_execution_sdk_python.retries import RetryPresets

from pyworkflow import BatchError, SyncWorkflowContext, WorkflowContext, step, workflow
from tests.aws.differential.pairs import Around, check_pair

SECOND = Duration.from_seconds(1)


class SoldOutError(Exception):
    """An error of the application's own."""


class Case(NamedTuple):
    """A branch a letter: g(ood), b(ad), w(aits for ever); what is expected of them, R: it waits."""

    branches: str
    slots: int | None
    options: dict[str, Any]
    reason: str
    ended: str

    def __str__(self) -> str:
        options = " ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.branches} {self.slots or 'all'} at once {options or 'no option'}"


ALL, ENOUGH = "ALL_COMPLETED", "MIN_SUCCESSFUL_REACHED"
TOO_MANY = "FAILURE_TOLERANCE_EXCEEDED"

CASES = [
    # Without an option, the first failure ends it.
    Case("ggg", 1, {}, ALL, "SSS"),
    Case("gggg", None, {}, ALL, "SSSS"),
    Case("gbg", 1, {}, TOO_MANY, "SF"),
    Case("wbg", 2, {}, TOO_MANY, "RF"),
    # Enough have succeeded; or too few, when all have ended.
    Case("gbgg", 1, {"min_successful": 2}, ENOUGH, "SFS"),
    Case("wgbgg", 2, {"min_successful": 2}, ENOUGH, "RSFS"),
    Case("wwg", None, {"min_successful": 1}, ENOUGH, "RRS"),
    Case("bgb", 1, {"min_successful": 2}, ALL, "FSF"),
    Case("ggb", 1, {"min_successful": 3}, ALL, "SSF"),
    Case("ggg", 1, {"min_successful": 3}, ALL, "SSS"),
    # So many failures are tolerated.
    Case("gbgg", 1, {"tolerated_failure_count": 1}, ALL, "SFSS"),
    Case("bgbg", 1, {"tolerated_failure_count": 1}, TOO_MANY, "FSF"),
    Case("wbgbg", 2, {"tolerated_failure_count": 1}, TOO_MANY, "RFSF"),
    Case("gb", 1, {"tolerated_failure_count": 0}, TOO_MANY, "SF"),
    # So many of a hundred.
    Case("bgbg", 1, {"tolerated_failure_percentage": 50}, ALL, "FSFS"),
    Case("bgbbg", 1, {"tolerated_failure_percentage": 50}, TOO_MANY, "FSFF"),
    Case("wbbg", 2, {"tolerated_failure_percentage": 30}, TOO_MANY, "RFF"),
    Case("gb", 1, {"tolerated_failure_percentage": 0}, TOO_MANY, "SF"),
    Case("bbb", None, {"tolerated_failure_percentage": 100}, ALL, "FFF"),
    Case("bbg", 1, {"tolerated_failure_percentage": 100}, ALL, "FFS"),
    # Several together.
    Case("bggg", 1, {"min_successful": 2, "tolerated_failure_count": 1}, ENOUGH, "FSS"),
    Case("bbgg", 1, {"min_successful": 2, "tolerated_failure_count": 1}, TOO_MANY, "FF"),
    Case(
        "bgbg",
        1,
        {"tolerated_failure_count": 3, "tolerated_failure_percentage": 25},
        TOO_MANY,
        "FSF",
    ),
]


# -- AWS's SDK -------------------------------------------------------------------------------------


def their_branch(child: Any, kind: str) -> str:
    child.step(lambda _: kind, name="before")
    if kind == "w":
        child.create_callback(name="never").result()
    if kind == "b":

        def body(_: Any) -> None:
            raise SoldOutError("sold out")

        child.step(body, name="bad", config=StepConfig(RetryPresets.none()))
    child.wait(SECOND)
    return kind


def their_outcome(context: Any, batch: Any) -> Any:
    context.wait(SECOND)
    letters = {"SUCCEEDED": "S", "FAILED": "F", "STARTED": "R"}
    return [
        batch.completion_reason.value,
        "".join(letters[one.status.value] for one in batch.all),
        batch.get_results(),
        [error.message for error in batch.get_errors()],
    ]


def theirs(event: Any, context: Any) -> Any:
    config: dict[str, Any] = {
        "max_concurrency": event["slots"],
        "completion_config": CompletionConfig(**event["options"]),
    }
    if event["is_map"]:
        batch: Any = context.map(
            list(event["branches"]),
            lambda child, kind, index, items: their_branch(child, kind),
            name="all",
            config=MapConfig(**config),
        )
    else:
        branches: Any = [
            ParallelBranch(lambda child, kind=kind: their_branch(child, kind), f"{index} {kind}")
            for index, kind in enumerate(event["branches"])
        ]
        batch = context.parallel(branches, name="all", config=ParallelConfig(**config))
    return their_outcome(context, batch)


# -- PyWorkflow ------------------------------------------------------------------------------------


@step(inline=True)
def before(kind: str) -> str:
    return kind


@step(inline=True, retry=False)
def bad() -> None:
    raise SoldOutError("sold out")


def our_branch(ctx: SyncWorkflowContext, kind: str) -> str:
    before(kind)
    if kind == "w":
        ctx.callback("never").result()
    if kind == "b":
        bad()
    ctx.sleep(1)
    return kind


async def our_async_branch(ctx: WorkflowContext, kind: str) -> str:
    before(kind)
    if kind == "w":
        await ctx.callback("never").result()
    if kind == "b":
        bad()
    ctx.sleep(1)
    return kind


def our_outcome(batch: Any) -> Any:
    letters = {"SUCCEEDED": "S", "FAILED": "F", "STARTED": "R", "NOT_STARTED": ""}
    return [
        batch.completion_reason,
        "".join(letters[one.status] for one in batch.items),
        batch.results,
        [str(error) for error in batch.errors],
    ]


@workflow
async def ours(
    ctx: WorkflowContext, branches: str, slots: int | None, options: dict[str, Any], is_map: bool
) -> Any:
    limits: Any = {"max_concurrency": slots, "name": "all", **options}
    try:
        if is_map:
            batch = await ctx.map(lambda kind: our_async_branch(ctx, kind), branches, **limits)
        else:
            batch = await ctx.parallel(
                {
                    f"{index} {kind}": our_async_branch(ctx, kind)
                    for index, kind in enumerate(branches)
                },
                **limits,
            )
    except BatchError as error:
        batch = error.result
    ctx.sleep(1)
    return our_outcome(batch)


@workflow
def ours_blocking(
    ctx: SyncWorkflowContext,
    branches: str,
    slots: int | None,
    options: dict[str, Any],
    is_map: bool,
) -> Any:
    limits: Any = {"max_concurrency": slots, "name": "all", **options}
    try:
        if is_map:
            batch = ctx.map(lambda kind: our_branch(ctx, kind), branches, **limits)
        else:
            calls: Any = {
                f"{index} {kind}": lambda kind=kind: our_branch(ctx, kind)
                for index, kind in enumerate(branches)
            }
            batch = ctx.parallel(calls, **limits)
    except BatchError as error:
        batch = error.result
    ctx.sleep(1)
    return our_outcome(batch)


@pytest.mark.parametrize("is_map", [True, False], ids=["map", "parallel"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_fan_out_ends_for_the_same_reason(case: Case, is_map: bool) -> None:
    event = {
        "branches": case.branches,
        "slots": case.slots,
        "options": case.options,
        "is_map": is_map,
    }
    seen = check_pair(theirs, ours, ours_blocking, around=Around(event))
    assert seen.result[:2] == [case.reason, case.ended]
