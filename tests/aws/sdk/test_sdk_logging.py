"""What a function of AWS's SDK logs, and when it replays: as under the SDK's own engine."""

from __future__ import annotations

from typing import Any

import pytest
from aws_durable_execution_sdk_python import StepError
from aws_durable_execution_sdk_python.config import (
    ChildConfig,
    Duration,
    MapConfig,
    NestingType,
    StepConfig,
)
from aws_durable_execution_sdk_python.retries import RetryPresets
from aws_durable_execution_sdk_python.waits import WaitForConditionConfig, WaitForConditionDecision

from tests.aws.sdk.sdk_runs import Case, run

SECOND = Duration.from_seconds(1)
ARN = "executionArn"


class Lines:
    """A logger that keeps what it is given."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, Any]] = []

    def info(self, message: object, *args: object, extra: Any = None) -> None:
        told = {key: value for key, value in extra.items() if key != ARN}
        assert ARN in extra
        self.lines.append((str(message) % args, told))

    debug = warning = error = exception = info


def steps(context: Any) -> None:
    context.logger.info("begin %s", "here")
    context.step(lambda step: step.logger.info("in a step"), name="one")
    context.logger.info("after one", extra={"mine": 1})
    context.wait(SECOND)
    context.logger.info("after the wait")

    def flaky(step: Any) -> None:
        step.logger.info("attempt")
        raise ValueError

    try:
        config = StepConfig(retry_strategy=RetryPresets.fixed(SECOND))
        context.step(flaky, name="flaky", config=config)
    except StepError:
        context.logger.warning("it failed")


def children(context: Any) -> None:
    def child(inner: Any) -> None:
        inner.logger.info("in a child")
        inner.step(lambda _: 1)
        inner.logger.info("before the wait")
        inner.wait(SECOND)
        inner.logger.info("after the wait")

    context.run_in_child_context(child, name="child")
    context.logger.info("between")
    context.run_in_child_context(child, name="virtual", config=ChildConfig(is_virtual=True))
    context.logger.info("end")


def _branches(nesting: NestingType, at_once: int | None) -> Any:
    def branches(context: Any) -> None:
        def branch(inner: Any, item: int, index: int, items: Any) -> None:
            inner.logger.info("begin %d", item)
            inner.step(lambda step: step.logger.info("step of %d", item))
            inner.logger.info("before the wait %d", item)
            inner.wait(SECOND)
            inner.logger.info("after the wait %d", item)

        config: Any = MapConfig(nesting_type=nesting, max_concurrency=at_once)
        context.logger.info("begin")
        context.map([1, 2, 3], branch, name="map", config=config)
        context.logger.info("end")
        context.wait(SECOND)
        context.logger.info("after the wait")

    return branches


def polls(context: Any) -> None:
    def strategy(state: int, attempt: int) -> WaitForConditionDecision:
        if attempt < 3:
            return WaitForConditionDecision.continue_waiting(SECOND)
        return WaitForConditionDecision.stop_polling()

    def check(state: int, poll: Any) -> int:
        poll.logger.info("poll %d", state)
        return state + 1

    context.wait_for_condition(check, WaitForConditionConfig(strategy, 0), name="polls")
    context.logger.info("end")


PROGRAMS = {
    "steps": steps,
    "children": children,
    "nested": _branches(NestingType.NESTED, 1),
    "flat": _branches(NestingType.FLAT, 1),
    "polls": polls,
}


def lines_of(program: Any, engine: str) -> list[str]:
    logger = Lines()

    def function(event: Any, context: Any) -> Any:
        context.set_logger(logger)
        program(context)

    found = run(Case(function), engine)
    assert found.status == "SUCCEEDED", found.error
    return list(map(repr, logger.lines))


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_line_is_logged_as_often_and_with_the_same_fields(name: str) -> None:
    theirs = lines_of(PROGRAMS[name], "sdk")
    assert lines_of(PROGRAMS[name], "ours") == theirs
    assert theirs


@pytest.mark.parametrize("nesting", NestingType)
def test_branches_log_each_line_once(nesting: NestingType) -> None:
    """The SDK's own threads log some lines twice, now and then."""
    program = _branches(nesting, None)
    theirs, ours = lines_of(program, "sdk"), lines_of(program, "ours")
    assert set(ours) == set(theirs)
    assert len(ours) == len(set(ours))
