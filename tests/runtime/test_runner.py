from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import signal
import threading
import weakref
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow import (
    DeadlockError,
    InputError,
    NonDeterminismError,
    Retry,
    StepInterruptedError,
    WorkflowContext,
    current_step,
    sleep,
    step,
    workflow,
)
from pyworkflow._engine.execution import Execution
from pyworkflow._engine.messages import Broken, Failed, Succeeded, Suspended
from pyworkflow._protocol.executions import ExecutionStatus
from pyworkflow._protocol.records import Action, Operation, OperationType, Status, Update
from pyworkflow.errors import InvalidUpdateError, ServiceUnavailableError, StaleTokenError
from pyworkflow.services.memory import ImmediateMemoryService
from tests.runtime.world import WatchedService, World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyworkflow import SyncWorkflowContext
    from pyworkflow._engine.messages import End
    from pyworkflow._engine.ops.base import Op
    from pyworkflow._engine.scopes import IssuedOperation
    from pyworkflow._protocol.executions import Committed, Page


PATIENCE_SECONDS = 60

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def value_of(end: object) -> Any:
    assert isinstance(end, Succeeded), end
    return end.value


def error_of(end: object) -> BaseException:
    assert isinstance(end, Failed), end
    return end.error


@step
async def double(number: int) -> int:
    return 2 * number


# -- what a checkpoint costs ---------------------------------------------------------------------


def test_a_fast_step_costs_one_checkpoint(world: World) -> None:
    @workflow
    async def main() -> int:
        return await double(4)

    assert value_of(world.run(main)) == 8
    assert world.service.moves() == [
        ["STEP START double", "STEP SUCCEED double"],
        ["EXECUTION SUCCEED"],
    ]


def test_a_timer_that_was_never_needed_costs_nothing(world: World) -> None:
    @workflow
    async def main() -> int:
        async with asyncio.timeout(60):
            return await double(4)

    assert value_of(world.run(main)) == 8
    # Its start rides along, and is no request of its own.
    assert len(world.service.batches) == 2

    @workflow
    async def quick() -> str:
        async with asyncio.timeout(60):
            return "quick"

    world.service.batches.clear()
    assert value_of(world.run(quick)) == "quick"
    assert world.service.moves() == [["EXECUTION SUCCEED"]]


def test_the_start_of_a_long_step_is_written_after_the_lag(world: World) -> None:
    started = asyncio.Event()

    def look(updates: Sequence[Update]) -> None:
        if [(one.type, one.action) for one in updates] == [(OperationType.STEP, Action.START)]:
            started.set()

    world.service.on_commit = look

    @step
    async def long() -> float:
        await started.wait()
        return world.loop.time()

    @workflow
    async def main() -> float:
        return await long()

    assert value_of(world.run(main)) == pytest.approx(0.1)
    assert world.service.moves()[:2] == [["STEP START long"], ["STEP SUCCEED long"]]


def test_the_start_of_an_at_most_once_step_is_durable_before_its_body_runs(world: World) -> None:
    @step(at_most_once=True)
    async def charge() -> str:
        return world.operations()["charge"].status

    @workflow
    async def main() -> str:
        return await charge()

    assert value_of(world.run(main)) == "STARTED"
    assert world.service.moves()[:2] == [["STEP START charge"], ["STEP SUCCEED charge"]]


def test_a_step_that_the_workflow_cancels_is_closed_in_the_history(world: World) -> None:
    ends: list[str] = []

    @step
    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("cancelled")

    @workflow
    async def main() -> str:
        try:
            async with asyncio.timeout(5):
                await forever()
        except TimeoutError:
            assert ends == []  # the body learns it once the code is idle
        return "gave up"

    assert value_of(world.run(main)) == "gave up"
    assert ends == ["cancelled"]
    first, *others = world.service.moves()
    assert sorted(first) == ["STEP START forever", "WAIT START"]
    assert others == [
        [],
        ["STEP FAIL forever"],
        ["EXECUTION SUCCEED"],
    ]


