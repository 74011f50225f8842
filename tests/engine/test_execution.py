from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from pyworkflow import sleep, step, workflow
from pyworkflow._engine.execution import Execution
from pyworkflow._engine.messages import (
    Broken,
    Failed,
    StepRaised,
    StepReturned,
    Suspended,
)
from pyworkflow._protocol.executions import Committed
from pyworkflow._protocol.records import Operation, OperationType, Status
from pyworkflow._values.exceptions import KnownErrors
from pyworkflow.errors import (
    DeadlockError,
    FatalError,
    SerializationError,
    StepCancelledError,
    UsageError,
)
from tests.engine.harness import START_MS, Run, Service, actions


@step
async def a(x: Any = None) -> Any: ...


@step
async def b() -> Any: ...


@step
async def c() -> Any: ...


# -- replay first --------------------------------------------------------------------------------


async def fan() -> Any:
    return await asyncio.gather(a(), b(), c())


def test_nothing_is_launched_or_written_while_a_recorded_end_is_undelivered() -> None:
    """A step that loses against a recorded end is not run again to lose again."""

    async def race() -> Any:
        futures = [a.submit(), b.submit()]
        done, _ = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        for future in futures:
            future.cancel()
        return [f.result() for f in done] + [await c()]

    run = Run(race)
    run.ok("b", "b wins")
    run.write()
    for _ in range(3):
        run = run.crash(race)
        assert run.launched == [("c", 1)]
    run.settle()
    run.done("c", 1)
    assert run.value == ["b wins", 1]


def test_ends_are_delivered_in_the_order_of_their_record_not_of_their_issue() -> None:
    run = Run(fan)
    run.done("c", 3)
    run.done("a", 1)
    ids = {op.name: op.id for op in run.trace.issued}
    assert run.trace.delivered == [ids["c"], ids["a"]]
    run = run.crash(fan)
    assert run.trace.delivered == [ids["c"], ids["a"]]
    assert run.launched == [("b", 1)]


def test_the_loop_is_idle_between_two_deliveries() -> None:
    seen: list[str] = []

    async def follow(name: str) -> None:
        await a.options(name=name)()
        for n in range(3):
            seen.append(f"{name}{n}")
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(follow("x"), follow("y"))

    run = Run(main)
    run.lag()
    run.ok("y")
    run.ok("x")
    run.settle()
    expected = ["y0", "y1", "y2", "x0", "x1", "x2"]
    assert seen == expected
    seen.clear()
    run.crash(main)
    assert seen == expected


def test_on_a_service_without_numbers_time_and_then_issue_decide() -> None:
    run = Run(fan, Service(sequences=False))
    run.done("c", 3)
    run.ok("b", 2)
    run.ok("a", 1)
    run.settle()
    assert run.value == [1, 2, 3]
    delivered = run.trace.delivered
    run = run.crash(fan)
    assert run.value == [1, 2, 3]
    assert run.trace.delivered[0] == delivered[0]


# -- time ----------------------------------------------------------------------------------------


def test_now_is_the_end_of_the_last_delivered_fact() -> None:
    async def main(ctx: Any) -> Any:
        times = [ctx.now()]
        await a()
        times.append(ctx.now())
        await asyncio.sleep(5)
        times.append(ctx.now())
        return [int(t.timestamp() * 1000) - START_MS for t in times]

    run = Run(main)
    run.done("a")
    run = run.wake(main)
    step_end = run.service.named("a")[0].end_ms
    assert step_end is not None
    assert run.value[:2] == [0, step_end - START_MS]
    assert run.value[2] == run.service.now_ms - START_MS
    assert run.crash(main).value == run.value


def test_time_never_goes_back() -> None:
    async def main(ctx: Any) -> Any:
        await a()
        await b()
        return ctx.now().isoformat()

    run = Run(main)
    run.done("a")
    run.done("b")
    second = run.service.named("b")[0]
    run.service.operations[second.id] = replace(second, end_ms=START_MS + 1)
    first = run.service.named("a")[0].end_ms
    assert first is not None
    expected = datetime.fromtimestamp(first / 1000, tz=UTC).isoformat()
    assert run.crash(main).value == expected


def test_without_the_record_of_the_execution_time_begins_at_zero() -> None:
    async def main(ctx: Any) -> Any:
        return ctx.now().year

    assert Run(main, history=[]).value == 1970


