from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyworkflow import NonDeterminismError, UsageError, sleep, step, workflow
from pyworkflow._engine.messages import Broken, Failed, Suspended
from pyworkflow._protocol.records import ErrorRecord, Status
from pyworkflow.errors import CallbackError, CallbackTimeoutError
from tests.engine.harness import Run, Service, actions


@step
async def a() -> Any: ...


@step
async def b() -> Any: ...


@step
async def c() -> Any: ...


async def one(ctx: Any) -> Any:
    callback = ctx.callback("ask", timeout="1h", heartbeat_timeout="90s")
    return [callback.id, await callback.result()]


def callback_of(service: Service, name: str = "ask") -> Any:
    (found,) = service.named(name)
    return found


def both_end_at_once(run: Run, first: str, second: str) -> None:
    """Let one answer hold the ends of two steps."""
    run.lag()
    run.ok(first)
    run.ok(second)
    run.commit()
    assert actions(run.in_flight) == [f"SUCCEED {first}", f"SUCCEED {second}"]
    run.commit()


# -- the creation --------------------------------------------------------------------------------


def test_the_start_is_urgent_and_the_code_goes_on_when_it_is_durable() -> None:
    seen: list[str] = []

    async def main(ctx: Any) -> Any:
        seen.append(ctx.callback("ask", timeout="1h", heartbeat_timeout=90).id)
        return "done"

    run = Run(main)
    assert seen == []
    assert run.in_flight is not None
    (update,) = run.in_flight
    assert (update.timeout_seconds, update.heartbeat_timeout_seconds) == (3600, 90)
    run.commit()
    assert seen == ["callback ask"]
    assert run.value == "done"


def test_in_replay_the_creation_comes_in_the_same_order_as_live() -> None:
    """What else is ready runs before the code that waits for a creation, live and replayed."""

    async def main(ctx: Any) -> Any:
        order = []

        async def one(name: str) -> None:
            order.append(f"{name} asks")
            ctx.callback(name)
            order.append(f"{name} has it")

        async def other() -> None:
            order.append("other")

        await asyncio.gather(one("x"), other(), one("y"))
        await a()
        return order

    run = Run(main)
    run.settle()
    run.done("a")
    live = run.value
    assert live == ["x asks", "other", "y asks", "x has it", "y has it"]
    assert Run(main, run.service).value == live


def test_no_end_is_delivered_while_a_creation_is_not_durable() -> None:
    order: list[str] = []

    async def main(ctx: Any) -> Any:
        order.clear()

        async def steps() -> None:
            await a()
            order.append("a ended")

        task = asyncio.create_task(steps())
        await b()
        ctx.callback("ask")
        order.append("created")
        await task
        return order

    run = Run(main)
    both_end_at_once(run, "b", "a")
    assert actions(run.in_flight) == ["START ask"]
    assert order == [], "the end of a is held back"
    run.commit()
    assert run.value == ["created", "a ended"]
    assert Run(main, run.service).value == ["created", "a ended"]


def test_while_an_end_is_held_back_nothing_is_launched() -> None:
    """The end that is held back may cancel what would be launched."""

    async def main(ctx: Any) -> Any:
        losers = []

        async def starts() -> None:
            await a()
            losers.append(asyncio.create_task(c()))
            await asyncio.sleep(0)
            ctx.callback("ask")

        task = asyncio.create_task(starts())
        await b()
        losers[0].cancel()
        await task
        return "done"

    run = Run(main)
    both_end_at_once(run, "a", "b")
    assert actions(run.in_flight) == ["START c", "START ask"]
    assert run.running == {}
    run.settle()
    assert run.value == "done"
    assert sorted(run.launched) == [("a", 1), ("b", 1)]
    assert Run(main, run.service).value == "done"


def test_an_answer_may_hold_the_end_already() -> None:
    run = Run(one)
    answer = run.write()
    (operation,) = answer.operations
    run.service.end(operation.id, '"yes"')
    run.execution.resolve(run.service.refresh())
    run.advance()
    assert run.value == ["callback ask", "yes"]


def test_cancelled_before_it_was_sent_it_never_is() -> None:
    async def main(ctx: Any) -> Any:
        async def create() -> None:
            ctx.callback("ask")

        task = asyncio.create_task(create())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await a()
        return "done"

    run = Run(main)
    assert run.in_flight is None
    run.done("a")
    assert run.value == "done"
    assert run.service.named("ask") == []
    assert Run(main, run.service).value == "done"


