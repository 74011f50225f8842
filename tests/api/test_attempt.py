from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from pyworkflow import (
    CurrentStep,
    RetryableError,
    SyncWorkflowContext,
    UsageError,
    WorkflowContext,
    current_step,
    step,
    workflow,
)
from pyworkflow.aws.testing import MockDurableContext
from tests.api.world import World, run

if TYPE_CHECKING:
    from collections.abc import Callable


def test_outside_of_a_step_there_is_none() -> None:
    with pytest.raises(UsageError, match=r"current_step\(\) was called outside of a step"):
        current_step()


def test_workflow_code_is_no_step() -> None:
    @workflow
    async def asking(ctx: WorkflowContext) -> int:
        return current_step().attempt

    with pytest.raises(UsageError, match="workflow code uses ctx instead"):
        run(asking)


@pytest.mark.parametrize("kind", ["async", "thread", "inline"])
def test_a_body_knows_its_attempt(kind: str) -> None:
    seen: list[CurrentStep] = []

    def look() -> int:
        seen.append(current_step())
        if current_step().attempt < 3:
            raise RetryableError("once more")
        return current_step().attempt

    async def look_async() -> int:
        return look()

    made: dict[str, Callable[[], int]] = {
        "async": lambda: step(name="look")(look_async).submit().result(),
        "thread": step(look),
        "inline": step(inline=True)(look),
    }

    @workflow
    def looking(ctx: SyncWorkflowContext) -> int:
        return made[kind]()

    mock_ctx = MockDurableContext()
    assert run(looking, None, mock_ctx) == 3
    assert [each.attempt for each in seen] == [1, 2, 3]
    assert {(each.name, each.execution_id) for each in seen} == {("look", mock_ctx.execution_id)}
    assert len({each.idempotency_key for each in seen}) == 1
    assert seen[0].operation_id == mock_ctx.operations[0].id


def test_a_fake_has_an_attempt_too() -> None:
    @step
    async def real() -> int:
        return 0

    @workflow
    async def faked(ctx: WorkflowContext) -> int:
        return await real()

    mock_ctx = MockDurableContext()
    mock_ctx.mock_step("real", side_effect=lambda: current_step().attempt)
    assert run(faked, None, mock_ctx) == 1


def test_idempotency_keys_differ_between_steps_and_executions() -> None:
    @step
    async def key() -> str:
        return current_step().idempotency_key

    @workflow
    async def keys(ctx: WorkflowContext) -> list[str]:
        return [await key(), await key(), await key.options(key="k")()]

    world = World()
    found = [*world.finish(keys), *World(beside=world).finish(keys)]
    assert len(set(found)) == 6
    assert all(len(each) == 32 and int(each, 16) >= 0 for each in found)


def test_an_idempotency_key_survives_crashes() -> None:
    keys: list[str] = []

    @step
    async def charge() -> None:
        keys.append(current_step().idempotency_key)

    @workflow
    async def careful(ctx: WorkflowContext) -> None:
        await charge.options(name="first")()
        ctx.sleep(5)
        keys.append("|")
        await charge()

    world = World(crash_after=range(1, 9))
    world.finish(careful)
    between = keys.index("|")
    assert len(set(keys[:between])) == 1, "one key over all invocations"
    assert len(keys[:between]) >= 1
    assert len(set(keys)) == 3, "the first step's, the second's, and the mark"


def test_current_step_in_a_nested_call_is_the_outer_step() -> None:
    @step
    async def inner() -> str:
        return current_step().name

    @step
    async def outer() -> str:
        return await inner()

    @workflow
    async def nested(ctx: WorkflowContext) -> str:
        return await outer()

    assert run(nested) == "outer"


def test_the_logger_carries_the_attempt(caplog: pytest.LogCaptureFixture) -> None:
    @step
    async def talks() -> None:
        current_step().logger.info("charging %s", "card", extra={"order": 7})
        current_step().logger.info("done", extra=None)
        if current_step().attempt == 1:
            raise RetryableError("once more")

    @workflow
    async def talking(ctx: WorkflowContext) -> None:
        await talks()

    caplog.set_level(logging.INFO, "pyworkflow")
    mock_ctx = MockDurableContext()
    run(talking, None, mock_ctx)
    said = [record for record in caplog.records if record.name == "pyworkflow.step"]
    assert [record.getMessage() for record in said] == ["charging card", "done"] * 2
    fields = [vars(record) for record in said]
    assert [each["attempt"] for each in fields] == [1, 1, 2, 2]
    assert {each["step"] for each in fields} == {"talks"}
    assert {each["execution_id"] for each in fields} == {mock_ctx.execution_id}
    assert [each.get("order") for each in fields] == [7, None, 7, None]