def test_without_an_end_time_now_stays() -> None:
    async def main(ctx: Any) -> Any:
        await a()
        return int(ctx.now().timestamp() * 1000)

    run = Run(main)
    run.done("a")
    operation = run.service.named("a")[0]
    run.service.operations[operation.id] = replace(operation, end_ms=None)
    assert run.crash(main).value == START_MS


# -- turns ---------------------------------------------------------------------------------------


def test_what_lags_is_told_also_while_a_batch_is_in_flight() -> None:
    async def main() -> Any:
        async with asyncio.timeout(5):
            await asyncio.gather(a(), b())

    run = Run(main)
    assert run.turn.lags
    run.ok("a")
    assert run.in_flight is not None
    assert run.turn.lags, "a writer that is never free must not starve a timer"
    run.lag()
    run.commit()
    assert actions(run.in_flight) == ["START WAIT"]
    assert not run.turn.lags


def test_when_nothing_else_goes_on_what_lags_is_written() -> None:
    async def main() -> Any:
        await asyncio.gather(sleep(1, name="x"), sleep(2, name="y"))

    run = Run(main)
    assert actions(run.in_flight) == ["START x", "START y"]


def test_it_is_told_when_to_look_again_while_a_step_runs() -> None:
    async def main() -> Any:
        await asyncio.gather(a(), sleep(1), sleep(9))

    run = Run(main)
    run.lag()
    run.commit()
    assert run.turn.next_due_ms == run.service.due()[0][0]
    run.service.fire_next()
    run.refresh()
    assert run.turn.next_due_ms == run.service.due()[0][0]
    run.done("a")
    assert run.turn.next_due_ms is None
    assert isinstance(run.end, Suspended)


def test_a_turn_without_news_is_empty() -> None:
    run = Run(fan)
    before = run.launched[:]
    turn = run.advance()
    assert (turn.launch, turn.write, turn.cancel, turn.end) == ((), (), (), None)
    assert run.launched == before


def test_a_change_of_something_never_issued_is_ignored() -> None:
    run = Run(fan)
    stray = Operation(id="stray", type=OperationType.WAIT, status=Status.STARTED, start_ms=0)
    run.execution.resolve(Committed("token", (stray,)))
    assert run.advance().end is None


def test_many_updates_go_in_several_batches() -> None:
    async def main() -> Any:
        await asyncio.gather(*(a.options(name=f"s{n}")() for n in range(130)))
        return "done"

    run = Run(main)
    for n in range(130):
        run.ok(f"s{n}")
    run.settle()
    assert run.value == "done"
    assert all(len(batch) <= 250 for batch in run.service.batches)


# -- suspension and deadlock ---------------------------------------------------------------------


def test_it_suspends_only_when_nothing_runs_and_nothing_is_in_flight() -> None:
    async def main() -> Any:
        await asyncio.gather(a(), sleep(5))

    run = Run(main)
    assert run.end is None
    run.ok("a")
    assert run.end is None
    run.settle()
    assert isinstance(run.end, Suspended)


def test_no_exception_passes_through_user_code_on_suspension() -> None:
    seen: list[object] = []

    async def main() -> Any:
        try:
            await sleep(5)
        except BaseException as error:
            seen.append(error)
            raise
        finally:
            seen.append("finally")

    run = Run(main)
    run.commit()
    assert isinstance(run.end, Suspended)
    assert seen == []


def test_waiting_for_what_never_happens_is_a_deadlock() -> None:
    async def main() -> Any:
        await asyncio.Event().wait()

    run = Run(main)
    assert isinstance(run.end, Failed)
    assert isinstance(run.end.error, DeadlockError)
    assert "main" in str(run.end.error)


def test_an_abandoned_timer_does_not_keep_a_deadlock_waiting() -> None:
    async def main() -> Any:
        task = asyncio.create_task(sleep(500))
        await a()
        task.cancel()
        await asyncio.Event().wait()

    run = Run(main)
    run.lag()
    run.commit()
    run.done("a")
    assert run.service.due() != []
    assert isinstance(run.end, Failed)
    assert isinstance(run.end.error, DeadlockError)


# -- ends ----------------------------------------------------------------------------------------


def test_the_result_is_converted_to_the_result_type() -> None:
    async def main() -> Any:
        return [1, 2]

    run = Run(main, result_type=tuple[int, ...])
    assert run.value == (1, 2)


