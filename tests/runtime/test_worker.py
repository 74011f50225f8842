from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pyworkflow import (
    Retry,
    Step,
    StepInterruptedError,
    SyncWorkflowContext,
    Workflow,
    WorkflowContext,
    sleep,
    step,
    workflow,
)
from pyworkflow._local import heartbeat
from pyworkflow._local.registry import Registry
from pyworkflow._local.worker import Worker, probation_seconds
from pyworkflow._protocol.executions import ExecutionStatus, Invocation
from pyworkflow._protocol.records import ErrorRecord, OperationType, Status
from pyworkflow._runtime.clock import SystemClock
from pyworkflow.errors import InvokeError, RequestRefusedError, ServiceUnavailableError
from pyworkflow.services.sqlite import SqliteService
from tests.runtime.local import ended, future_clock, on_a_loop, opened, troubled, working

RUNNING, SUCCEEDED, FAILED, STOPPED = (
    ExecutionStatus.RUNNING,
    ExecutionStatus.SUCCEEDED,
    ExecutionStatus.FAILED,
    ExecutionStatus.STOPPED,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "executions.db"


class Faulty:
    """A service whose methods can be made to fail once each, before they do anything."""

    def __init__(self, service: SqliteService, **faults: BaseException) -> None:
        self._service = service
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._service, name)
        if name not in self._faults:
            return method

        async def fail(*args: Any, **kwargs: Any) -> Any:
            fault = self._faults.pop(name, None)
            if fault is not None:
                raise fault
            return await method(*args, **kwargs)

        return fail


