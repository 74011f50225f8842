"""Values that the service would not store are told where they are made, before any checkpoint."""

from __future__ import annotations

from typing import Any

import pytest

from pyworkflow import SerializationError, WorkflowContext, step, workflow
from tests.api.world import World

LIMIT = 40
ran: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


@step
async def text(size: int) -> str:
    ran.append("text")
    return "x" * (size - 2)


@step(inline=True)
def blocking_text(size: int) -> str:
    ran.append("text")
    return "ü" * ((size - 2) // 2)


def finish(flow: Any) -> Any:
    return World(max_payload_bytes=LIMIT).finish(flow)


@pytest.mark.parametrize("kind", [text, blocking_text])
def test_a_result_of_a_step_is_its_failure_and_no_second_attempt_is_made(kind: Any) -> None:
    @workflow
    async def one(ctx: WorkflowContext) -> int:
        call = kind.submit(LIMIT)
        assert len(await call) > 1
        with pytest.raises(SerializationError) as caught:
            await kind.submit(LIMIT + 2)
        assert str(caught.value) == (
            f"The result of Step {kind.name!r} can't be stored: it has 42 bytes as JSON, and the "
            "service takes at most 40. Keep it elsewhere, in S3 for example, and hand on where it "
            "is"
        )
        return len(ran)

    assert finish(one) == 2


def test_a_replay_is_told_the_same() -> None:
    @workflow
    async def one(ctx: WorkflowContext) -> str:
        try:
            await text(LIMIT + 1)
        except SerializationError as error:
            ctx.sleep(5)
            return str(error)
        raise AssertionError

    assert "can't be stored: it has 41 bytes" in finish(one)
    assert ran == ["text"]


@pytest.mark.parametrize("is_met", [False, True])
def test_a_state_ends_the_wait_for_a_condition(is_met: bool) -> None:
    @workflow
    async def one(ctx: WorkflowContext) -> str:
        with pytest.raises(SerializationError, match="The state of WaitForCondition 'look'"):
            await ctx.wait_for_condition(
                lambda: "x" * 60, every=1, until=lambda _: is_met, name="look"
            )
        return "told"

    assert finish(one) == "told"


def test_an_input_of_an_invoke_is_refused_before_anything_is_recorded() -> None:
    @workflow
    async def one(ctx: WorkflowContext) -> str:
        with pytest.raises(SerializationError, match=r"input of ChainedInvoke of function 'f'"):
            await ctx.invoke("f", "x" * 60)
        return "told"

    world = World(max_payload_bytes=LIMIT)
    assert world.finish(one) == "told"
    assert world.operations() == []


def test_a_child_context_keeps_a_larger_one_in_what_is_recorded_below() -> None:
    @workflow
    async def one(ctx: WorkflowContext) -> int:
        async def both() -> list[str]:
            return [await text(30), await text(30)]

        texts = await ctx.child(both)
        ctx.sleep(5)
        return len(texts)

    assert finish(one) == 2
