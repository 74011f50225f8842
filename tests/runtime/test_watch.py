"""A worker's loop that does not answer: what is said, kept, and handed back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from pyworkflow import SyncWorkflowContext, WorkflowContext, step, workflow
from pyworkflow._engine.messages import OutOfTime, Succeeded
from pyworkflow._local import heartbeat
from pyworkflow._local.watch import Watch
from pyworkflow._protocol.executions import ExecutionStatus, ExecutionSummary, Invocation
from pyworkflow._protocol.records import ErrorRecord
from pyworkflow._runtime.clock import SystemClock
from pyworkflow._runtime.runner import Runner
from pyworkflow._values.exceptions import KnownErrors
from pyworkflow.services.sqlite import SqliteService
from tests.runtime.local import PATIENCE, ended, on_a_loop, opened, until, working

SUCCEEDED = ExecutionStatus.SUCCEEDED


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "executions.db"


@pytest.fixture(autouse=True)
def _beats_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.01)


class Attended:
    """A service that looks around, on the heartbeat's thread, once a frozen loop was dealt with.

    That is after the first beat at which the report held a text: a slow machine may have others.
    """

    def __init__(
        self,
        service: SqliteService,
        text: str = "",
        look: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._service = service
        self._text = text
        self._look = look
        self._said = ""
        self.thawed = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._service, name)

    async def report(self, owner: str, report: ErrorRecord | None) -> None:
        await self._service.report(owner, report)
        self._said = "" if report is None else report.message

    async def leased_by(self, owner: str, *, late: bool = False) -> Sequence[tuple[str, int]]:
        is_last = late  # of what is asked for at a beat
        if is_last and self._look and self._text in self._said and not self.thawed.is_set():
            await self._look()
            self.thawed.set()
        return await self._service.leased_by(owner, late=late)


@step
async def blocks() -> str:
    assert thawed.wait(PATIENCE)  # no await: the loop stands still
    return "blocked"


@step(inline=True)
def blocks_inline() -> str:
    assert thawed.wait(PATIENCE)
    return "blocked"


@workflow
async def in_a_step() -> str:
    return await blocks()


@workflow
async def in_an_inline_step() -> str:
    return blocks_inline()


@workflow
async def in_async_code() -> str:
    assert thawed.wait(PATIENCE)
    return "blocked"


@workflow
def in_blocking_code(ctx: SyncWorkflowContext) -> str:
    assert thawed.wait(PATIENCE)
    return "blocked"


thawed = threading.Event()


@pytest.mark.parametrize(
    ("main", "what"),
    [
        (in_a_step, "step 'blocks' of execution 'one' of 'in_a_step'"),
        (in_an_inline_step, "step 'blocks_inline' of execution 'one' of 'in_an_inline_step'"),
        (in_async_code, "code of execution 'one' of 'in_async_code'"),
        (in_blocking_code, "code of execution 'one' of 'in_blocking_code'"),
    ],
)
def test_what_keeps_the_loop_is_named(
    file: Path, caplog: pytest.LogCaptureFixture, main: Any, what: str
) -> None:
    seen: list[ExecutionSummary] = []

    @on_a_loop
    async def scenario() -> None:
        async with opened(file) as service:

            async def look() -> None:
                seen.extend(await service.list())

            attended = Attended(service, f": {what} blocks it", look)
            globals()["thawed"] = attended.thawed
            async with working(attended, main) as worker:
                execution_id = await service.start(main.name, "null", execution_name="one")
                end = await ended(service, execution_id)
                while "answers again" not in caplog.text:
                    await asyncio.sleep(0)
            assert (end.result, end.problem) == ('"blocked"', None)
            assert worker.owner in caplog.text

    scenario()
    (summary,) = seen
    assert summary.problem is not None
    assert summary.problem.type == "WorkerFrozen"
    assert f": {what} blocks it" in summary.problem.message
    assert "thawed.wait" in "".join(summary.problem.stack_trace)
    assert "StepRunner" not in "".join(summary.problem.stack_trace)
    (warning,) = [each.getMessage() for each in caplog.records if what in each.getMessage()]
    assert "thawed.wait" in warning  # and it is said once, not at each beat


def test_code_of_others_may_keep_the_loop(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    @on_a_loop
    async def scenario() -> None:
        async with opened(file) as service:

            async def look() -> None: ...

            attended = Attended(service, "code that belongs to no execution", look)
            async with working(attended):
                await asyncio.sleep(0)
                assert attended.thawed.wait(PATIENCE)

    scenario()
    assert "code that belongs to no execution blocks it" in caplog.text


def test_what_has_no_body_is_handed_back_and_what_has_one_is_kept(file: Path) -> None:
    bodies: list[str] = []
    taken: list[Invocation] = []

    @step
    async def waits(name: str) -> str:
        bodies.append(name)
        await asyncio.to_thread(attended.thawed.wait, PATIENCE)
        return name

    @step
    async def freezes() -> None:
        assert attended.thawed.wait(PATIENCE)

    @workflow
    async def victim(name: str) -> str:
        return await waits(name)

    @workflow
    async def frozen() -> None:
        await freezes()

    @workflow
    async def idle() -> str:
        return "idle"

    attended: Attended

    @on_a_loop
    async def scenario() -> None:
        nonlocal attended
        async with opened(file) as service, opened(file) as other:

            async def look() -> None:
                # Its owner has not taken the answer of this claim, as far as its heartbeat knows.
                taken.extend(await other.claim_due("other", ["victim", "frozen", "idle"], 9))

            attended = Attended(service, "'freezes'", look)
            async with working(attended, victim, frozen) as worker:
                kept = await service.start("victim", '"a"')
                while not bodies:
                    await asyncio.sleep(0)
                await service.start("idle", "null")
                claimed = await service.claim_due(worker.owner, ["idle"], 1, keep=True)
                freezing = await service.start("frozen", "null")
                for execution_id in (kept, freezing):
                    assert (await ended(service, execution_id)).status is SUCCEEDED
        assert [each.execution_id for each in taken] == [claimed[0].execution_id]
        assert taken[0].losses == 0
        assert bodies == ["a"]

    scenario()


def test_what_is_taken_from_a_frozen_worker_is_logged_there(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @step
    async def waits() -> None:
        running.set()
        await gate.wait()

    @step
    async def freezes() -> None:
        assert attended.thawed.wait(PATIENCE)

    @workflow
    async def victim() -> None:
        await waits()

    @workflow
    async def frozen() -> None:
        await freezes()

    class Releasing(Attended):
        async def leased_by(self, owner: str, *, late: bool = False) -> Sequence[tuple[str, int]]:
            if "'freezes'" in self._said and not taken:
                taken.append((await self._service.revoke(victims[0])).id)
            return await super().leased_by(owner, late=late)

    victims: list[str] = []
    taken: list[str] = []
    attended: Attended
    running: asyncio.Event
    gate: asyncio.Event

    @on_a_loop
    async def scenario() -> None:
        nonlocal attended, running, gate
        running, gate = asyncio.Event(), asyncio.Event()
        async with opened(file) as service:

            async def look() -> None: ...

            attended = Releasing(service, "'freezes'", look)
            async with working(attended, victim, frozen) as worker:
                victims.append(await service.start("victim", "null", execution_name="one"))
                await running.wait()
                freezing = await service.start("frozen", "null")
                assert (await ended(service, freezing)).status is SUCCEEDED
                running.clear()
                await running.wait()  # a second time, here, for it was the only worker
                gate.set()
                assert (await ended(service, victims[0])).status is SUCCEEDED
                while worker.driven:
                    await asyncio.sleep(0)

    scenario()
    assert taken == victims
    said = "execution 'one' of 'victim' was taken from this worker"
    (told,) = [each.getMessage() for each in caplog.records if said in each.getMessage()]
    assert told.endswith("lost: waits")


@on_a_loop
async def test_a_run_that_was_given_up_launches_no_body(file: Path) -> None:
    bodies: list[str] = []

    @step
    async def body() -> str:
        bodies.append("body")
        return "done"

    @workflow
    async def main() -> str:
        return await body()

    async with opened(file) as service:
        await service.start("main", "null")
        (invocation,) = await service.claim_due("me", ["main"], 1)
        clock, known = SystemClock(), KnownErrors.snapshot()
        run = Runner(invocation, service, main, clock, known)
        assert run.give_up()
        assert isinstance(await run.run(), OutOfTime)
        assert bodies == []
        assert run.token is not None
        await service.release(invocation.execution_id, run.token, is_unfinished=True)
        (again,) = await service.claim_due("me", ["main"], 1)
        assert isinstance(await Runner(again, service, main, clock, known).run(), Succeeded)
        assert bodies == ["body"]


@on_a_loop
async def test_a_run_with_a_body_is_not_given_up(file: Path) -> None:
    refusals: list[bool] = []
    runs: list[Runner] = []

    @step
    async def body() -> None:
        refusals.append(runs[0].give_up())
        await asyncio.sleep(0)
        refusals.append(runs[0].give_up())

    @workflow
    async def main() -> None:
        refusals.append(runs[0].give_up())
        await body()

    async with opened(file) as service:
        await service.start("main", "null")
        (invocation,) = await service.claim_due("me", ["main"], 1)
        runs.append(Runner(invocation, service, main, SystemClock(), KnownErrors.snapshot()))
        assert isinstance(await runs[0].run(), Succeeded)
    assert refusals == [False] * 3


def test_a_claim_that_was_handed_back_while_it_was_answered_is_not_run(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: list[str] = []

    @step
    async def body() -> None:
        bodies.append("body")

    @workflow
    async def main(ctx: WorkflowContext) -> None:
        await body()

    watches: list[Watch] = []
    real = Watch.__init__

    def watched(self: Watch, *args: Any) -> None:
        real(self, *args)
        watches.append(self)

    monkeypatch.setattr(Watch, "__init__", watched)
    taken: list[Invocation] = []

    class HandsBack(Attended):
        async def claim_due(self, owner: str, *args: Any, **kwargs: Any) -> Sequence[Invocation]:
            claimed = await self._service.claim_due(owner, *args, **kwargs)
            if claimed and not taken:
                # The loop was frozen when it was answered, and its heartbeat handed this back.
                watches[0].rounds += 1
                await self._service.hand_back(owner, await self._service.leased_by(owner))
                taken.extend(await self._service.claim_due("other", ["main"], 1))
            return claimed

    @on_a_loop
    async def scenario() -> None:
        async with opened(file) as service:
            execution_id = await service.start("main", "null")
            async with working(HandsBack(service), main) as worker:
                while not taken or worker.driven:
                    await asyncio.sleep(0)
                assert bodies == []
                await service.release(execution_id, taken[0].token, is_unfinished=True)
                assert (await ended(service, execution_id)).status is SUCCEEDED
        assert bodies == ["body"]

    scenario()


def test_what_the_worker_does_not_know_is_handed_back(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer of a claim was lost, and the process lives."""
    monkeypatch.setattr("pyworkflow.services.sqlite._leases.LEASE_MS", 100)

    @on_a_loop
    async def scenario() -> None:
        async with opened(file) as service, working(service) as worker:
            execution_id = await service.start("main", "null")
            (lost,) = await service.claim_due(worker.owner, ["main"], 1, keep=True)
            assert lost.execution_id == execution_id

            async def is_free() -> bool:
                return not await service.leased_by(worker.owner)

            await until(service, is_free)
            (found,) = await service.claim_due("other", ["main"], 1)
            assert (found.execution_id, found.losses) == (execution_id, 0)

    scenario()