def test_one_checkpoint_at_a_time(world: World) -> None:
    @workflow
    async def main() -> int:
        async def chain(number: int) -> int:
            for _ in range(number % 5):
                number = await double(number)
            return number

        return sum(await asyncio.gather(*map(chain, range(30))))

    assert value_of(world.run(main)) == sum(n * 2 ** (n % 5) for n in range(30))
    assert world.service.most_in_flight == 1
    assert len(world.service.batches) < 15


def test_a_gather_of_250_steps_makes_few_checkpoints(world: World) -> None:
    @workflow
    async def main() -> int:
        return sum(await asyncio.gather(*map(double, range(250))))

    assert value_of(world.run(main)) == 250 * 249
    assert len(world.service.batches) <= 5
    assert max(map(len, world.service.batches)) <= 250


def test_what_gathers_while_a_checkpoint_is_in_flight_goes_with_the_next(world: World) -> None:
    gate = world.service.gates[1] = asyncio.Event()
    done: list[int] = []

    @step
    async def first() -> int:
        return 1

    @step
    async def later(number: int) -> int:
        while not world.service.in_flight:
            await asyncio.sleep(0)
        done.append(number)
        if len(done) == 3:
            gate.set()
        return number

    @workflow
    async def main() -> int:
        return sum(await asyncio.gather(first(), *map(later, range(3))))

    assert value_of(world.run(main)) == 4
    assert [batch[-1] for batch in world.service.moves()[:2]] == [
        "STEP SUCCEED first",
        "STEP SUCCEED later",
    ]
    assert len(world.service.batches) == 3


# -- time ----------------------------------------------------------------------------------------


def test_a_sleep_ends_the_invocation(world: World) -> None:
    @workflow
    def main(ctx: SyncWorkflowContext) -> float:
        begin = ctx.now()
        ctx.sleep("1h")
        return (ctx.now() - begin).total_seconds()

    world.start(main)
    assert isinstance(world.do(world.invoke(main)), Suspended)
    assert world.service.moves() == [["WAIT START"]]
    world.loop.selector.now += 3599
    # Invoked too early, it goes back to sleep and writes nothing.
    assert isinstance(world.do(world.invoke(main)), Suspended)
    assert len(world.service.batches) == 1
    world.loop.selector.now += 1
    assert value_of(world.do(world.invoke(main))) == 3600


def test_a_retry_waits_outside(world: World) -> None:
    attempts: list[tuple[int, float]] = []

    @step(retry=Retry(max_attempts=3, delay=10, backoff=3, jitter=False))
    async def flaky() -> str:
        attempts.append((current_step().attempt, world.loop.time()))
        if len(attempts) < 3:
            raise ConnectionError
        return "there"

    @workflow
    async def main() -> str:
        return await flaky()

    world.start(main)
    assert isinstance(world.do(world.invoke(main)), Suspended)
    record = world.operations()["flaky"]
    assert (record.status, record.attempt) == (Status.PENDING, 1)
    assert record.next_attempt_ms == record.start_ms + 10_000
    world.loop.selector.now += 10
    assert isinstance(world.do(world.invoke(main)), Suspended)
    world.loop.selector.now += 30
    assert value_of(world.do(world.invoke(main))) == "there"
    assert attempts == [(1, 0), (2, 10), (3, 40)]
    assert [batch[0] for batch in world.service.moves()] == [
        "STEP START flaky",
        "STEP START flaky",
        "STEP START flaky",
        "EXECUTION SUCCEED",
    ]


def both_services(world: World, at_once: bool) -> dict[str, Any]:
    return {"service": world.memory} if at_once else {}


@pytest.mark.parametrize("at_once", [False, True])
def test_what_becomes_due_while_a_step_runs_is_asked_for(world: World, at_once: bool) -> None:
    again = asyncio.Event()
    times: list[float] = []

    @step
    async def long() -> None:
        await again.wait()

    @step(retry=Retry(delay=5, jitter=False))
    async def flaky() -> None:
        times.append(world.loop.time())
        if len(times) == 1:
            raise ConnectionError
        again.set()

    @step(retry=Retry(delay=2, jitter=False))
    async def flakier() -> None:
        if current_step().attempt == 1:
            raise ConnectionError

    @workflow
    async def main() -> str:
        await asyncio.gather(long(), flaky(), flakier(), sleep(3))
        return "all"

    world.start(main)
    end = world.do(world.invoke(main, **both_services(world, at_once)))
    assert value_of(end) == "all"  # in one invocation
    assert times == [0, pytest.approx(5, abs=0.01)]
    if not at_once:
        assert world.service.moves().count([]) == 3


