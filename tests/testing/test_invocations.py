from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow import (
    DeadlockError,
    StepInterruptedError,
    UsageError,
    WorkflowContext,
    current_step,
    step,
    workflow,
)
from pyworkflow._engine.messages import Succeeded, Suspended
from pyworkflow._protocol.records import Action, OperationType, Update
from pyworkflow._runtime.clock import VirtualClock
from pyworkflow.aws.testing import MockDurableContext, create_test_handler
from pyworkflow.services.memory import ImmediateMemoryService
from pyworkflow.testing._invocations import CrashingService, InvocationLoop, SimulatedCrashError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyworkflow._engine.messages import End
    from pyworkflow._protocol.executions import Invocation


# -- crashes -------------------------------------------------------------------------------------


class Shop:
    """A workflow of all that there is, and the bodies that ran."""

    def __init__(self) -> None:
        self.bodies: list[str] = []
        self.mock = MockDurableContext()

        def ran(what: str) -> None:
            mine = current_step().operation_id
            assert not any(op.ended for op in self.mock.operations if op.id == mine)
            self.bodies.append(what)

        @step
        async def load(name: str) -> str:
            ran(f"load {name}")
            return name.upper()

        @step
        def charge(name: str) -> str:
            ran(f"charge {name}")
            return f"paid {name}"

        @workflow
        async def ship(ctx: WorkflowContext, name: str) -> str:
            ctx.sleep(5)
            return f"sent {await load(name)}"

        @workflow
        async def main(ctx: WorkflowContext) -> list[str]:
            loaded = await asyncio.gather(load("a"), load("b"))
            ctx.sleep(60)
            paid = [charge(name) for name in loaded]
            number = ctx.random.randrange(1000)
            return [*paid, await ship(ctx, loaded[0]), str(number), str(ctx.now())]

        self.main = main


def test_a_crash_at_any_checkpoint_changes_nothing() -> None:
    calm = Shop()
    mock = calm.mock
    expected = create_test_handler(calm.main, mock)({})
    operations = [(op.id, op.name, op.status, op.payload) for op in mock.operations]
    for number in range(1, 15):
        shop = Shop()
        crashing = shop.mock
        crashing.crash_after(number)
        assert create_test_handler(shop.main, crashing)({}) == expected
        found = [(op.id, op.name, op.status, op.payload) for op in crashing.operations]
        assert found == operations
        assert list(dict.fromkeys(shop.bodies)) == calm.bodies
        assert crashing.checkpoints == mock.checkpoints
        assert crashing.invocations <= mock.invocations + 1


def test_a_crash_that_never_comes_can_be_told_from_one_that_came() -> None:
    mock = MockDurableContext()
    handler = create_test_handler(Shop().main, mock)
    assert mock.crashes == 0
    mock.crash_after(1)
    mock.crash_after(2)
    mock.crash_after(1000)
    for _ in range(2):  # it is that of the last execution
        handler({})
        assert mock.crashes == 2


def test_the_end_of_an_execution_is_no_checkpoint_that_it_could_die_after() -> None:
    found: list[int] = []
    for number in itertools.count(1):
        mock = MockDurableContext()
        mock.crash_after(number)
        create_test_handler(Shop().main, mock)({})
        found.append(mock.crashes)
        if not mock.crashes:
            break
    assert len(found) > 5
    assert found == [1] * (len(found) - 1) + [0]


def test_crashes_at_every_checkpoint_at_once() -> None:
    shop = Shop()
    mock = shop.mock
    for number in range(1, 30):
        mock.crash_after(number)
    result = create_test_handler(shop.main, mock)({})
    assert result[:3] == ["paid A", "paid B", "sent A"]
    assert list(dict.fromkeys(shop.bodies)) == [
        "load a",
        "load b",
        "charge A",
        "charge B",
        "load A",
    ]
    assert mock.invocations > 5


def test_a_crash_between_start_and_end_runs_the_body_again() -> None:
    attempts: list[int] = []

    @step
    async def long() -> str:
        attempts.append(current_step().attempt)
        if len(attempts) == 1:
            await asyncio.Event().wait()
        return "done"

    @step
    async def quick() -> str:
        return "quick"

    @workflow
    async def main() -> list[str]:
        return list(await asyncio.gather(long(), quick()))

    mock = MockDurableContext()
    # The first checkpoint holds the end of the quick step, and the start of the long one.
    mock.crash_after(1)
    assert create_test_handler(main, mock)({}) == ["done", "quick"]
    assert attempts == [1, 1]  # the same attempt
    assert mock.invocations == 2
    types = [f"{event.type} {event.name}" for event in mock.history() if event.name]
    assert types.count("StepStarted long") == types.count("StepSucceeded long") == 1


def test_a_crash_between_start_and_end_is_the_end_of_what_may_run_once() -> None:
    calls: list[int] = []

    @step(at_most_once=True)
    async def charge() -> None:
        calls.append(1)

    @workflow
    async def main() -> str:
        try:
            await charge()
        except StepInterruptedError:
            return "who knows"
        return "charged"

    mock = MockDurableContext()
    mock.crash_after(1)
    assert create_test_handler(main, mock)({}) == "who knows"
    assert calls == []
    assert mock.checkpoints == {}