def test_cancelled_while_its_start_is_under_way_it_stays_open() -> None:
    async def main(ctx: Any) -> Any:
        async def create(name: str) -> None:
            try:
                ctx.callback(name)
            finally:
                if name == "x":
                    second.cancel()

        first = asyncio.create_task(create("x"))
        second = asyncio.create_task(create("y"))
        await asyncio.gather(first, second, return_exceptions=True)
        await a()
        return "done"

    run = Run(main)
    assert actions(run.in_flight) == ["START x", "START y"]
    run.settle()
    run.done("a")
    assert run.value == "done"
    assert callback_of(run.service, "y").status is Status.STARTED
    assert Run(main, run.service).value == "done"


def test_a_child_context_that_is_over_can_be_asked_for_nothing() -> None:
    @workflow
    async def child(ctx: Any, kept: list[Any]) -> None:
        kept.append(ctx.callback("ask"))
        kept.append(ctx.callback("early"))
        await a()

    async def main(ctx: Any) -> Any:
        kept: list[Any] = []
        await child(ctx, kept)
        with pytest.raises(UsageError, match="'ask' belongs to a child context that is over"):
            await kept[0].result()
        return await kept[1].result()

    run = Run(main)
    run.settle()
    run.service.end(callback_of(run.service, "early").id, "5")
    run.done("a")
    assert run.value == 5


def test_a_creation_that_history_does_not_have_breaks_the_run() -> None:
    async def old() -> Any:
        return await a()

    async def new(ctx: Any) -> Any:
        ctx.callback("ask", key="k")
        return await a()

    run = Run(old)
    run.lag()
    run.commit()
    again = run.crash(new)
    assert isinstance(again.end, Broken)
    assert isinstance(again.end.error, NonDeterminismError)


# -- the result ----------------------------------------------------------------------------------


def test_it_suspends_until_somebody_completes_it() -> None:
    run = Run(one)
    run.commit()
    assert isinstance(run.end, Suspended)
    run = run.crash(one)
    assert isinstance(run.end, Suspended)
    assert run.in_flight is None
    run.service.end(callback_of(run.service).id, '{"ok": true}')
    run = run.crash(one)
    assert run.value == ["callback ask", {"ok": True}]


def test_one_that_nobody_awaits_is_nothing_to_wait_for() -> None:
    async def main(ctx: Any) -> Any:
        ctx.callback("ask")
        await asyncio.Event().wait()

    run = Run(main)
    run.commit()
    assert isinstance(run.end, Failed)
    assert "never happen" in str(run.end.error)


def test_a_cancelled_wait_leaves_it_open() -> None:
    async def main(ctx: Any) -> Any:
        callback = ctx.callback("ask")
        try:
            await asyncio.wait_for(callback.result(), 5)
        except TimeoutError:
            return ["late", await callback.result(), await callback.result()]

    run = Run(main)
    run.settle()
    run = run.wake(main)
    assert isinstance(run.end, Suspended)
    run.service.end(callback_of(run.service).id, "7")
    run = run.crash(main)
    assert run.value == ["late", 7, 7]


def test_the_result_and_a_cancellation_may_meet() -> None:
    async def main(ctx: Any) -> Any:
        callback = ctx.callback("ask")

        async def waits() -> Any:
            return await callback.result()

        task = asyncio.create_task(waits())
        twin = asyncio.create_task(waits())
        twin.add_done_callback(lambda _: task.cancel())
        return await asyncio.gather(task, twin, return_exceptions=True)

    run = Run(main)
    run.commit()
    run.service.end(callback_of(run.service).id, "1")
    run.refresh()
    first = run.value
    assert first == Run(main, run.service).value


def test_a_waiter_that_was_cancelled_in_the_same_turn_is_passed_by() -> None:
    async def main(ctx: Any) -> Any:
        callback = ctx.callback("ask")
        waiter = callback._op.expect()
        waiter.cancel()
        return await callback.result()

    run = Run(main)
    run.commit()
    run.service.end(callback_of(run.service).id, "1")
    run.refresh()
    assert run.value == 1


def test_a_heartbeat_changes_nothing_for_the_code() -> None:
    run = Run(one)
    run.commit()
    operation = callback_of(run.service)
    run.service._put(operation)
    run.refresh()
    assert isinstance(run.end, Suspended)


