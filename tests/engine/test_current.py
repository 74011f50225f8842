from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from pyworkflow import step, workflow
from pyworkflow._engine.current import current_execution, require_execution, running_step
from pyworkflow.aws.testing import MockDurableContext, create_test_handler
from pyworkflow.errors import UsageError


class Charge:
    name = "charge"
    attempt = 1


def refusal() -> str:
    with pytest.raises(UsageError) as caught:
        require_execution("ctx.sleep()")
    return str(caught.value)


def test_plain_code_is_in_no_execution() -> None:
    assert current_execution() is None
    assert refusal() == (
        "ctx.sleep() was called outside of a running workflow. Call it from the code of a function "
        "with @workflow, on the thread that runs it."
    )


def test_code_on_another_loop_is_in_no_execution() -> None:
    async def main() -> str:
        assert current_execution() is None
        return refusal()

    assert "outside of a running workflow" in asyncio.run(main())


def test_code_of_a_step_is_told_so() -> None:
    token = running_step.set(Charge())
    try:
        assert "ctx.sleep() was called inside step 'charge'" in refusal()
    finally:
        running_step.reset(token)


def test_workflow_code_is_in_its_execution() -> None:
    @workflow
    async def order(ctx: Any) -> bool:
        execution = current_execution()
        assert execution is not None
        return require_execution("anything") is execution and execution.id == ctx.execution_id

    assert create_test_handler(order)({}) is True
    assert current_execution() is None


@step
async def ask_async() -> list[Any]:
    return [current_execution() is None, refusal()]


@step
def ask_in_a_thread() -> list[Any]:
    return [current_execution() is None, refusal()]


@step(inline=True)
def ask_inline() -> list[Any]:
    return [current_execution() is None, refusal()]


@pytest.mark.parametrize("ask", [ask_async, ask_in_a_thread, ask_inline])
def test_nothing_leaks_into_the_body_of_a_step(ask: Any) -> None:
    @workflow
    def order() -> list[Any]:
        found: list[Any] = ask.submit().result()
        return found

    is_outside, message = create_test_handler(order)({})
    assert is_outside
    assert f"inside step {ask.name!r}" in message


def test_nothing_leaks_into_another_thread() -> None:
    found: list[Any] = []

    @workflow
    async def order() -> None:
        thread = threading.Thread(target=lambda: found.append(current_execution()))
        thread.start()
        thread.join()

    create_test_handler(order, MockDurableContext(strict=False))({})  # strict refuses the thread
    assert found == [None]