def test_a_moment_that_comes_while_a_checkpoint_is_in_flight_asks_nothing(world: World) -> None:
    done = asyncio.Event()

    @step
    async def long() -> None:
        await done.wait()

    @step
    async def slow_to_write() -> None:
        await asyncio.sleep(0.5)

    @workflow
    async def main() -> str:
        async def sleeper() -> None:
            await sleep(1)
            await double(1)
            done.set()

        await asyncio.gather(long(), slow_to_write(), sleeper())
        return "all"

    async def open_late(gate: asyncio.Event) -> None:
        await asyncio.sleep(5)
        gate.set()

    async def invoke() -> object:
        gate = world.service.gates[2] = asyncio.Event()
        opening = asyncio.ensure_future(open_late(gate))
        try:
            return await world.invoke(main)
        finally:
            await opening

    world.start(main)
    assert value_of(world.do(invoke())) == "all"
    assert world.loop.time() >= 5


# -- services that fail --------------------------------------------------------------------------


EACH_BODY = ["load a", "load b", "charge A", "charge B", "load paid A"]


def order_workflow() -> tuple[Any, list[str]]:
    """A workflow with a bit of everything, and the list of the bodies that ran."""
    bodies: list[str] = []

    @step
    async def load(name: str) -> str:
        bodies.append(f"load {name}")
        return name.upper()

    @step(inline=True)
    def charge(name: str) -> str:
        bodies.append(f"charge {name}")
        return f"paid {name}"

    @workflow
    async def main(ctx: WorkflowContext) -> list[str]:
        loaded = await asyncio.gather(load("a"), load("b"))
        ctx.sleep(60)
        async with asyncio.timeout(30):
            paid = [await charge.submit(name) for name in loaded]
        await ship(ctx, paid[0])
        return paid

    @workflow
    async def ship(ctx: WorkflowContext, name: str) -> None:
        ctx.sleep(5)
        await load(name)

    return main, bodies


FAULTS = [StaleTokenError("stale"), InvalidUpdateError("invalid"), RuntimeError("boom")]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("number", range(1, 9))
def test_an_error_of_the_service_ends_the_run_and_leaves_the_history(
    world: World, number: int, fault: BaseException
) -> None:
    main, _ = order_workflow()
    world.service.faults[number] = fault
    with pytest.raises(type(fault)) as caught:
        world.run(main)
    assert caught.value is fault
    assert asyncio.all_tasks(world.loop) == set()
    # Nothing of the refused batch is there, and another process goes on from what is.
    before = world.memory.operations(world.execution_id)
    world.service.faults.clear()
    refused = {one.id for one in world.service.batches[-1]}
    assert not any(one.ended for one in before[1:] if one.id in refused)
    while isinstance(end := world.do(world.invoke(main)), Suspended):
        world.pass_time()
    assert value_of(end) == ["paid A", "paid B"]


def see_to_its_end(world: World, main: Any, **options: Any) -> End:
    """Invoke what has begun until it ends; an invocation that hangs is a `TimeoutError`."""

    async def invoke() -> End:
        # An hour of the jumping loop's.
        return await asyncio.wait_for(world.invoke(main, **options), 3600)

    while isinstance(end := world.do(invoke()), Suspended):
        world.pass_time()
    return end


@pytest.mark.parametrize("number", range(1, 8))
def test_a_checkpoint_that_the_service_cancels_is_an_error_of_the_service(
    world: World, number: int
) -> None:
    main, _ = order_workflow()
    world.service.faults[number] = asyncio.CancelledError("odd")
    world.start(main)

    with pytest.raises(ServiceUnavailableError, match="but the service cancelled it"):
        see_to_its_end(world, main)
    assert asyncio.all_tasks(world.loop) == set()
    assert value_of(see_to_its_end(world, main)) == ["paid A", "paid B"]


