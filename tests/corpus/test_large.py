"""Concurrency at size, through the mock: right results, and how many checkpoints they take."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyworkflow import Workflow, step, workflow
from pyworkflow._protocol.records import OperationType, Status
from pyworkflow.aws.testing import MockDurableContext, create_test_handler
from pyworkflow.services.memory import ImmediateMemoryService
from tests.corpus.counting import count

STEPS, TASKS, LEVELS = 3_000, 1_000, 10


@step
async def double(number: int) -> int:
    return 2 * number


@workflow
async def gather_of_steps() -> int:
    results = await asyncio.gather(*(double(number) for number in range(STEPS)))
    assert results == [2 * number for number in range(STEPS)]
    return sum(results)


@workflow
async def nested_tasks() -> int:
    """Chains of tasks, each of which makes the next one, after a step and before another."""

    async def link(number: int, level: int) -> int:
        found = await double(number)
        if level > 1:
            found += await asyncio.create_task(link(number + 1, level - 1))
        return found + await double(0)

    chains = [asyncio.create_task(link(start, LEVELS)) for start in range(TASKS // LEVELS)]
    return sum(await asyncio.gather(*chains))


def run(
    shape: Workflow[..., Any], patch: pytest.MonkeyPatch, *crashes: int
) -> tuple[Any, list[int], MockDurableContext]:
    """Return the result, how many updates each checkpoint held, and the mock."""
    batches: list[int] = []
    commit = ImmediateMemoryService.commit_now

    def counted(
        service: ImmediateMemoryService, execution_id: str, token: str, updates: Any
    ) -> Any:
        batches.append(len(updates))
        return commit(service, execution_id, token, updates)

    patch.setattr(ImmediateMemoryService, "commit_now", counted)
    mock = MockDurableContext()
    for number in crashes:
        mock.crash_after(number)
    result = create_test_handler(shape, mock)({})
    return result, batches, mock


def test_three_thousand_steps_in_one_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    result, batches, mock = run(gather_of_steps, monkeypatch)
    assert result == STEPS * (STEPS - 1)
    assert len(mock.operations) == STEPS
    assert {operation.status for operation in mock.operations} == {Status.SUCCEEDED}
    # A start and an end each, 250 updates at most in a checkpoint, and the end of the execution.
    # Memory answers at once, so no checkpoint is ever in flight while further steps end.
    assert sum(batches) <= 2 * STEPS + 1
    assert max(batches) <= 250
    assert len(batches) <= STEPS + STEPS / 250 + 1
    count(f"checkpoints of {STEPS:,} steps in one gather", len(batches))


def test_a_thousand_nested_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    result, batches, mock = run(nested_tasks, monkeypatch)
    chains = TASKS // LEVELS
    assert result == sum(2 * (start + level) for start in range(chains) for level in range(LEVELS))
    steps = [each for each in mock.operations if each.type is OperationType.STEP]
    assert len(steps) == 2 * TASKS
    assert len({each.id for each in steps}) == 2 * TASKS
    count(f"checkpoints of {TASKS:,} nested tasks with two steps each", len(batches))


@pytest.mark.parametrize("shape", [gather_of_steps, nested_tasks], ids=lambda shape: shape.name)
def test_crashes_change_nothing_at_size(
    shape: Workflow[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calm, _, first = run(shape, monkeypatch)
    crashed, _, mock = run(shape, monkeypatch, 1, 5, 12)
    assert mock.invocations == 4
    assert crashed == calm
    assert [(o.id, o.name, o.payload) for o in sorted(mock.operations, key=lambda o: o.id)] == [
        (o.id, o.name, o.payload) for o in sorted(first.operations, key=lambda o: o.id)
    ]