class Gate:
    """A step body that tells when it runs, and runs until it is let through."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()
        self.passed = 0
        self.was_cancelled = False

    async def go(self) -> str:
        self.entered.set()
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        self.passed += 1
        return "through"


def step_through(gate: Gate) -> Step[[], Coroutine[Any, Any, str]]:
    @step
    async def held() -> str:
        return await gate.go()

    return held


# -- running -------------------------------------------------------------------------------------


@on_a_loop
async def test_many_executions_run_each_step_once(file: Path) -> None:
    bodies: Counter[str] = Counter()

    @step
    async def first(number: int) -> int:
        bodies[f"first {number}"] += 1
        return number

    @step
    def second(number: int) -> int:
        bodies[f"second {number}"] += 1
        return number * 2

    @workflow
    async def main(ctx: WorkflowContext, number: int) -> int:
        got = await first(number)
        await sleep(f"{number + 1}h")
        return second(got)

    clock = future_clock()
    async with opened(file, clock) as service:
        ids = [await service.start("main", str(number)) for number in range(150)]
        async with working(service, main, clock=clock, max_concurrent=40):
            ends = [await ended(service, execution_id) for execution_id in ids]
    assert [end.result for end in ends] == [str(number * 2) for number in range(150)]
    assert set(bodies.values()) == {1}
    assert len(bodies) == 300
    for number, end in enumerate(ends):
        assert end.end_ms is not None
        assert end.end_ms - end.start_ms >= (number + 1) * 3_600_000


@on_a_loop
async def test_no_more_run_at_once_than_allowed(file: Path) -> None:
    running, most = 0, 0

    @step
    async def busy() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    @workflow
    async def main() -> None:
        await busy()

    async with opened(file) as service:
        ids = [await service.start("main", "null") for _ in range(20)]
        async with working(service, main, max_concurrent=3) as worker:
            for execution_id in ids:
                assert (await ended(service, execution_id)).status is SUCCEEDED
                assert len(worker.driven) <= 3
    assert most <= 3


@on_a_loop
async def test_workflows_that_it_does_not_know_are_left_alone(file: Path) -> None:
    @workflow
    async def known() -> None: ...

    clock = future_clock()
    async with opened(file, clock) as service:
        other = await service.start("unknown", "null")
        async with working(service, known, clock=clock):
            await ended(service, await service.start("known", "null"))
        assert (await service.get(other)).status is RUNNING
        assert len(await service.history(other)) == 1


@on_a_loop
async def test_a_workflow_that_is_added_later_runs(file: Path) -> None:
    @workflow
    async def late() -> str:
        return "done"

    async with opened(file) as service:
        execution_id = await service.start("late", "null")
        registry = Registry()
        worker = Worker(service, registry, SystemClock())
        task = asyncio.create_task(worker.run())
        registry.add(late)
        worker.wake()
        assert (await ended(service, execution_id)).result == '"done"'
        worker.stop(0)
        await task


@on_a_loop
async def test_retries_and_waits_of_sync_workflows(file: Path) -> None:
    attempts = 0

    @step(retry=Retry(max_attempts=3, delay="1h", max_delay="1h", jitter=False))
    def flaky() -> int:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise OSError("busy")
        return attempts

    @workflow
    def main(ctx: SyncWorkflowContext) -> int:
        ctx.sleep("1d")
        return flaky()

    clock = future_clock()
    async with opened(file, clock) as service, working(service, main, clock=clock):
        end = await ended(service, await service.start("main", "null"))
    assert end.result == "3"
    assert end.end_ms is not None
    assert end.end_ms - end.start_ms >= 86_400_000 + 2 * 3_600_000


@on_a_loop
async def test_an_invoked_workflow_wakes_the_one_that_waits(file: Path) -> None:
    @workflow
    async def child(ctx: WorkflowContext, number: int) -> int:
        ctx.sleep("1h")
        if number < 0:
            raise ValueError("negative")
        return number + 1

    @workflow
    async def main(ctx: WorkflowContext) -> list[int]:
        numbers = [await ctx.invoke(child, 1), await ctx.invoke("child", 2)]
        with pytest.raises(InvokeError, match="negative"):
            await ctx.invoke(child, -1)
        return numbers

    clock = future_clock()
    async with opened(file, clock) as service, working(service, main, child, clock=clock):
        end = await ended(service, await service.start("main", "null"))
        assert end.result == "[2,3]"
        children = await service.list(workflow_name="child")
    assert Counter(each.status for each in children) == {SUCCEEDED: 2, ExecutionStatus.FAILED: 1}


# -- news ----------------------------------------------------------------------------------------


async def callback_of(service: SqliteService, execution_id: str) -> str:
    """Return the id of the execution's callback once it is open; no service tells that."""
    while True:
        for operation in await service.operations(execution_id):
            if operation.callback_id is not None:
                return operation.callback_id


@workflow
async def waits_for_callback(ctx: WorkflowContext) -> str:
    return str(await ctx.callback("answer", result_type=str).result())


@on_a_loop
async def test_a_callback_that_another_one_completes_wakes_it(file: Path) -> None:
    async with (
        opened(file) as service,
        opened(file) as elsewhere,
        working(service, waits_for_callback),
    ):
        execution_id = await elsewhere.start("waits_for_callback", "null")
        callback_id = await callback_of(elsewhere, execution_id)
        assert await elsewhere.complete_callback(callback_id, '"yes"') == execution_id
        assert (await ended(elsewhere, execution_id)).result == '"yes"'


@on_a_loop
async def test_a_callback_is_told_to_a_run_that_goes_on(file: Path) -> None:
    gate = Gate()
    held = step_through(gate)

    @step
    async def let_through() -> None:
        gate.opened.set()

    @workflow
    async def main(ctx: WorkflowContext) -> list[Any]:
        async def answered() -> str:
            answer = await ctx.callback("answer", result_type=str).result()
            await let_through()
            return answer

        return list(await asyncio.gather(held(), answered()))

    async with opened(file) as service, working(service, main):
        execution_id = await service.start("main", "null")
        await gate.entered.wait()
        await service.complete_callback(await callback_of(service, execution_id), '"yes"')
        assert (await ended(service, execution_id)).result == '["through","yes"]'


