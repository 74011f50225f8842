from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyworkflow import step, workflow
from pyworkflow._engine.messages import Suspended
from pyworkflow._protocol.records import ErrorRecord, Status
from pyworkflow.errors import InvokeError
from tests.engine.harness import Run, Service, actions


@step
async def a() -> Any: ...


async def pays(ctx: Any) -> Any:
    return await ctx.invoke("pay:live", {"cents": 5}, name="pay", tenant_id="t", result_type=int)


def invoke_of(service: Service, name: str = "pay") -> Any:
    (found,) = service.named(name)
    return found


def test_the_start_is_urgent_and_says_what_to_invoke() -> None:
    run = Run(pays)
    assert run.in_flight is not None
    (update,) = run.in_flight
    assert (update.function_name, update.tenant_id) == ("pay:live", "t")
    assert update.payload == '{"cents":5}'
    assert (update.type, update.subtype) == ("CHAINED_INVOKE", "ChainedInvoke")
    assert run.end is None, "the invocation ends only when the START is durable"
    run.commit()
    assert isinstance(run.end, Suspended)


def test_the_result_comes_whenever_it_is_there() -> None:
    run = Run(pays)
    run.commit()
    run = run.crash(pays)
    assert isinstance(run.end, Suspended)
    assert run.in_flight is None
    run.service.end(invoke_of(run.service).id, "42")
    run.refresh()
    assert run.value == 42
    assert Run(pays, run.service).value == 42


def test_an_answer_may_hold_the_end_already() -> None:
    run = Run(pays)
    run.write()
    run.service.end(invoke_of(run.service).id, "42")
    run.execution.resolve(run.service.refresh())
    run.advance()
    assert run.value == 42


def test_several_run_at_once() -> None:
    async def main(ctx: Any) -> Any:
        return await asyncio.gather(*(ctx.invoke(n, name=n) for n in ("x", "y")))

    run = Run(main)
    assert actions(run.in_flight) == ["START x", "START y"]
    run.commit()
    run.service.end(invoke_of(run.service, "y").id, "2")
    run.service.end(invoke_of(run.service, "x").id, None)
    run = run.crash(main)
    assert run.value == [None, 2]


def test_a_cancelled_one_is_left_to_itself() -> None:
    async def main(ctx: Any) -> Any:
        task = asyncio.create_task(pays(ctx))
        await a()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return "done"

    run = Run(main)
    run.settle()
    run.done("a")
    assert run.value == "done"
    assert invoke_of(run.service).status is Status.STARTED
    run = run.crash(main)
    assert run.value == "done"


def test_cancelled_before_it_was_sent_it_never_runs() -> None:
    async def main(ctx: Any) -> Any:
        task = asyncio.create_task(pays(ctx))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await a()
        return "done"

    run = Run(main)
    assert run.in_flight is None
    run.done("a")
    assert run.value == "done"
    assert run.service.named("pay") == []


def test_a_replayed_one_has_nothing_to_drop() -> None:
    async def main(ctx: Any) -> Any:
        task = asyncio.create_task(pays(ctx))
        await a()
        task.cancel()
        return "done"

    run = Run(main)
    run.settle()
    run = run.crash(main)
    run.done("a")
    assert run.value == "done"


def failed(**end: Any) -> Any:
    async def main(ctx: Any) -> Any:
        try:
            return await pays(ctx)
        except InvokeError as error:
            return [error.error_type, error.message, error.stack_trace]

    run = Run(main)
    run.commit()
    run.service.end(invoke_of(run.service).id, **end)
    run = run.crash(main)
    return run.value


def test_a_failure_carries_the_callees_words_and_class_name_alone() -> None:
    error = ErrorRecord("broke", "ValueError", None, ("frame",))
    assert failed(status=Status.FAILED, error=error) == ["ValueError", "broke", ["frame"]]


@pytest.mark.parametrize("status", [Status.FAILED, Status.TIMED_OUT, Status.STOPPED])
def test_an_end_without_an_error_is_told_all_the_same(status: Status) -> None:
    _, message, _ = failed(status=status)
    assert message == f"ChainedInvoke 'pay' of function 'pay:live' ended as {status}"


def test_a_result_that_does_not_fit_is_a_failure_of_the_invoke() -> None:
    error_type, message, _ = failed(payload='"x"')
    assert error_type == "SerializationError"
    assert "does not fit its type int" in message


def test_through_a_child_context_it_stays_an_invoke_error() -> None:
    @workflow
    async def child(ctx: Any) -> None:
        await pays(ctx)

    async def main(ctx: Any) -> Any:
        try:
            await child(ctx)
        except InvokeError as error:
            return [type(error).__name__, error.error_type, error.message]

    run = Run(main)
    run.settle()
    error = ErrorRecord("broke", "ValueError")
    run.service.end(invoke_of(run.service).id, status=Status.FAILED, error=error)
    run.refresh()
    run.settle()
    assert run.value == ["InvokeError", "ValueError", "broke"]