def test_the_crashing_service_counts_over_the_execution() -> None:
    async def main() -> None:
        service = ImmediateMemoryService(lambda: 1000, page_size=1)
        crashing = CrashingService(service, [2, 3])
        execution_id = service.start("greet", "1")
        updates = [
            Update(id=name, type=OperationType.STEP, action=Action.START, name=name)
            for name in "abc"
        ]
        answer = await crashing.commit(execution_id, service.claim(execution_id).token, updates[:2])
        assert answer.token is not None
        assert answer.marker is not None
        page = await crashing.load(execution_id, answer.token, answer.marker)
        assert [one.id for one in page.operations] == ["b"]
        with pytest.raises(SimulatedCrashError):
            await crashing.commit(execution_id, answer.token, updates[2:])
        assert [one.id for one in service.operations(execution_id)[1:]] == ["a", "b", "c"]
        end = Update(
            id=execution_id, type=OperationType.EXECUTION, action=Action.SUCCEED, payload="1"
        )
        # Nothing that a crash could interrupt comes after the end.
        last = await crashing.commit(execution_id, service.claim(execution_id).token, [end])
        assert last.token is None
        assert crashing.commits == 3

    asyncio.run(main())


# -- invocations ---------------------------------------------------------------------------------


class Script:
    """Makes runners that end as it is told."""

    def __init__(self, *ends: End | BaseException) -> None:
        self._ends = list(ends)

    def runner_for(self, invocation: Invocation) -> Any:
        return self

    async def run_and_record(self) -> End:
        end = self._ends.pop(0)
        if isinstance(end, BaseException):
            raise end
        return end


def drive(
    script: Script, prepare: Callable[[ImmediateMemoryService, str], None], most: int = 10
) -> tuple[Any, int, int]:
    """Return the end, the number of invocations and the milliseconds that passed."""
    clock = VirtualClock(0)
    service = ImmediateMemoryService(clock.now_ms)
    execution_id = service.start("greet", "1")
    prepare(service, execution_id)
    invoked: list[int] = []
    invocations = InvocationLoop(service, script.runner_for, clock, most, lambda: invoked.append(1))
    end = asyncio.run(invocations.run_to_end(execution_id))
    return end, len(invoked), clock.now_ms()


def commit(service: ImmediateMemoryService, execution_id: str, *updates: Update) -> None:
    token = service.claim(execution_id).token
    asyncio.run(service.commit(execution_id, token, updates))


def wait_7(service: ImmediateMemoryService, execution_id: str) -> None:
    wait = Update(id="w", type=OperationType.WAIT, action=Action.START, wait_seconds=7)
    commit(service, execution_id, wait)


def test_time_jumps_to_what_is_due_next() -> None:
    done = Succeeded("1", 1)
    assert drive(Script(Suspended(), done), wait_7) == (done, 2, 7_000)


def test_a_crash_is_followed_by_another_invocation_at_once() -> None:
    done = Succeeded("1", 1)
    assert drive(Script(SimulatedCrashError(), done), wait_7) == (done, 2, 0)


def test_a_workflow_for_which_nothing_is_due_cannot_go_on() -> None:
    def prepare(service: ImmediateMemoryService, execution_id: str) -> None:
        commit(
            service,
            execution_id,
            Update(id="k", type=OperationType.CALLBACK, action=Action.START, name="approval"),
            Update(
                id="s", type=OperationType.STEP, action=Action.SUCCEED, payload="1", name="over"
            ),
        )

    with pytest.raises(DeadlockError) as caught:
        drive(Script(Suspended()), prepare)
    assert str(caught.value) == (
        "the workflow can't go on, for nothing is due. It waits for\n  CALLBACK approval: STARTED"
    )


def test_it_never_spins() -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> None:
        while True:
            ctx.sleep("1d")

    mock = MockDurableContext(max_invocations=5)
    with pytest.raises(UsageError, match="did not end within 5 invocations.*max_invocations="):
        create_test_handler(main, mock)({})
    assert mock.invocations == 5
    assert mock.wait_count == 5


# -- deadlocks -----------------------------------------------------------------------------------


def deadlock_of(wait: Callable[[], Any], name: str | None = None) -> str:
    @workflow
    async def main() -> None:
        await wait()

    with pytest.raises(DeadlockError) as caught:
        create_test_handler(main)({})
    return str(caught.value)


async def on_future() -> None:
    await asyncio.get_running_loop().create_future()


async def on_queue() -> None:
    await asyncio.Queue[int]().get()


async def on_event() -> None:
    await asyncio.Event().wait()


async def on_gather() -> None:
    await asyncio.gather(on_queue(), on_event())


async def on_task() -> None:
    await asyncio.create_task(on_event(), name="the waiter")


@pytest.mark.parametrize(
    ("wait", "words"),
    [
        (on_future, ["in on_future, awaits", "a future that nobody completes"]),
        (on_queue, ["Queue.get"]),
        (on_event, ["Event.wait"]),
        (on_gather, ["on_gather", "Queue.get", "Event.wait"]),
        (on_task, ["on_task", "awaits the waiter", "  the waiter: ", "Event.wait"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_deadlock_report_names_what_each_task_awaits(
    wait: Callable[[], Any], words: list[str]
) -> None:
    text = deadlock_of(wait)
    assert text.startswith("the workflow awaits something that can never happen")
    assert "  task main: " in text
    for word in words:
        assert word in text