@pytest.mark.parametrize("result", [object(), {"k": [float("nan")]}])
def test_a_result_that_cannot_be_stored_fails_with_its_path(result: object) -> None:
    async def main() -> Any:
        return result

    run = Run(main)
    assert isinstance(run.end, Failed)
    assert isinstance(run.end.error, SerializationError)
    assert run.end.error.path.startswith("$")
    assert "the result of the workflow" in str(run.end.error).lower()


class Odd(BaseException):
    pass


@pytest.mark.parametrize(
    "error",
    [
        FatalError("no"),
        Odd("no"),
        asyncio.CancelledError("no"),
        SystemExit("no"),
        KeyboardInterrupt("no"),
    ],
)
@pytest.mark.parametrize("is_async", [True, False])
def test_what_the_workflow_raises_fails_it(error: BaseException, is_async: bool) -> None:
    async def main() -> Any:
        raise error

    def sync_main() -> Any:
        raise error

    run = Run(main if is_async else sync_main)
    assert isinstance(run.end, Failed)
    assert isinstance(run.end.error, type(error))
    assert run.end.record.type.endswith(type(error).__name__)


def test_what_a_signal_raises_is_nobodys_failure() -> None:
    async def main() -> Any:
        signal.raise_signal(signal.SIGINT)

    run = Run(main, start=False)
    with pytest.raises(KeyboardInterrupt):
        run.advance()
    run.close()


def test_a_plain_function_may_return_a_value() -> None:
    def main() -> Any:
        return 4

    assert Run(main).value == 4


def test_a_call_that_nobody_awaited_is_an_error() -> None:
    async def main() -> Any:
        a()  # type: ignore[unused-coroutine] # that is the mistake
        b.submit()

    run = Run(main)
    run.settle()
    assert isinstance(run.end, Failed)
    assert isinstance(run.end.error, UsageError)
    assert "a, b (submitted)" in str(run.end.error)
    run.close()


# -- the workflow returned -----------------------------------------------------------------------


async def leaves_one() -> Any:
    task = asyncio.create_task(_waits_for_a())
    await b()
    return task.done()


async def _waits_for_a() -> None:
    await a()


def test_steps_that_run_when_it_returns_are_cancelled_and_closed_before_the_end() -> None:
    run = Run(leaves_one)
    run.lag()
    run.commit()
    run.ok("b")
    run.commit()
    assert run.cancelled == ["a"]
    assert run.end is None
    assert actions(run.in_flight) == ["FAIL a"]
    run.commit()
    assert run.value is False
    error = run.service.named("a")[0].error
    assert error is not None
    assert error.type.endswith(StepCancelledError.__name__)


def test_submitted_steps_are_cancelled_too() -> None:
    async def main() -> Any:
        a.submit().add_done_callback(print)
        await b()
        return 1

    run = Run(main)
    run.ok("b")
    run.commit()
    assert run.cancelled == ["a"]
    run.settle()
    assert run.value == 1
    assert run.service.named("a")[0].status is Status.FAILED


def test_an_end_after_the_return_reaches_nobody_live_or_replayed() -> None:
    async def main() -> Any:
        loop = asyncio.get_running_loop()
        left = a.submit()
        left.add_done_callback(lambda _: loop.create_task(c()))
        return await b()

    run = Run(main)
    run.lag()
    run.settle()
    run.done("b", "from b")
    assert run.value == "from b"
    assert [each.status for each in run.service.named("a")] == [Status.FAILED]

    again = run.crash(main)
    assert again.value == "from b"
    assert again.launched == []
    again.close()


def test_the_cleanup_of_a_task_that_is_left_may_do_durable_things() -> None:
    log: list[str] = []

    async def cleans() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await a()
            await asyncio.sleep(5)
            await c()
            log.append("clean")

    async def main() -> Any:
        task = asyncio.create_task(cleans())
        await b()
        return task.done()

    run = Run(main)
    run.done("b")
    assert run.launched[-1] == ("a", 1)
    run.fail("a", ValueError("once"))
    run.settle()
    assert isinstance(run.end, Suspended), "its retry is waited for"
    run = run.wake(main)
    run.done("a")
    assert isinstance(run.end, Suspended), "and its sleep"
    run = run.wake(main)
    assert log == []
    run.done("c")
    assert log == ["clean"]
    assert run.value is False
    again = run.crash(main)
    assert (again.value, again.launched) == (False, [])


