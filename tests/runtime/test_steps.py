from __future__ import annotations

import asyncio
import contextvars
import gc
import signal
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow import (
    Retry,
    SerializationError,
    StepError,
    StepTimeoutError,
    UsageError,
    current_step,
    step,
    workflow,
)
from pyworkflow._api.body_threads import BODIES
from pyworkflow._engine.messages import Failed, StepCall, Succeeded, Suspended
from pyworkflow._protocol.executions import Committed
from pyworkflow._protocol.records import Status
from pyworkflow._runtime import steps
from pyworkflow._runtime.clock import VirtualClock
from pyworkflow.aws.testing import MockDurableContext, create_test_handler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyworkflow import Step, SyncWorkflowContext
    from pyworkflow._protocol.executions import Page
    from tests.runtime.world import World

PATIENCE_SECONDS = 60
"""How long a test waits for a thread before it gives up."""


def value_of(end: object) -> Any:
    assert isinstance(end, Succeeded), end
    return end.value


def error_of(end: object) -> BaseException:
    assert isinstance(end, Failed), end
    return end.error


async def never() -> None:
    await asyncio.Event().wait()


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadPoolExecutor]:
    """A pool of one thread: the second sync step waits for the first."""
    pool = ThreadPoolExecutor(1)
    monkeypatch.setattr(steps, "_threads", pool)
    yield pool
    pool.shutdown()


# -- timeouts ------------------------------------------------------------------------------------


def test_an_async_step_is_cancelled_at_its_timeout(world: World) -> None:
    seen: list[str] = []

    @step(timeout="90s", retry=False)
    async def slow() -> None:
        try:
            await never()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    @workflow
    async def main() -> None:
        await slow()

    error = error_of(world.run(main))
    assert type(error) is StepTimeoutError
    assert str(error) == "step 'slow' took longer than its timeout of 1m30s (attempt 1)"
    assert seen == ["cancelled"]
    assert world.loop.time() == pytest.approx(90)
    assert world.operations()["slow"].status is Status.FAILED


def test_a_timeout_is_retried(world: World) -> None:
    attempts: list[int] = []

    @step(timeout=1, retry=Retry(max_attempts=2, on=()))
    async def slow_at_first() -> str:
        attempts.append(current_step().attempt)
        if len(attempts) == 1:
            await never()
        return "done"

    @workflow
    async def main() -> str:
        return await slow_at_first()

    assert value_of(world.run(main)) == "done"
    assert attempts == [1, 2]


def test_a_body_that_answers_its_cancellation_has_succeeded(world: World) -> None:
    @step(timeout=1)
    async def graceful() -> str:
        try:
            await never()
        except asyncio.CancelledError:
            pass
        return "half"

    @workflow
    async def main() -> str:
        return await graceful()

    assert value_of(world.run(main)) == "half"


def test_a_timeout_error_of_the_body_is_its_own(world: World) -> None:
    @step(timeout="1h", retry=False)
    async def impatient() -> None:
        async with asyncio.timeout(1):
            await never()

    @step(timeout="1h")
    async def patient() -> int:
        return 1

    @workflow
    async def main() -> int:
        try:
            await impatient()
        except StepTimeoutError:
            return 0
        except TimeoutError:
            return await patient()
        return -1

    assert value_of(world.run(main)) == 1


def test_a_timed_out_sync_step_keeps_its_thread_and_nobody_waits_for_it(
    world: World, threads: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    go_on, has_ended = threading.Event(), threading.Event()

    @step(timeout="5m", retry=False)
    def stuck() -> str:
        try:
            assert go_on.wait(PATIENCE_SECONDS)
            return "too late"
        finally:
            has_ended.set()

    @workflow
    def main(ctx: SyncWorkflowContext) -> str:
        try:
            return stuck()
        except StepTimeoutError as error:
            ctx.sleep("1h")
            return str(error)

    world.start(main)
    assert isinstance(world.do(world.invoke(main)), Suspended)
    assert world.loop.time() == pytest.approx(300, abs=1)
    assert not has_ended.is_set()
    world.loop.selector.now += 3600
    text = value_of(world.do(world.invoke(main)))
    assert text == "step 'stuck' took longer than its timeout of 5m (attempt 1)"
    world.close()
    go_on.set()
    assert has_ended.wait(PATIENCE_SECONDS)
    threads.shutdown()
    assert caplog.records == []


def test_the_late_outcome_of_a_sync_step_is_dropped(world: World) -> None:
    go_on = threading.Event()
    pool = ThreadPoolExecutor(2)

    def body(value: str) -> str:
        assert value == "second" or go_on.wait(PATIENCE_SECONDS)
        return value

    limited = step(timeout=1)(body)
    first = StepCall("id", "body", 1, limited._settings, body, ("first",), {})
    second = StepCall("id", "body", 2, step(body)._settings, body, ("second",), {})
    reports: list[Any] = []

    async def main() -> None:
        runner = steps.StepRunner("execution", world.clock, reports.append)
        runner.launch(first)
        while not reports:
            await asyncio.sleep(1)
        runner.launch(second)
        while len(reports) < 2:
            await asyncio.sleep(1)
        go_on.set()
        pool.shutdown()
        await asyncio.sleep(1)
        await runner.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "_threads", pool)
        world.do(main())
    timed_out, returned = reports
    assert (timed_out.attempt, type(timed_out.error)) == (1, StepTimeoutError)
    assert (returned.attempt, returned.value) == (2, "second")