@pytest.mark.parametrize("number", range(1, 8))
def test_so_is_one_of_a_service_at_hand(world: World, number: int) -> None:
    main, _ = order_workflow()
    world.start(main)
    memory, commits = world.memory, itertools.count(1)

    class Cancelling:
        async def load(self, execution_id: str, token: str, marker: str) -> Page:
            return await memory.load(execution_id, token, marker)

        async def commit(self, execution_id: str, token: str, updates: Any) -> Committed:
            return self.commit_now(execution_id, token, updates)

        def commit_now(self, execution_id: str, token: str, updates: Any) -> Committed:
            if next(commits) == number:
                raise asyncio.CancelledError("odd")
            return memory.commit_now(execution_id, token, updates)

    service = Cancelling()
    with pytest.raises(ServiceUnavailableError, match="but the service cancelled it"):
        see_to_its_end(world, main, service=service)
    assert value_of(see_to_its_end(world, main, service=service)) == ["paid A", "paid B"]


def test_the_script_above_has_eight_checkpoints(world: World) -> None:
    main, bodies = order_workflow()
    assert value_of(world.run(main)) == ["paid A", "paid B"]
    assert len(world.service.batches) == 8
    assert bodies == EACH_BODY


def test_outcomes_of_one_tick_share_a_checkpoint(world: World) -> None:
    @step()
    async def load(number: int) -> int:
        return number

    @workflow
    async def main() -> int:
        return sum(await asyncio.gather(*(load(number) for number in range(100))))

    assert value_of(world.run(main)) == sum(range(100))
    assert [len(batch) for batch in world.service.batches] == [200, 1]


def test_a_service_sees_nothing_of_the_context_of_a_body(world: World) -> None:
    @step
    async def setting() -> None:
        await asyncio.sleep(0)
        variable.set("by a body")

    @workflow
    async def main() -> None:
        await setting()
        await setting()

    seen: list[str] = []
    world.service.on_commit = lambda _: seen.append(variable.get())
    value_of(world.run(main))
    assert seen == ["unset"] * 3


def test_a_long_row_of_quick_steps_lets_others_have_their_turn(world: World) -> None:
    done: list[int] = []

    @step
    async def quick(i: int) -> int:
        done.append(i)
        return i

    @workflow
    async def main() -> int:
        return sum([await quick(i) for i in range(1000)])

    world.start(main)
    seen: list[int] = []

    async def invoke() -> object:
        run = world.runner(main, service=world.memory)
        driving = asyncio.ensure_future(run.run())
        while not driving.done():
            seen.append(len(done))
            run.look_again()  # in between, too, it takes one thing after another
            await asyncio.sleep(0)
        return await driving

    assert value_of(world.do(invoke())) == sum(range(1000))
    assert done == list(range(1000))
    assert len(set(seen)) > 10


def test_a_service_whose_clock_is_behind_is_asked_now_and_then(world: World) -> None:
    world.memory = ImmediateMemoryService(lambda: world.clock.now_ms() - 5_000)
    world.service = WatchedService(world.memory)

    @step()
    async def work() -> None:
        await asyncio.sleep(60)

    @workflow
    async def main() -> str:
        task = asyncio.create_task(work())
        await sleep(10)
        task.cancel()
        return "slept"

    assert value_of(world.run(main)) == "slept"
    questions = [batch for batch in world.service.batches if not batch]
    assert 2 <= len(questions) <= 12
    assert world.loop.time() < 60


def test_pages_change_nothing() -> None:
    small = World(page_size=1)
    main, bodies = order_workflow()
    assert value_of(small.run(main)) == ["paid A", "paid B"]
    assert bodies == EACH_BODY
    assert small.service.loads > 10
    small.close()


def test_a_stale_process_learns_it_and_stops(world: World) -> None:
    @step
    async def overtaken() -> None:
        world.claim()

    @workflow
    async def main() -> None:
        await overtaken()

    with pytest.raises(StaleTokenError):
        world.run(main)
    assert world.operations() == {}