def test_a_task_that_refuses_to_end_does_not_hold_up_the_end() -> None:
    async def stubborn() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                asyncio.get_running_loop().call_later(50, print)
                await asyncio.Event().wait()

    async def main() -> Any:
        task = asyncio.create_task(stubborn())
        await b()
        return task.done()

    run = Run(main)
    run.done("b")
    assert isinstance(run.end, Suspended), "the timer of its handler is waited for"
    run = run.wake(main)
    assert run.value is False, "but not what can never happen"
    run.close()


def test_what_lags_is_not_written_for_an_end() -> None:
    async def main() -> Any:
        asyncio.get_running_loop().call_later(50, print)
        return 1

    run = Run(main)
    assert run.value == 1
    assert run.service.batches == []


# -- close ---------------------------------------------------------------------------------------


def test_close_unwinds_each_frame_once_and_refuses_what_is_durable() -> None:
    log: list[object] = []

    async def task() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append("task")

    @workflow
    def blocks(ctx: Any) -> None:
        try:
            ctx.sleep(5)
        finally:
            log.append("sync")

    async def main(ctx: Any) -> Any:
        tasks = [asyncio.create_task(task())]
        try:
            blocks(ctx)
        finally:
            log.append(("main", ctx.is_closing, len(tasks)))
            try:
                await a()
            except BaseException as error:
                log.append(type(error).__name__)
                raise
            finally:
                ctx.sleep(1)
                log.append("never")

    run = Run(main)
    run.commit()
    batches = len(run.service.batches)
    run.close()
    run.close()
    assert log == ["sync", ("main", True, 1), "Closing", "task"]
    assert len(run.service.batches) == batches
    assert not run.execution.outbox.is_lagging


def test_close_drops_what_was_not_sent_or_launched() -> None:
    run = Run(fan)
    run.execution.close()
    assert not run.execution.outbox.is_lagging
    assert not run.execution.attempts.waiting


def test_close_unwinds_async_generators() -> None:
    log: list[str] = []
    kept: list[object] = []

    async def numbers(name: str) -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            log.append(name)
            await a()
            log.append("never")

    async def main() -> Any:
        other = numbers("kept")
        kept.append(other)
        await anext(other)
        async for _ in numbers("looping"):
            await b()

    run = Run(main)
    run.close()
    gc.collect()
    assert sorted(log) == ["kept", "looping"]