@pytest.mark.parametrize("is_in_time", [True, False])
def test_the_timeout_of_a_sync_step_counts_from_where_it_has_a_thread(
    world: World, threads: ThreadPoolExecutor, is_in_time: bool
) -> None:
    is_free, go_on = threading.Event(), threading.Event()

    @step
    def holds_the_thread() -> None:
        assert is_free.wait(PATIENCE_SECONDS)

    @step(timeout="10s", retry=False)
    def waits_for_it() -> str:
        assert is_in_time or go_on.wait(PATIENCE_SECONDS)
        return "in time"

    @step
    async def takes_a_minute() -> None:
        await asyncio.sleep(60)
        is_free.set()

    @workflow
    async def main() -> str:
        first, second = holds_the_thread.submit(), waits_for_it.submit()
        await takes_a_minute()
        await first
        return await second

    end = world.run(main)
    go_on.set()
    if is_in_time:
        assert value_of(end) == "in time"
        assert world.loop.time() == pytest.approx(60, abs=1)
    else:
        assert isinstance(error_of(end), StepTimeoutError)
        assert world.loop.time() == pytest.approx(70, abs=1)


def test_a_pool_of_stuck_bodies_is_told_of(
    world: World,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(steps, "BODIES", 1)  # as many as that pool has
    go_on = threading.Event()

    @step(timeout="10s", retry=False)
    def stuck() -> None:
        assert go_on.wait(PATIENCE_SECONDS)

    @workflow
    async def main() -> None:
        stuck()

    assert isinstance(error_of(world.run(main)), StepTimeoutError)
    (warning,) = [each for each in caplog.records if each.name == "pyworkflow.steps"]
    assert "all 1 threads" in warning.getMessage()
    assert "'stuck'" in warning.getMessage()
    go_on.set()
    threads.shutdown()
    assert not steps._overdue.value


def test_a_body_that_begins_when_nobody_wants_it_any_more_has_no_timeout(
    world: World, threads: ThreadPoolExecutor
) -> None:
    class Argument:
        """What is held as long as the attempt is."""

    has_begun, go_on = threading.Event(), threading.Event()
    held: list[weakref.ref[Argument]] = []

    @step(timeout="366d")
    def late(argument: Argument) -> None:
        has_begun.set()
        assert go_on.wait(PATIENCE_SECONDS)

    @step(inline=True)
    def sees_it_begin() -> None:  # the loop, which is told of it, stands still meanwhile
        assert has_begun.wait(PATIENCE_SECONDS)

    @step
    async def takes_a_minute() -> None:
        await asyncio.sleep(60)

    @workflow
    async def main() -> str:
        argument = Argument()
        held.append(weakref.ref(argument))
        begun = late.submit(argument)
        await sees_it_begin.submit()
        begun.cancel()
        await takes_a_minute()
        return "done"

    assert value_of(world.run(main, service=world.memory)) == "done"
    go_on.set()
    threads.shutdown()
    gc.collect()
    assert held[0]() is None


def test_a_sync_step_within_its_timeout() -> None:
    @step(timeout="1h")
    def quick() -> str:
        return "in time"

    @workflow
    def main() -> str:
        return quick()

    assert create_test_handler(main)({}) == "in time"


# -- what a body raises --------------------------------------------------------------------------


class OddError(BaseException):
    pass


def sync_step(error: BaseException) -> Step[[], Any]:
    @step
    def body() -> None:
        raise error

    return body


def inline_step(error: BaseException) -> Step[[], Any]:
    @step(inline=True)
    def body() -> None:
        raise error

    return body


def async_step(error: BaseException) -> Step[[], Any]:
    @step
    async def body() -> None:
        raise error

    return body


ODD = [
    asyncio.CancelledError("odd"),
    GeneratorExit("odd"),
    OddError("odd"),
    StopAsyncIteration("odd"),
]
SYNC_ODD = [*ODD, StopIteration("odd")]
EXITS = [SystemExit("odd"), SystemExit(), KeyboardInterrupt("odd"), KeyboardInterrupt()]


@pytest.mark.parametrize(
    ("make", "error"),
    [(async_step, error) for error in [*ODD, *EXITS]]
    + [(make, error) for make in (sync_step, inline_step) for error in [*SYNC_ODD, *EXITS]],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_whatever_a_body_raises_is_the_steps_failure(
    world: World, make: Callable[[BaseException], Step[[], Any]], error: BaseException
) -> None:
    body = make(error).options(retry=False)

    @workflow
    async def main() -> str:
        try:
            await body.submit()
        except StepError as failure:
            return failure.error_type
        return "nothing was raised"

    name = type(error).__name__
    assert value_of(world.run(main)).rpartition(".")[2] == name
    assert world.operations()["body"].status is Status.FAILED


def test_what_is_no_exception_is_not_retried(world: World) -> None:
    calls: list[int] = []

    @step
    async def odd() -> None:
        calls.append(1)
        raise OddError

    @workflow
    async def main() -> None:
        await odd()

    assert isinstance(error_of(world.run(main)), StepError)
    assert calls == [1]


def test_stop_iteration_from_an_async_body_is_pythons_runtime_error(world: World) -> None:
    @workflow
    async def main() -> None:
        await async_step(StopIteration("odd")).options(retry=False)()

    error = error_of(world.run(main))
    assert isinstance(error, RuntimeError)
    assert "StopIteration" in str(error)


@pytest.mark.parametrize("how", ["at once", "later", "in a task", "inline"])
@pytest.mark.parametrize("kind", ["default", "raises", "exits", "leaves"])
def test_a_signal_ends_the_call_and_not_the_step(how: str, kind: str) -> None:
    ends: list[str] = []

    def handle(*_: object) -> None:
        if kind == "exits":
            sys.exit(3)
        raise KeyboardInterrupt if kind == "raises" else OddError("by a handler")

    async def later() -> None:
        await asyncio.sleep(0)
        signal.raise_signal(signal.SIGINT)

    @step(inline=True)
    def inline() -> None:
        signal.raise_signal(signal.SIGINT)

    @step
    async def interrupted() -> None:
        match how:
            case "at once":
                signal.raise_signal(signal.SIGINT)
            case "later":
                await later()
            case _:
                await asyncio.gather(later(), asyncio.sleep(60))

    body: Any = inline.submit if how == "inline" else interrupted

    @step
    async def neighbour() -> None:
        try:
            await never()
        finally:
            ends.append("neighbour")

    @workflow
    async def main() -> None:
        try:
            await asyncio.gather(neighbour(), body())
        finally:
            ends.append("workflow")

    mock = MockDurableContext()
    former = signal.getsignal(signal.SIGINT)
    if kind != "default":
        signal.signal(signal.SIGINT, handle)
    try:
        with pytest.raises((KeyboardInterrupt, SystemExit, OddError)):
            create_test_handler(main, mock)({})
    finally:
        signal.signal(signal.SIGINT, former)
    # An inline body runs before its neighbour has begun.
    assert sorted(ends) == (["workflow"] if how == "inline" else ["neighbour", "workflow"])
    assert mock.checkpoints == {}
    assert "StepFailed" not in [event.type for event in mock.history()]


# -- values --------------------------------------------------------------------------------------


def test_a_value_that_cannot_be_stored_is_told_at_once_and_not_retried(world: World) -> None:
    calls: list[str] = []

    @step
    def sync_bad() -> dict[str, Any]:
        calls.append("sync")
        return {"items": [1, {2, 3}, object()]}

    @step
    async def async_bad() -> Any:
        calls.append("async")
        return [float("nan")]

    @workflow
    async def main() -> list[str]:
        paths = []
        for bad in (sync_bad.submit, async_bad):
            with pytest.raises(SerializationError) as caught:
                await bad()
            paths.append(f"{caught.value.path} {caught.value}")
        return paths

    first, second = value_of(world.run(main))
    assert first.startswith("$.items[2] The result of step 'sync_bad' can't be stored")
    assert second.startswith("$[0] The result of step 'async_bad' can't be stored")
    assert calls == ["sync", "async"]


def test_a_value_that_does_not_fit_its_annotation_is_told_at_once(world: World) -> None:
    calls: list[int] = []

    @step
    async def wrong() -> list[int]:
        calls.append(1)
        return [1, "two"]  # type: ignore[list-item]

    @workflow
    async def main() -> None:
        await wrong()

    error = error_of(world.run(main))
    assert isinstance(error, SerializationError)
    assert error.path == "$[1]"
    assert "The result of step 'wrong' does not fit its type list[int]" in str(error)
    assert calls == [1]
    assert world.operations()["wrong"].status is Status.FAILED


def test_the_workflow_receives_the_decoded_copy(world: World) -> None:
    made: list[list[int]] = []

    @step
    async def make() -> tuple[int, ...]:
        made.append([1, 2])
        return made[0]  # type: ignore[return-value]

    @workflow
    async def main() -> bool:
        got = await make()
        made[0].append(3)
        return got == (1, 2)

    assert value_of(world.run(main)) is True


def test_an_annotation_of_no_use_is_told_before_the_body_runs(world: World) -> None:
    calls: list[str] = []

    @step(retry=False)
    def sync_step() -> Callable[[], int]:
        calls.append("sync")
        return lambda: 1

    @step(retry=False)
    async def async_step() -> Callable[[], int]:
        calls.append("async")
        return lambda: 1

    @workflow
    async def main() -> None:
        for each in (sync_step, async_step):
            with pytest.raises(UsageError, match=each.name):
                await each.submit()

    value_of(world.run(main))
    assert calls == []


# -- threads -------------------------------------------------------------------------------------


def test_sync_steps_run_at_the_same_time(world: World) -> None:
    barrier = threading.Barrier(8, timeout=PATIENCE_SECONDS)

    @step
    def meet(number: int) -> int:
        barrier.wait()
        return number

    @workflow
    async def main() -> list[int]:
        return await asyncio.gather(*(meet.submit(number) for number in range(8)))

    assert value_of(world.run(main)) == list(range(8))


def test_a_thousand_sync_steps() -> None:
    seen: set[threading.Thread] = set()

    @step
    def double(number: int) -> int:
        seen.add(threading.current_thread())
        return 2 * number

    @workflow
    async def main() -> int:
        return sum(await asyncio.gather(*(double.submit(number) for number in range(1000))))

    assert create_test_handler(main)({}) == 999_000
    assert threading.current_thread() not in seen
    assert 1 <= len(seen) <= BODIES


def test_an_inline_step_runs_on_the_loops_thread(world: World) -> None:
    @step(inline=True)
    def where() -> bool:
        return threading.current_thread() is threading.main_thread() and (
            asyncio.get_running_loop() is world.loop
        )

    @workflow
    def main() -> bool:
        return where()

    assert value_of(world.run(main)) is True


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def test_bodies_see_the_callers_context_and_do_not_change_it() -> None:
    def look() -> str:
        seen = variable.get()
        variable.set("by a body")
        return f"{seen} {current_step().name}"

    @step
    def in_thread() -> str:
        return look()

    @step
    async def on_loop() -> str:
        return look()

    @step(inline=True)
    def inline() -> str:
        return look()

    @workflow
    async def main() -> list[str]:
        return [in_thread(), await on_loop(), inline(), in_thread()]

    def call() -> object:
        variable.set("by the caller")
        return create_test_handler(main)({})

    assert contextvars.copy_context().run(call) == [
        f"by the caller {name}" for name in ("in_thread", "on_loop", "inline", "in_thread")
    ]
    with pytest.raises(UsageError, match="outside of a step"):
        current_step()


@pytest.mark.parametrize("at_once", [False, True])
def test_what_a_body_that_waited_set_in_its_context_no_later_body_sees(
    world: World, at_once: bool
) -> None:
    @step
    async def setting() -> str:
        await asyncio.sleep(0)
        variable.set("by a body")
        await asyncio.sleep(0)
        return variable.get()

    @step
    async def on_loop() -> str:
        return variable.get()

    @step
    def in_thread() -> str:
        return variable.get()

    @step(inline=True)
    def inline() -> str:
        return variable.get()

    @workflow
    async def main() -> list[str]:
        seen = [await setting()]
        return [*seen, await on_loop(), inline(), in_thread()]

    options = {"service": world.memory} if at_once else {}
    assert value_of(world.run(main, **options)) == ["by a body", "unset", "unset", "unset"]


def test_virtual_time_stands_still_while_a_body_runs() -> None:
    clock = VirtualClock(0)
    rung: list[str] = []
    reports: list[Any] = []

    async def body() -> None:
        await never()

    async def main() -> None:
        runner = steps.StepRunner("execution", clock, reports.append)
        for name in ("a", "b"):
            runner.launch(StepCall(name, name, 1, step(body)._settings, body, (), {}))
        clock.call_at(10, lambda: rung.append("alarm"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        runner.cancel("a")
        await asyncio.sleep(0)
        assert rung == []
        # A double whose bodies let time pass releases the clock for itself.
        runner.release_clock(runner._running["b"])
        await asyncio.sleep(0)
        assert rung == ["alarm"]
        runner.cancel("b")
        clock.hold()
        clock.call_at(20, lambda: rung.append("held"))
        await runner.close()
        assert rung == ["alarm"]

    asyncio.run(main())
    assert reports == []


# -- cancellation and closing --------------------------------------------------------------------


def test_a_cancelled_async_body_is_seen_to_its_end(world: World) -> None:
    seen: list[str] = []

    @step
    async def slow() -> None:
        seen.append("begun")
        try:
            await never()
        finally:
            for _ in range(50):
                await asyncio.sleep(0)
            seen.append("cleaned up")

    @step
    async def quick() -> int:
        return 1

    @workflow
    async def main() -> int:
        losing = asyncio.create_task(slow())
        value = await quick()
        losing.cancel()
        return value

    assert value_of(world.run(main)) == 1
    assert seen == ["begun", "cleaned up"]


def test_a_sync_body_without_a_thread_never_begins_once_the_run_is_over(
    world: World, threads: ThreadPoolExecutor
) -> None:
    go_on = threading.Event()
    begun: list[str] = []

    @step
    def body(name: str) -> None:
        begun.append(name)
        assert go_on.wait(PATIENCE_SECONDS)

    @step
    async def is_ready() -> None:
        while not begun:
            await asyncio.sleep(0)

    @workflow
    async def main() -> None:
        first, second = body.submit("first"), body.submit("second")
        await is_ready()
        raise ValueError(f"{first.done()} {second.done()}")

    assert str(error_of(world.run(main))) == "False False"
    go_on.set()
    threads.shutdown()
    assert begun == ["first"]


@pytest.mark.parametrize("is_inline", [False, True])
def test_no_body_begins_once_the_service_gave_no_further_token(
    world: World, is_inline: bool
) -> None:
    begun: list[str] = []

    @step(at_most_once=True)
    async def careful() -> None:
        begun.append("careful")

    def plain() -> None:
        begun.append("plain")

    async def on_loop() -> None:
        plain()

    body: Any = step(inline=True)(plain) if is_inline else step(on_loop)

    @workflow
    async def main() -> None:
        await asyncio.gather(careful(), body.submit())

    class Revoking:
        """It has the careful step's start, and wants no more of this invocation."""

        async def load(self, *_: object) -> Page:
            raise AssertionError("the history is on the first page")

        async def commit(self, *_: object) -> Committed:
            raise AssertionError("it answers at once")

        def commit_now(self, *_: object) -> Committed:
            return Committed(None, ())

    world.start(main)
    assert isinstance(world.do(world.invoke(main, service=Revoking())), Suspended)
    assert begun == []


def test_a_body_that_does_not_wait_is_over_when_it_was_launched(world: World) -> None:
    reports: list[Any] = []

    @step
    async def on_loop(i: int) -> int:
        return i

    @step(inline=True)
    def inline(i: int) -> int:
        return i

    @step
    async def failing(i: int) -> int:
        raise ValueError(i)

    @step
    async def waiting(i: int) -> int:
        await asyncio.sleep(0)
        return i

    async def main() -> list[Any]:
        runner = steps.StepRunner("execution", world.clock, reports.append)
        found: list[Any] = []

        def launch() -> None:
            for i, body in enumerate((on_loop, inline, failing, waiting)):
                call = StepCall(str(i), "body", 1, body._settings, body._function, (i,), {})
                found.append(runner.launch(call))
            found.append(runner.are_idle)

        world.loop.call_soon(launch)
        while not reports:
            await asyncio.sleep(0)
        assert runner.are_idle
        return found

    first, second, third, fourth, was_idle = world.do(main())
    assert [first.value, second.value, fourth, was_idle] == [0, 1, None, False]
    assert repr(third.error) == "ValueError(2)"
    assert [report.value for report in reports] == [3]