@pytest.mark.parametrize("ticks", range(4))
def test_an_outcome_that_comes_while_the_run_ends_is_reported_as_lost(
    world: World, ticks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, answer = asyncio.Event(), world.loop.create_future()

    async def commit(*_: object, **__: object) -> object:
        sent.set()
        return await answer

    monkeypatch.setattr(world.service, "commit", commit)

    @step
    async def late() -> None:
        await sent.wait()
        answer.set_exception(StaleTokenError("stale"))
        for _ in range(ticks):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)

    @workflow
    async def main() -> None:
        await late()

    async def invoke() -> tuple[str, ...]:
        run = world.runner(main)
        with pytest.raises(StaleTokenError):
            await run.run()
        return run.unrecorded

    world.start(main)
    assert world.do(invoke()) == ("late",)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("at_once", [False, True])
def test_a_refresh_can_end_the_run(world: World, at_once: bool, fails: bool) -> None:
    @step
    async def long() -> None:
        await asyncio.Event().wait()

    @workflow
    async def main() -> None:
        await asyncio.gather(long(), sleep(1))

    world.start(main)

    async def invoke() -> object:
        running = asyncio.ensure_future(world.invoke(main, **both_services(world, at_once)))
        await asyncio.sleep(0.5)  # the timer is written
        if fails:
            world.claim()
        elif at_once:
            patch.setattr(world.memory, "commit_now", lambda *_: _revoked())
        else:
            world.service.revoke_at = len(world.service.batches) + 1
        return await running

    with pytest.MonkeyPatch.context() as patch:
        if fails:
            with pytest.raises(StaleTokenError):
                world.do(invoke())
        else:
            assert isinstance(world.do(invoke()), Suspended)
    assert world.loop.time() == pytest.approx(1.1, abs=0.01)


def _revoked() -> object:
    from pyworkflow._protocol.executions import Committed

    return Committed(None, ())


@pytest.mark.parametrize("number", range(1, 9))
def test_without_a_further_token_the_run_is_suspended(world: World, number: int) -> None:
    main, bodies = order_workflow()
    world.service.revoke_at = number
    assert value_of(world.run(main)) == ["paid A", "paid B"]
    # A body whose outcome was not written by then runs again; no other does.
    assert list(dict.fromkeys(bodies)) == EACH_BODY
    assert len(bodies) <= len(EACH_BODY) + (number == 1)


def test_a_revoked_run_leaves_its_steps(world: World) -> None:
    ends: list[str] = []

    @step
    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("cancelled")

    @workflow
    async def main() -> None:
        await asyncio.gather(forever(), double(1))

    world.service.revoke_at = 1
    world.start(main)
    assert isinstance(world.do(world.invoke(main)), Suspended)
    assert ends == ["cancelled"]
    assert world.memory.get(world.execution_id).status is ExecutionStatus.RUNNING


# -- ends ----------------------------------------------------------------------------------------


def test_only_run_and_record_writes_the_end(world: World) -> None:
    @workflow
    async def main(fails: bool) -> str:
        if fails:
            raise ValueError("no")
        return "yes"

    for fails in (False, True):
        world.start(main, {"fails": fails})
        end = world.do(world.invoke(main, must_record=lambda _: False))
        assert isinstance(end, Failed if fails else Succeeded)
        summary = world.memory.get(world.execution_id)
        assert summary.status is ExecutionStatus.RUNNING
        world.do(world.invoke(main))
        summary = world.memory.get(world.execution_id)
        assert summary.status is (ExecutionStatus.FAILED if fails else ExecutionStatus.SUCCEEDED)
        assert summary.result == (None if fails else '"yes"')
        if fails:
            assert summary.error is not None
            assert (summary.error.type, summary.error.message) == ("ValueError", "no")


def test_an_input_that_does_not_fit_is_the_end_and_nothing_ran(world: World) -> None:
    @workflow
    async def main(number: int) -> int:
        return await double(number)

    error = error_of(world.run(main, {"number": "four"}))
    assert isinstance(error, InputError)
    assert world.operations() == {}
    assert world.memory.get(world.execution_id).status is ExecutionStatus.FAILED


def test_a_deadlock_is_the_end(world: World) -> None:
    @workflow
    async def main() -> None:
        await asyncio.Event().wait()

    assert isinstance(error_of(world.run(main)), DeadlockError)