def test_a_generator_that_was_dropped_half_way_may_do_nothing_durable(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            try:
                await a()
            except UsageError as error:
                seen.append(str(error))

    async def main() -> Any:
        async for _ in numbers():
            break
        gc.collect()
        return await b()

    run = Run(main)
    assert "contextlib.aclosing" in seen[0]
    run.done("b", 1)
    assert run.value == 1
    assert caplog.records == []


def test_a_key_names_one_operation() -> None:
    async def main() -> Any:
        await a.options(key="k")()
        await b.options(key="k")()

    run = Run(main)
    run.done("a")
    assert isinstance(run.end, Failed)
    assert "'k' is used twice" in str(run.end.error)


# -- reports -------------------------------------------------------------------------------------


def test_errors_in_callbacks_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    def bad() -> None:
        raise ValueError("in a callback")

    async def main() -> Any:
        await a()
        asyncio.get_running_loop().call_soon(bad)
        await b()

    run = Run(main)
    with caplog.at_level(logging.ERROR):
        run.done("a")
        assert len(caplog.records) == 1
        run.done("b")
        run = run.crash(main)
        run.crash(main)
    assert [record.name for record in caplog.records] == ["pyworkflow.workflow"]


def test_a_workflow_logs_what_happens_live_also_when_ends_come_together() -> None:
    seen: list[tuple[str, bool]] = []

    async def follow(ctx: Any, name: str) -> None:
        await a.options(name=name)()
        seen.append((name, ctx.is_replaying))

    async def main(ctx: Any) -> None:
        await asyncio.gather(follow(ctx, "x"), follow(ctx, "y"))
        await b()

    run = Run(main)
    run.lag()
    run.ok("x")
    run.ok("y")
    run.settle()
    assert seen == [("x", False), ("y", False)]


def test_an_error_that_is_not_known_to_the_process_comes_as_its_fallback() -> None:
    async def main() -> Any:
        await a()

    run = Run(main)
    run.fail("a", FatalError("no"))
    run.commit()
    operation = run.service.named("a")[0]
    run.service.operations[operation.id] = replace(operation, error=None)
    run = run.crash(main)
    assert isinstance(run.end, Failed)
    assert type(run.end.error).__name__ == "StepError"


def test_it_works_without_an_observer() -> None:
    async def main() -> Any:
        return await a()

    run = Run(main)
    run.done("a", 1)
    execution = Execution("e", "n", KnownErrors.snapshot())
    execution.start(main, Any, run.service.load())
    assert isinstance(execution.advance().end, type(run.end))
    execution.close()


def test_a_second_difference_does_not_replace_the_first() -> None:
    async def main() -> Any:
        return await a()

    run = Run(main)
    run.done("a")
    operation = run.service.named("a")[0]
    run.service.operations[operation.id] = replace(operation, name="other")
    run = run.crash(main)
    assert isinstance(run.end, Broken)
    first = run.end.error
    assert run.execution.is_broken
    run.execution.break_with(UsageError("second"))  # type: ignore[arg-type]
    end = run.advance().end
    assert isinstance(end, Broken)
    assert end.error is first


# -- facts ---------------------------------------------------------------------------------------


def test_outcomes_of_what_does_not_run_are_dropped() -> None:
    async def main() -> Any:
        return await a()

    run = Run(main)
    call = run.call("a")
    run.execution.resolve(StepReturned("stray", 1, "1", 1))
    run.execution.resolve(StepRaised(call.id, 2, ValueError()))
    run.advance()
    run.done("a", 7)
    assert run.value == 7


def test_what_is_no_fact_changes_nothing() -> None:
    run = Run(fan)
    run.execution.resolve(None)  # type: ignore[arg-type]
    assert run.advance().end is None
    assert run.in_flight is None


def test_history_that_nobody_consumes_ends_the_run() -> None:
    async def main() -> Any:
        return await a()

    async def changed() -> Any:
        return await a.options(key="k")()

    run = Run(main)
    run.done("a")
    run = run.crash(changed)
    assert isinstance(run.end, Broken)
    assert run.launched == []


def test_a_recorded_result_that_no_longer_fits_ends_the_run() -> None:
    @step
    async def number() -> int:
        return 0

    async def main() -> Any:
        return await number()

    run = Run(main)
    run.done("number", 1)
    operation = run.service.named("number")[0]
    run.service.operations[operation.id] = replace(operation, payload='"text"')
    run = run.crash(main)
    assert isinstance(run.end, Broken)
    assert "position 1: The recorded result of Step 'number'" in str(run.end.error)


def test_a_child_that_is_over_admits_nothing_and_leaves_its_tasks_to_the_scope_around() -> None:
    refused: list[str] = []
    unwound: list[str] = []
    tasks: list[asyncio.Task[Any]] = []

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            try:
                await a()
            except UsageError as error:
                refused.append(str(error))
            try:
                await asyncio.Event().wait()
            finally:
                unwound.append("stubborn")

    async def quick() -> None:
        await asyncio.sleep(0)

    @workflow
    async def child() -> None:
        tasks.extend(asyncio.create_task(each()) for each in (quick, stubborn))
        await b()
        raise GeneratorExit  # nothing else leaves a child at once

    async def main() -> Any:
        with contextlib.suppress(GeneratorExit):
            await child()
        await asyncio.sleep(5)

    run = Run(main)
    run.done("b")
    assert len(refused) == 1
    assert "below a child context that is over" in refused[0]
    assert isinstance(run.end, Suspended)
    run.close()
    assert unwound == ["stubborn"]


@pytest.mark.parametrize("is_over", [True, False])
def test_cancelled_blocking_code_abandons_only_what_is_not_over(is_over: bool) -> None:
    async def blocks(future: Any) -> Any:
        return future.result()

    async def main() -> Any:
        future = a.submit()
        task = asyncio.create_task(blocks(future))
        if is_over:
            future.add_done_callback(lambda _: task.cancel())
        await b()
        task.cancel()
        await asyncio.wait([task])
        return [task.cancelled(), future.cancelled()]

    run = Run(main)
    if is_over:
        run.done("a", 1)
    run.ok("b")
    run.settle()
    assert run.cancelled == ([] if is_over else ["a"])
    assert run.value == [True, not is_over]
    assert run.crash(main).value == [True, not is_over]
