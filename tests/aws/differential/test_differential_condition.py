"""A wait for a condition: pairs of functions on AWS's test runner."""

from __future__ import annotations

from typing import Any

import pytest
from aws_durable_execution_sdk_python.config import Duration, JitterStrategy
from aws_durable_execution_sdk_python.waits import (
    WaitForConditionConfig,
    WaitStrategyConfig,
    create_wait_strategy,
)

from pyworkflow import SyncWorkflowContext, WorkflowContext, workflow
from pyworkflow.errors import ConditionTimeoutError
from tests.aws.differential.pairs import NOTHING, Around, check_pair, of_ours, of_sdk

State = dict[str, Any]
LAST = 4


def check(state: State | None, mode: str) -> State:
    """Count the polls."""
    if mode == "raises":
        raise ValueError("no such job")
    polls = (state or {"polls": 0})["polls"] + 1
    return {"polls": polls, "seen": [*range(polls)]}


def theirs(event: Any, context: Any) -> Any:
    mode = event["mode"]
    strategy: Any = create_wait_strategy(
        WaitStrategyConfig(
            should_continue_polling=lambda state: state["polls"] < LAST,
            max_attempts=2 if mode == "exhausted" else 60,
            initial_delay=Duration(seconds=5),
            max_delay=Duration(seconds=12),
            backoff_rate=2,
            jitter_strategy=JitterStrategy.NONE,
        )
    )
    config = WaitForConditionConfig(wait_strategy=strategy, initial_state=None)
    found = context.wait_for_condition(lambda state, _: check(state, mode), config, name="job")
    return found["polls"]


def options(mode: str) -> Any:
    return {
        "until": lambda state: state["polls"] >= LAST,
        "every": 5,
        "backoff": 2,
        "max_every": 12,
        "max_attempts": 2 if mode == "exhausted" else 60,
        "name": "job",
    }


@workflow
async def ours(ctx: WorkflowContext, mode: str) -> Any:
    return (await ctx.wait_for_condition(lambda state: check(state, mode), **options(mode)))[
        "polls"
    ]


@workflow
def ours_blocking(ctx: SyncWorkflowContext, mode: str) -> Any:
    return ctx.wait_for_condition(lambda state: check(state, mode), **options(mode))["polls"]


def test_a_condition_that_is_met() -> None:
    seen = check_pair(theirs, ours, ours_blocking, around=Around({"mode": "met"}))
    assert seen.result == LAST
    delays = [
        one["StepSucceededDetails"]["RetryDetails"]["NextAttemptDelaySeconds"]
        for one in seen.events[0]
        if "RetryDetails" in one.get("StepSucceededDetails", {})
    ]
    assert delays == [5, 10, 12]


def test_a_check_that_raises() -> None:
    seen = check_pair(theirs, ours, ours_blocking, around=Around({"mode": "raises"}))
    assert seen.error == {"ErrorType": "ValueError", "ErrorMessage": "no such job"}


@pytest.mark.parametrize("flow", [ours, ours_blocking], ids=["async", "sync"])
def test_polls_that_run_out(flow: Any) -> None:
    """Each says in its own words, and in a class of its own, that the last poll saw too little."""
    around = Around({"mode": "exhausted"})
    expected, found = of_sdk(theirs, around), of_ours(flow, around)
    assert found.status == expected.status == "FAILED"
    assert found.timeline == expected.timeline
    assert found.events[0][:-1] == expected.events[0][:-1]
    for seen in (expected, found):
        del seen.operations[0]["StepDetails"]["Error"]
    assert found.operations == expected.operations


def test_a_limit_in_time_holds_where_time_is_skipped() -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> int:
        try:
            await ctx.wait_for_condition(lambda: False, every="30s", timeout="100s")
        except ConditionTimeoutError as error:
            return error.polls
        return 0

    assert of_ours(main, NOTHING).result == 5