@on_a_loop
async def test_a_stop_cancels_what_runs(file: Path) -> None:
    gate = Gate()
    held = step_through(gate)

    @workflow
    async def main() -> str:
        return await held()

    async with opened(file) as service:
        async with working(service, main) as worker:
            execution_id = await service.start("main", "null")
            await gate.entered.wait()
            await service.stop(execution_id, ErrorRecord("enough"))
            while worker.driven:
                await asyncio.sleep(0)
        summary = await service.get(execution_id)
        assert (summary.status, summary.problem) == (STOPPED, None)
    assert gate.was_cancelled


@on_a_loop
async def test_an_execution_that_is_over_its_time_ends_while_it_runs(file: Path) -> None:
    gate = Gate()
    held = step_through(gate)

    @workflow
    async def main() -> str:
        return await held()

    clock = future_clock()
    async with opened(file, clock) as service, working(service, main, clock=clock) as worker:
        execution_id = await service.start("main", "null", timeout_seconds=60)
        await gate.entered.wait()
        clock.advance_to(clock.now_ms() + 61_000)
        worker.wake()
        end = await ended(service, execution_id)
        while worker.driven:
            await asyncio.sleep(0)
    assert end.status is ExecutionStatus.TIMED_OUT
    assert gate.was_cancelled


