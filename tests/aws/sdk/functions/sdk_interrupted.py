"""Functions of AWS's SDK whose process is killed in the midst of them, under one engine or both.

`ENGINES` names the engine that begins an execution and the one that goes on with it.
"""

from __future__ import annotations

import os
import urllib.request
from typing import Any

from aws_durable_execution_sdk_python import StepError
from aws_durable_execution_sdk_python.config import (
    CompletionConfig,
    Duration,
    MapConfig,
    NestingType,
    StepConfig,
    StepSemantics,
)
from aws_durable_execution_sdk_python.execution import durable_execution as theirs
from aws_durable_execution_sdk_python.retries import RetryPresets

from pyworkflow.aws.sdk import durable_execution as ours


def reach(place: str) -> None:
    with urllib.request.urlopen(f"{os.environ['BRIDGE']}/reached/{place}", timeout=60) as answer:
        answer.read()


def under_both(function: Any) -> Any:
    by_name: dict[str, Any] = {"sdk": theirs, "ours": ours}
    first, then = (by_name[name](function) for name in os.environ["ENGINES"].split())

    def handler(event: Any, context: Any) -> Any:
        is_new = len(event["InitialExecutionState"]["Operations"]) == 1
        return (first if is_new else then)(event, context)

    return handler


def work(step: Any) -> int:
    reach("work")
    return int(step.attempt)


@under_both
def step(event: Any, context: Any) -> Any:
    first = context.step(lambda _: os.getpid(), name="before")
    context.wait(Duration.from_seconds(1))
    return [first != os.getpid(), context.step(work, name="work")]


@under_both
def step_at_most_once(event: Any, context: Any) -> Any:
    context.step(lambda _: 1, name="before")
    context.wait(Duration.from_seconds(1))
    semantics = StepSemantics.AT_MOST_ONCE_PER_RETRY
    config = StepConfig(RetryPresets.none(), semantics)
    try:
        return context.step(work, name="work", config=config)
    except StepError as error:
        return error.error_type


@under_both
def step_at_most_once_per_attempt(event: Any, context: Any) -> Any:
    context.step(lambda _: 1, name="before")
    context.wait(Duration.from_seconds(1))
    semantics = StepSemantics.AT_MOST_ONCE_PER_RETRY
    config = StepConfig(RetryPresets.fixed(Duration.from_seconds(1)), semantics)
    return context.step(work, name="work", config=config)


@under_both
def child(event: Any, context: Any) -> Any:
    def body(inner: Any) -> Any:
        first = inner.step(lambda _: os.getpid(), name="before")
        inner.wait(Duration.from_seconds(1))
        attempt = inner.step(work, name="work")
        return [first != os.getpid(), attempt]

    return context.run_in_child_context(body, name="child")


@under_both
def code_of_a_child(event: Any, context: Any) -> Any:
    def body(inner: Any) -> Any:
        first = inner.step(lambda _: os.getpid(), name="before")
        inner.wait(Duration.from_seconds(1))
        second = inner.step(lambda _: os.getpid(), name="just before")
        reach("work")
        return [first != os.getpid(), second != os.getpid()]

    return context.run_in_child_context(body, name="child")


def _branches(nesting: NestingType) -> Any:
    def branches(event: Any, context: Any) -> Any:
        def branch(inner: Any, item: int, index: int, items: Any) -> Any:
            inner.step(lambda _: item, name=f"before {item}")
            inner.wait(Duration.from_seconds(1))
            return inner.step(work if item == 2 else lambda _: 1, name=f"work {item}")

        config: Any = MapConfig(
            max_concurrency=2,
            nesting_type=nesting,
            completion_config=CompletionConfig(tolerated_failure_percentage=100),
        )
        return context.map([1, 2, 3], branch, name="map", config=config).get_results()

    return under_both(branches)


nested_branch = _branches(NestingType.NESTED)
flat_branch = _branches(NestingType.FLAT)
