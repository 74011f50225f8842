"""Recorded times are those of the bodies: each takes a known part of virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow import Retry, WorkflowContext, step, workflow
from pyworkflow.aws.testing import MockDurableContext, create_test_handler

if TYPE_CHECKING:
    from pyworkflow._api.workflow import Workflow
    from pyworkflow._protocol.records import Operation


@step(retry=Retry(max_attempts=3, delay="2s", backoff=1, jitter=False))
async def nap() -> str:
    return "rested"


@step
def blocking_nap() -> str:
    return "rested"


@step(at_most_once=True)
async def careful_nap() -> str:
    return "rested"


def took(operation: Operation) -> int:
    assert operation.end_ms is not None
    return operation.end_ms - operation.start_ms


@workflow
async def naps() -> str:
    return await nap()


@workflow
def blocking_naps() -> str:
    return blocking_nap()


@workflow
async def careful_naps() -> str:
    return await careful_nap()


@pytest.mark.parametrize("seconds", [0.02, 0.08, 0.3, 1.0])
@pytest.mark.parametrize("code", [naps, blocking_naps, careful_naps], ids=repr)
def test_a_step_takes_as_long_as_its_body(code: Workflow[..., Any], seconds: float) -> None:
    mock = MockDurableContext()
    mock.mock_step(code.name[:-1], takes=seconds)
    create_test_handler(code, mock)({})
    (operation,) = mock.operations
    assert took(operation) == seconds * 1000
    _, started, ended = mock.history()[:3]
    assert ended.time_ms - started.time_ms == seconds * 1000


def test_each_attempt_has_the_times_of_its_body() -> None:
    mock = MockDurableContext()
    mock.mock_step("nap", takes=0.3)
    mock.fail_step("nap", 1)
    create_test_handler(naps, mock)({})
    root, first, failed, second, ended, _ = mock.history()
    begin_ms = root.time_ms
    assert first.time_ms == begin_ms
    assert failed.time_ms == begin_ms + 300
    assert second.time_ms >= failed.time_ms + 2000
    assert ended.time_ms == second.time_ms + 300
    assert [each.current_attempt for each in (first, failed, second, ended)] == [1, 1, 2, 2]
    (operation,) = mock.operations
    assert (operation.start_ms, operation.attempt_start_ms) == (begin_ms, second.time_ms)


def test_a_step_in_a_child_does_not_begin_before_the_child() -> None:
    @workflow
    async def inner() -> str:
        return await nap()

    @workflow
    async def outer() -> tuple[str, str]:
        return await asyncio.gather(inner(), inner())

    mock = MockDurableContext()
    mock.mock_step("nap", takes=0.3)
    create_test_handler(outer, mock)({})
    by_id = {operation.id: operation for operation in mock.operations}
    for operation in mock.operations:
        assert took(operation) == 300
        if operation.parent_id is not None:
            assert by_id[operation.parent_id].start_ms == operation.start_ms


def test_the_time_is_that_of_the_last_body_and_never_goes_back() -> None:
    seen: list[float] = []

    @workflow
    async def naps(ctx: WorkflowContext) -> list[str]:
        start = ctx.now()
        await asyncio.gather(nap.options(name="long")(), nap.options(name="short")())
        times = [(ctx.now() - start).total_seconds()]
        await ctx.sleep(60)
        times.append((ctx.now() - start).total_seconds())
        seen[:] = times
        return [str(time) for time in times]

    mock = MockDurableContext()
    mock.mock_step("long", takes=7)
    mock.mock_step("short", takes=3)
    assert create_test_handler(naps, mock)({}) == [str(time) for time in seen]
    assert seen[0] == 7
    assert seen[1] >= 67