@on_a_loop
async def test_what_another_worker_took_over_is_dropped(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    held = step_through(gate)

    @workflow
    async def main() -> str:
        return await held()

    caplog.set_level(logging.INFO, "pyworkflow.worker")
    async with opened(file) as service:
        async with working(service, main) as worker:
            execution_id = await service.start("main", "null")
            await gate.entered.wait()
            other = await service.claim(execution_id)
            gate.opened.set()
            while worker.driven:
                await asyncio.sleep(0)
        assert (await service.commit(execution_id, other.token, ())).token is not None
        summary = await service.get(execution_id)
        steps = [each for each in await service.operations(execution_id) if each.name == "held"]
    assert (summary.status, summary.problem) == (RUNNING, None)
    assert [each.status for each in steps] in ([], [Status.STARTED])
    assert "another worker has it" in caplog.text
    (warning,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert "has not recorded is lost: held" in warning.getMessage()


# -- stopping ------------------------------------------------------------------------------------


def two_steps(gate: Gate, bodies: Counter[str], **options: Any) -> Workflow[..., Any]:
    @step(**options)
    async def held() -> str:
        bodies["held"] += 1
        return await gate.go()

    @step
    async def after() -> str:
        bodies["after"] += 1
        return "after"

    @workflow
    async def main() -> list[str]:
        return [await held(), await after()]

    return main


@on_a_loop
async def test_a_graceful_stop_records_the_step_in_flight_and_begins_no_other(file: Path) -> None:
    gate, bodies = Gate(), Counter[str]()
    main = two_steps(gate, bodies)
    async with opened(file) as service:
        execution_id = await service.start("main", "null")
        async with working(service, main) as worker:
            await gate.entered.wait()
            worker.stop(60)
            gate.opened.set()
        summary = await service.get(execution_id)
        assert (summary.status, summary.problem) == (RUNNING, None)
        assert bodies == {"held": 1}
        async with working(service, main):
            assert (await ended(service, execution_id)).result == '["through","after"]'
    assert bodies == {"held": 1, "after": 1}


@on_a_loop
async def test_after_the_grace_a_step_is_cancelled_and_runs_again_next_time(file: Path) -> None:
    gate, bodies = Gate(), Counter[str]()
    main = two_steps(gate, bodies)
    async with opened(file) as service:
        execution_id = await service.start("main", "null")
        async with working(service, main, grace_seconds=0):
            await gate.entered.wait()
        assert gate.was_cancelled
        gate.opened.set()
        async with working(service, main):  # due at once: no lease has to run out
            assert (await ended(service, execution_id)).status is SUCCEEDED
    assert bodies == {"held": 2, "after": 1}


@on_a_loop
async def test_a_step_that_can_not_be_cancelled_does_not_keep_a_worker(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pyworkflow._local.worker.UNWINDING_SECONDS", 0.01)
    monkeypatch.setattr("pyworkflow.services.sqlite._leases.LEASE_MS", 0)
    gate, bodies = Gate(), Counter[str]()

    @step
    async def stubborn() -> str:
        bodies["stubborn"] += 1
        while not gate.passed:
            with suppress(asyncio.CancelledError):
                await gate.go()
        return "done"

    @workflow
    async def main() -> str:
        return await stubborn()

    async with opened(file) as service:
        execution_id = await service.start("main", "null")
        async with working(service, main, grace_seconds=0):
            await gate.entered.wait()
        assert gate.was_cancelled
        assert f"a cancelled step goes on in {execution_id}" in caplog.text
        gate.opened.set()
        async with working(service, main):
            assert (await ended(service, execution_id)).result == '"done"'
    assert bodies == {"stubborn": 2}


@on_a_loop
async def test_at_most_once_is_kept_when_the_grace_is_over(file: Path) -> None:
    gate, bodies = Gate(), Counter[str]()
    main = two_steps(gate, bodies, at_most_once=True)
    async with opened(file) as service:
        execution_id = await service.start("main", "null")
        async with working(service, main, grace_seconds=0):
            await gate.entered.wait()
        gate.opened.set()
        async with working(service, main):
            end = await ended(service, execution_id)
    assert end.error is not None
    assert end.error.type.endswith(StepInterruptedError.__name__)
    assert bodies == {"held": 1}


@on_a_loop
async def test_cancelled_it_hands_back_what_it_drives(file: Path) -> None:
    gate, bodies = Gate(), Counter[str]()
    main = two_steps(gate, bodies)
    async with opened(file) as service:
        execution_id = await service.start("main", "null")
        task = asyncio.create_task(Worker(service, Registry([main]), SystemClock()).run())
        await gate.entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.opened.set()
        async with working(service, main):
            assert (await ended(service, execution_id)).status is SUCCEEDED
    assert bodies == {"held": 2, "after": 1}


# -- trouble -------------------------------------------------------------------------------------


@on_a_loop
async def test_code_that_does_not_fit_is_backed_off_and_goes_on_after_the_fix(file: Path) -> None:
    bodies: Counter[str] = Counter()

    @step
    async def charge() -> str:
        bodies["charge"] += 1
        return "paid"

    @workflow(name="order")
    async def good(ctx: WorkflowContext) -> str:
        paid = await charge()
        return paid + str(await ctx.callback("answer", result_type=str).result())

    @workflow(name="order")
    async def bad(ctx: WorkflowContext) -> str:
        return str(await ctx.callback("answer", result_type=str).result())

    async with opened(file) as service:
        execution_id = await service.start("order", "null")
        async with working(service, good):
            callback_id = await callback_of(service, execution_id)
        await service.complete_callback(callback_id, '"!"')
        async with working(service, bad):
            summary = await troubled(service, execution_id)
        assert summary.status is RUNNING
        assert summary.failed_invocations >= 1
        assert summary.problem is not None
        assert summary.problem.type.endswith("NonDeterminismError")
    clock = future_clock()  # the pause passes at once
    async with opened(file, clock) as service, working(service, good, clock=clock):
        end = await ended(service, execution_id)
    assert (end.result, end.problem, end.failed_invocations) == ('"paid!"', None, 0)
    assert bodies == {"charge": 1}


@on_a_loop
async def test_a_signature_that_fits_no_more_loses_nothing(file: Path) -> None:
    @workflow(name="order")
    async def before(ctx: WorkflowContext, item: str) -> str:
        return item + str(await ctx.callback("answer", result_type=str).result())

    @workflow(name="order")
    async def renamed(ctx: WorkflowContext, product: str) -> str:
        return product

    async with opened(file) as service:
        execution_id = await service.start("order", '{"item": "a"}')
        async with working(service, before):
            callback_id = await callback_of(service, execution_id)
        await service.complete_callback(callback_id, '"!"')
        async with working(service, renamed):
            summary = await troubled(service, execution_id)
    assert summary.status is RUNNING
    assert summary.problem is not None
    assert "item: unexpected" in summary.problem.message
    clock = future_clock()
    async with opened(file, clock) as service, working(service, before, clock=clock):
        assert (await ended(service, execution_id)).result == '"a!"'


@on_a_loop
async def test_an_input_that_never_fit_fails_the_execution(file: Path) -> None:
    @workflow
    async def main(item: str) -> None: ...

    async with opened(file) as service, working(service, main):
        end = await ended(service, await service.start("main", '{"other": 1}'))
    assert end.status is ExecutionStatus.FAILED
    assert end.error is not None
    assert "item: missing" in end.error.message


@on_a_loop
async def test_code_that_calls_exit_fails_its_execution_alone(file: Path) -> None:
    @workflow
    async def exits() -> None:
        sys.exit(3)

    @workflow
    async def stays() -> str:
        return "here"

    async with opened(file) as service, working(service, exits, stays):
        execution_id = await service.start("exits", "null")
        summary = await ended(service, execution_id)
        assert summary.status is FAILED
        assert summary.error is not None
        assert (summary.error.type, summary.error.message) == ("SystemExit", "3")
        assert (await ended(service, await service.start("stays", "null"))).result == '"here"'


@pytest.mark.parametrize("method", ["claim_due", "next_due", "commit", "release"])
def test_a_fault_of_the_service_is_survived(
    file: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr("pyworkflow.services.sqlite._leases.LEASE_MS", 0)

    @step
    async def one() -> int:
        return 1

    @workflow
    async def main(ctx: WorkflowContext) -> int:
        ctx.sleep("1h")
        return await one()

    @on_a_loop
    async def scenario() -> None:
        clock = future_clock()
        async with opened(file, clock) as service:
            faulty = Faulty(service, **{method: ServiceUnavailableError("disk full")})
            async with working(faulty, main, clock=clock):
                end = await ended(service, await service.start("main", "null"))
        assert end.result == "1"

    scenario()


@on_a_loop
async def test_a_service_that_refuses_for_good_ends_the_worker(file: Path) -> None:
    async with opened(file) as service:
        refused = RequestRefusedError("the file is damaged")
        worker = Worker(Faulty(service, claim_due=refused), Registry(), SystemClock())
        with pytest.raises(RequestRefusedError, match="damaged"):
            await worker.run()


# -- leases --------------------------------------------------------------------------------------


@on_a_loop
async def test_a_step_that_blocks_the_loop_keeps_its_lease(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.001)
    renewed: list[list[str]] = []
    enough = threading.Event()

    class Watched(Faulty):
        async def renew(self, owner: str, execution_ids: Any) -> None:
            await self._service.renew(owner, execution_ids)
            renewed.append(list(execution_ids))
            if len(renewed) == 3:
                enough.set()

    @step
    async def blocks() -> bool:
        return enough.wait(60)  # no await: the loop stands still

    @workflow
    async def main() -> bool:
        return await blocks()

    async with opened(file) as service, working(Watched(service), main):
        execution_id = await service.start("main", "null")
        assert (await ended(service, execution_id)).result == "true"
    assert renewed[:3] == [[execution_id]] * 3


@on_a_loop
async def test_an_execution_claimed_anew_ends_the_run_before(file: Path) -> None:
    gate, bodies = Gate(), Counter[str]()
    main = two_steps(gate, bodies)

    class Forgetful(Faulty):
        """Takes the execution for due although its own worker has it: its lease ran out."""

        async def claim_due(self, *args: Any, **kwargs: Any) -> list[Invocation]:
            claimed = list(await self._service.claim_due(*args, **kwargs))
            if not claimed and gate.entered.is_set() and not gate.was_cancelled:
                gate.entered.clear()
                claimed.append(await self._service.claim(execution_id))
            return claimed

    async with opened(file) as service:
        execution_id = await service.start("main", "null")
        async with working(Forgetful(service), main) as worker:
            await gate.entered.wait()
            worker.wake()
            while not gate.was_cancelled:
                await asyncio.sleep(0)
            await gate.entered.wait()
            gate.opened.set()
            assert (await ended(service, execution_id)).status is SUCCEEDED
    assert bodies == {"held": 2, "after": 1}
    assert gate.passed == 1


# -- suspects ------------------------------------------------------------------------------------


async def lost_together(
    service: SqliteService, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Start executions and have the process that ran them die."""
    for number in range(count):
        await service.start("main", str(number))
    with monkeypatch.context() as patch:
        patch.setattr("pyworkflow.services.sqlite._leases.LEASE_MS", 0)
        assert len(await service.claim_due("dead", ["main"], count)) == count


@on_a_loop
async def test_those_that_died_together_run_one_after_the_other(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyworkflow._local.worker.probation_seconds", lambda _: 3600)
    running: set[int] = set()
    order: list[int] = []

    @step
    async def alone(number: int) -> int:
        running.add(number)
        order.append(number)
        if number < 3:
            # One that nobody suspects runs along.
            other = await service.start("main", str(number + 10))
            assert (await ended(service, other)).status is SUCCEEDED
        assert {each for each in running if each < 10} <= {number, number - 10}
        running.discard(number)
        return number

    @workflow
    async def main(number: int) -> int:
        return await alone(number)

    async with opened(file) as service:
        await lost_together(service, monkeypatch, 3)
        async with working(service, main):
            ids = [
                each.id for each in await service.list(payloads=True) if int(each.input_payload) < 3
            ]
            for execution_id in ids:
                assert (await ended(service, execution_id)).status is SUCCEEDED
    assert order == [0, 10, 1, 11, 2, 12]


@on_a_loop
async def test_a_probation_ends_by_time(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[int] = []

    def at_once(number: int) -> int:
        losses.append(number)
        return 0

    monkeypatch.setattr("pyworkflow._local.worker.probation_seconds", at_once)
    gate, entered = asyncio.Event(), asyncio.Event()
    count = 0

    @step
    async def long() -> None:
        nonlocal count
        count += 1
        if count == 3:
            entered.set()
        await gate.wait()

    @workflow
    async def main(number: int) -> None:
        await long()

    async with opened(file) as service:
        await lost_together(service, monkeypatch, 3)
        async with working(service, main):
            await entered.wait()  # all at once: none of them has killed the process
            gate.set()
    assert losses == [1, 1, 1]


def test_a_probation_grows_with_each_loss() -> None:
    assert [probation_seconds(losses) for losses in (1, 2, 3, 9, 10, 1000)] == [
        1,
        2,
        4,
        256,
        300,
        300,
    ]


@on_a_loop
async def test_two_workers_on_one_file_share_the_work(file: Path) -> None:
    bodies: Counter[int] = Counter()

    @step
    async def one(number: int) -> int:
        bodies[number] += 1
        await asyncio.sleep(0)
        return number

    @workflow
    async def main(ctx: WorkflowContext, number: int) -> int:
        got = await one(number)
        await ctx.callback("go").result()
        return await one(got + 100)

    async with (
        opened(file) as first,
        opened(file) as second,
        working(first, main, max_concurrent=4),
        working(second, main, max_concurrent=4),
    ):
        ids = [await first.start("main", str(number)) for number in range(40)]
        for number, execution_id in enumerate(ids):
            service = (first, second)[number % 2]
            await service.complete_callback(await callback_of(service, execution_id), None)
        results = [(await ended(first, execution_id)).result for execution_id in ids]
        kinds = Counter(each.type for each in await first.operations(ids[0]))
    assert results == [str(number + 100) for number in range(40)]
    assert len(bodies) == 80
    assert set(bodies.values()) == {1}
    assert kinds == {OperationType.EXECUTION: 1, OperationType.STEP: 2, OperationType.CALLBACK: 1}