def test_history_and_code_that_disagree_record_nothing(world: World) -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> None:
        await double(1)
        ctx.sleep(60)

    @workflow(name="main")
    async def changed(ctx: WorkflowContext) -> None:
        ctx.sleep(60)

    world.start(main)
    world.do(world.invoke(main))
    before = world.memory.operations(world.execution_id)
    end = world.do(world.invoke(changed))
    assert isinstance(end, Broken)
    assert isinstance(end.error, NonDeterminismError)
    assert world.memory.operations(world.execution_id) == before


def test_an_attempt_that_may_run_only_once_is_lost_with_its_process(world: World) -> None:
    calls: list[int] = []

    @step(at_most_once=True)
    async def charge() -> None:
        calls.append(1)
        signal.raise_signal(signal.SIGINT)

    @workflow
    async def main() -> str:
        try:
            await charge()
        except StepInterruptedError as error:
            return str(error)
        return "charged"

    world.start(main)
    with pytest.raises(KeyboardInterrupt):
        world.do(world.invoke(main))
    text = value_of(world.do(world.invoke(main)))
    assert text.startswith("step 'charge' was found started (attempt 1)")
    assert calls == [1]


# -- disposal ------------------------------------------------------------------------------------


def test_a_run_that_is_cancelled_from_outside_cleans_up(world: World) -> None:
    go_on, has_begun = threading.Event(), threading.Event()
    ends: list[str] = []

    @step
    async def on_loop() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ends.append("step")

    @step
    def in_thread() -> None:
        has_begun.set()
        assert go_on.wait(PATIENCE_SECONDS)

    @workflow
    async def main(ctx: WorkflowContext) -> None:
        try:
            await asyncio.gather(on_loop(), in_thread.submit(), sleep("1h"), double(1))
        finally:
            ends.append(f"workflow closing={ctx.is_closing}")

    world.start(main)

    async def invoke_and_cancel() -> None:
        running = asyncio.ensure_future(world.invoke(main))
        await asyncio.sleep(10)
        while not has_begun.is_set():
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    world.do(invoke_and_cancel())
    go_on.set()
    assert ends == ["step", "workflow closing=True"]
    before = world.operations()
    assert before["double"].status is Status.SUCCEEDED
    assert before["on_loop"].status is Status.STARTED


def test_a_run_that_is_cancelled_waits_for_the_checkpoint_in_flight(world: World) -> None:
    @workflow
    async def main() -> int:
        return await double(2)

    world.start(main)

    async def invoke_and_cancel() -> None:
        gate = world.service.gates[1] = asyncio.Event()
        running = asyncio.ensure_future(world.invoke(main))
        await asyncio.sleep(1)
        running.cancel()
        await asyncio.sleep(1)
        assert not running.done()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await running

    world.do(invoke_and_cancel())
    assert value_of(world.do(world.invoke(main))) == 4


@pytest.mark.parametrize("ticks", range(12))
def test_a_run_that_is_cancelled_while_it_is_disposed_of_is_disposed_of(
    world: World, ticks: int
) -> None:
    """At any moment of that: while a body cleans up, and while the frames unwind."""
    seen: list[str] = []

    @step
    async def leaving() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("body")
            for _ in range(4):
                await asyncio.sleep(0)

    @workflow
    def main(ctx: SyncWorkflowContext) -> None:
        try:
            leaving.submit()
            ctx.sleep("1h")
        finally:
            seen.append(f"workflow closing={ctx.is_closing}")

    world.start(main)

    async def invoke_and_cancel() -> None:
        running = asyncio.ensure_future(world.invoke(main))
        await asyncio.sleep(10)
        running.cancel()
        for _ in range(ticks):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await asyncio.sleep(1)  # the body may still be cleaning up

    world.do(invoke_and_cancel())
    assert seen == ["body", "workflow closing=True"]


def test_a_run_that_is_cancelled_before_its_first_turn(world: World) -> None:
    seen: list[str] = []

    @workflow
    async def main() -> None:
        seen.append("ran")

    world.start(main)

    async def invoke_and_cancel() -> None:
        running = asyncio.ensure_future(world.invoke(main))
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    world.do(invoke_and_cancel())
    assert seen == []


