"""A wait for a condition, written for AWS's SDK and for PyWorkflow, on AWS's own test runner."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from aws_durable_execution_sdk_python import DurableContext, durable_execution
from aws_durable_execution_sdk_python.config import Duration, JitterStrategy
from aws_durable_execution_sdk_python.serdes import ExtendedTypeSerDes
from aws_durable_execution_sdk_python.waits import (
    WaitForConditionConfig,
    WaitStrategyConfig,
    create_wait_strategy,
)
from aws_durable_execution_sdk_python_testing.runner import DurableFunctionTestRunner

from pyworkflow import WorkflowContext, workflow
from pyworkflow.aws import aws_workflow_handler
from pyworkflow.errors import ConditionTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

State = dict[str, Any]
LAST = 4
PATIENCE_SECONDS = 60


class Seen(NamedTuple):
    """What AWS's runner recorded, without times and tokens."""

    status: str
    result: Any
    operations: list[tuple[Any, ...]]
    events: list[tuple[Any, ...]]


def seen(handler: Callable[[Any, Any], Any], decode: Callable[[str], Any], mode: str) -> Seen:
    """Run ``handler`` to its end."""
    runner = DurableFunctionTestRunner(handler)
    with contextlib.closing(runner._scheduler._loop), runner:
        arn = runner.run_async(
            input=json.dumps({"mode": mode}), function_name="f", execution_name="run-1"
        )
        result = runner.wait_for_result(arn, timeout=PATIENCE_SECONDS)
        history = runner.get_execution_history(arn).events
        recorded = runner._store.load(arn).operations
    operations = []
    for one in (each for each in recorded if each.step_details is not None):
        details: Any = one.step_details
        operations.append(
            (
                one.operation_type.value,
                one.sub_type,
                one.name,
                one.operation_id,
                one.parent_id,
                one.status.value,
                details.attempt,
                None if details.result is None else decode(details.result),
                None if details.error is None else details.error.message,
            )
        )
    events = [
        (one.event_type, one.name, one.sub_type, one.event_id, *retry_of(one, decode))
        for one in history
        if one.event_type.startswith("Step")
    ]
    end = None if result.result is None else json.loads(result.result)
    return Seen(result.status.value, end, operations, events)


def retry_of(event: Any, decode: Callable[[str], Any]) -> tuple[Any, ...]:
    """Return what a poll left: its state, its number, and the delay after it."""
    details = event.step_succeeded_details
    if details is None:
        return ()
    retry = details.retry_details
    payload = details.result.payload
    return (
        None if payload is None else decode(payload),
        retry and (retry.current_attempt, retry.next_attempt_delay_seconds),
    )


def check(state: State | None) -> State:
    """Count the polls."""
    polls = (state or {"polls": 0})["polls"] + 1
    return {"polls": polls, "seen": [*range(polls)]}


def theirs(event: Any, context: DurableContext) -> Any:
    """Wait as AWS's SDK does."""
    mode = event["mode"]

    def look(state: State | None, _: Any) -> State:
        if mode == "raises":
            raise ValueError("no such job")
        return check(state)

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
    return context.wait_for_condition(look, config, name="job")["polls"]


@aws_workflow_handler
@workflow
async def ours(ctx: WorkflowContext, mode: str) -> int:
    def look(state: State | None) -> State:
        if mode == "raises":
            raise ValueError("no such job")
        return check(state)

    job = await ctx.wait_for_condition(
        look,
        until=lambda state: state["polls"] >= LAST,
        every=5,
        backoff=2,
        max_every=12,
        max_attempts=2 if mode == "exhausted" else 60,
        name="job",
    )
    return int(job["polls"])


def pair(mode: str) -> tuple[Seen, Seen]:
    sdk = durable_execution(theirs)
    decode: Any = ExtendedTypeSerDes  # its constructor has no types
    return seen(sdk, decode().deserialize, mode), seen(ours, json.loads, mode)


def test_a_condition_that_is_met() -> None:
    their, our = pair("met")
    assert our == their
    assert our.result == LAST
    assert [event[-1] for event in our.events if len(event) > 4] == [(1, 5), (2, 10), (3, 12), None]


@pytest.mark.parametrize("mode", ["raises", "exhausted"])
def test_a_condition_that_fails(mode: str) -> None:
    their, our = pair(mode)
    assert our.status == their.status == "FAILED"
    assert our.events == their.events
    message = -1  # each says it in its own words when polls run out
    assert [one[:message] for one in our.operations] == [one[:message] for one in their.operations]
    if mode == "raises":
        assert our.operations == their.operations


def test_a_limit_in_time_holds_where_time_is_skipped() -> None:
    @aws_workflow_handler
    @workflow
    async def main(ctx: WorkflowContext, mode: str) -> int:
        try:
            await ctx.wait_for_condition(lambda: False, every="30s", timeout="100s")
        except ConditionTimeoutError as error:
            return error.polls
        return 0

    assert seen(main, json.loads, "").result == 5