def test_def_workflows_block() -> None:
    def main(ctx: Any) -> Any:
        first, second = ctx.callback("x"), ctx.callback("y")
        return [second.result(), first.result(), str(first), first.id]

    run = Run(main)
    run.settle()
    assert isinstance(run.end, Suspended)
    run.service.end(callback_of(run.service, "x").id, "1")
    run.service.end(callback_of(run.service, "y").id, "2")
    run = run.crash(main)
    assert run.value == [2, 1, "<callback 'x'>", "callback x"]


# -- what the sender said ------------------------------------------------------------------------


def ended(result_type: Any, payload: str | None = None, **end: Any) -> Any:
    async def main(ctx: Any) -> Any:
        callback = ctx.callback("ask", result_type=result_type)
        try:
            return [await callback.result()]
        except CallbackError as error:
            return [type(error).__name__, error.error_type, error.message, str(error.__cause__)]

    run = Run(main)
    run.commit()
    run.service.end(callback_of(run.service).id, payload, **end)
    run = run.crash(main)
    return run.value


@pytest.mark.parametrize(
    ("result_type", "text", "value"),
    [
        (Any, '{"a": 1}', {"a": 1}),
        (Any, "plain text", "plain text"),
        (Any, "12", 12),
        (Any, None, None),
        (Any, "", None),
        (str, '"quoted"', "quoted"),
        (str, "plain text", "plain text"),
        (str, "12", "12"),
        (str, None, ""),
        (list[int], "[1]", [1]),
    ],
)
def test_json_is_converted_and_other_text_stays(result_type: Any, text: Any, value: Any) -> None:
    assert ended(result_type, text) == [value]


def test_what_does_not_fit_is_the_senders_fault() -> None:
    kind, error_type, message, cause = ended(list[int], '["x"]')
    assert (kind, error_type) == ("CallbackError", "SerializationError")
    assert message == cause
    assert "callback 'ask' does not fit its type list[int]" in message.lower()


def test_a_failure_carries_the_senders_words_and_class_name_alone() -> None:
    error = ErrorRecord("no", "ValueError", None, ('File "x"',))
    found = ended(Any, status=Status.FAILED, error=error)
    assert found == ["CallbackError", "ValueError", "no", "None"]


@pytest.mark.parametrize("error_type", ["Callback.Timeout", "Callback.Heartbeat"])
def test_timeouts_say_which(error_type: str) -> None:
    async def main(ctx: Any) -> Any:
        try:
            await ctx.callback("ask", timeout=5, heartbeat_timeout=2).result()
        except CallbackTimeoutError as error:
            return [error.error_type, error.is_heartbeat]

    run = Run(main)
    run.commit()
    error = ErrorRecord("late", error_type)
    run.service.end(callback_of(run.service).id, status=Status.TIMED_OUT, error=error)
    run = run.crash(main)
    assert run.value == [error_type, error_type == "Callback.Heartbeat"]


def test_ends_without_an_error_are_told_all_the_same() -> None:
    late = ended(Any, status=Status.TIMED_OUT)
    assert late[:3] == ["CallbackTimeoutError", "Callback.Timeout", "Callback 'ask' timed out"]
    failed = ended(Any, status=Status.FAILED)
    assert failed[:3] == ["CallbackError", "", "Callback 'ask' failed"]


def test_through_a_child_context_it_stays_a_callback_error() -> None:
    """The name that the sender chose is never looked for: not by the context around either."""

    @workflow
    async def child(ctx: Any) -> None:
        await ctx.callback("ask").result()

    async def main(ctx: Any) -> Any:
        try:
            await child(ctx)
        except CallbackError as error:
            return [type(error).__name__, error.error_type, error.message, error.stack_trace]

    run = Run(main)
    run.settle()
    error = ErrorRecord("no", "ValueError", None, ("frame",))
    run.service.end(callback_of(run.service).id, status=Status.FAILED, error=error)
    run.refresh()
    run.settle()
    expected = ["CallbackError", "ValueError", "no", ["frame"]]
    assert run.value == expected
    assert Run(main, run.service).value == expected


def test_recall_waits_for_a_creation() -> None:
    """A recorded step is not given in the short way past a creation that comes first."""
    order: list[str] = []

    async def main(ctx: Any) -> Any:
        order.clear()

        async def creates() -> None:
            ctx.callback("ask")
            order.append("created")

        task = asyncio.create_task(creates())
        await asyncio.sleep(0)
        await a()
        order.append("a")
        await task
        await sleep(1)
        return order

    run = Run(main)
    run.settle()
    run.done("a")
    assert order == ["created", "a"]
    again = run.crash(main)
    assert order == ["created", "a"]
    assert isinstance(again.end, Suspended)