class Cancelling:
    """Cancels the runner's task in the middle of a turn, and raises."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Any] | None = None

    def on_issue(self, op: Op) -> None:
        assert self.task is not None
        self.task.cancel()
        raise SystemExit(op.name)

    def on_delivery(self, op: IssuedOperation, record: Operation) -> None:
        """Never comes that far."""

    def on_recall(self, *_: object) -> None:
        """Never comes that far."""


def test_an_error_after_the_end_changes_nothing(world: World) -> None:
    @workflow
    async def main() -> int:
        return await double(2)

    world.start(main)

    async def invoke() -> None:
        observer = Cancelling()
        observer.task = asyncio.ensure_future(world.invoke(main, observer=observer))
        with pytest.raises(asyncio.CancelledError):
            await observer.task

    world.do(invoke())
    assert world.service.batches == []


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_an_exit_fails_the_workflow(world: World, error: BaseException) -> None:
    ends: list[str] = []

    @workflow
    async def main() -> None:
        try:
            await double(1)
            raise error
        finally:
            ends.append("unwound")

    assert error_of(world.run(main)) is error
    assert ends == ["unwound"]
    assert world.memory.get(world.execution_id).status is ExecutionStatus.FAILED


def test_a_signal_ends_the_run_and_nothing_is_recorded_of_it(world: World) -> None:
    ends: list[str] = []

    @workflow
    async def main() -> None:
        try:
            await double(1)
            signal.raise_signal(signal.SIGINT)
        finally:
            ends.append("unwound")

    with pytest.raises(KeyboardInterrupt):
        world.run(main)
    assert ends == ["unwound"]
    assert world.memory.get(world.execution_id).status is ExecutionStatus.RUNNING


def test_an_error_while_the_run_is_disposed_of_is_raised(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = Execution.close

    def close_and_fail(self: Execution) -> None:
        close(self)
        raise MemoryError("while closing")

    monkeypatch.setattr(Execution, "close", close_and_fail)

    @workflow
    def main(ctx: SyncWorkflowContext) -> None:
        ctx.sleep(60)

    world.start(main)
    with pytest.raises(MemoryError, match="while closing"):
        world.do(world.invoke(main))


def test_finally_runs_at_each_disposal_and_records_nothing(world: World) -> None:
    seen: list[tuple[str, bool]] = []

    @workflow
    async def main(ctx: WorkflowContext) -> int:
        try:
            ctx.sleep(60)
            await sleep(60)
            return await double(1)
        finally:
            seen.append(("finally", ctx.is_closing))
            await double(2)
            seen.append(("behind", ctx.is_closing))

    assert value_of(world.run(main)) == 2
    assert seen == [
        ("finally", True),
        ("finally", True),
        ("finally", False),
        ("behind", False),
    ]
    names = [one.name for one in world.memory.operations(world.execution_id)[1:]]
    assert names == [None, None, "double", "double"]


@pytest.mark.parametrize("waits", [False, True])
def test_what_a_run_held_is_free_once_it_is_over(world: World, waits: bool) -> None:
    """By itself: a worker with many executions would else keep them until the collector comes."""
    held: list[weakref.ref[Any]] = []

    @dataclass
    class Parcel:
        number: int

    @step
    async def send(parcel: Parcel) -> int:
        held.append(weakref.ref(parcel))
        if waits:
            await asyncio.sleep(0)
        return parcel.number

    @workflow
    async def main(ctx: WorkflowContext) -> int:
        first = sum(await asyncio.gather(*(send(Parcel(i)) for i in range(3))))
        return first + await ctx.child(lambda: send(Parcel(4)))

    gc.collect()
    gc.disable()
    try:
        assert value_of(world.run(main)) == 7
        assert [reference() for reference in held] == [None] * 4
    finally:
        gc.enable()


def test_except_exception_never_sees_a_suspension(world: World) -> None:
    seen: list[str] = []

    @workflow
    async def main(ctx: WorkflowContext) -> str:
        for blocking in (True, False):
            try:
                if blocking:
                    ctx.sleep(60)
                else:
                    await sleep(60)
            except Exception as error:
                seen.append(repr(error))
        return "slept"

    assert value_of(world.run(main)) == "slept"
    assert seen == []
