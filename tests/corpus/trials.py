"""Trials: one shape run to its end in virtual time, each step taking its time, with crashes.

A body's time hangs on the id of its operation and the attempt, so it is the same in each run. When
a body is run again after a crash there are two worlds to choose from. With ``resumes`` its work
went on meanwhile, and it ends when it would have ended: a crash costs no time, and must change
nothing at all. Without, it takes its whole time again, so others may overtake it.

A trial watches while it runs (`Watch`) and says what it saw:

* no body runs once its outcome is recorded, nor again once the code has cancelled it;
* a body that may run at most once begins after its start is recorded, and once per attempt;
* nothing is launched while a known end waits for its delivery;
* whoever is handed a result knows it from the record: its end is recorded by then;
* a replay delivers what was delivered before, in the same order;
* a record that has ended never changes.

Bodies are stubborn besides: one that was cancelled or ran out of time still reports an outcome,
which may be recorded nowhere.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pyworkflow._engine.messages import End, Failed, StepCall, StepRaised, StepReturned, Succeeded
from pyworkflow._protocol.executions import Committed
from pyworkflow._protocol.records import ErrorRecord, Operation, Update
from pyworkflow._runtime.clock import DEFAULT_START_MS, Alarm, VirtualClock
from pyworkflow._runtime.runner import Runner
from pyworkflow._runtime.steps import timeout_error
from pyworkflow._values.exceptions import KnownErrors
from pyworkflow.testing._fakes import Fake, Fakes, FakingStepRunner
from pyworkflow.testing._invocations import CrashingService, InvocationLoop
from pyworkflow.testing._outside_world import COMPLETE, CallbackPlan, OutsideWorld
from pyworkflow.testing._verify import Replay, check_replay
from tests.corpus.registry import Raises, Shape
from tests.corpus.watch import TOO_LATE, Watch

KNOWN = KnownErrors.snapshot()


@dataclass(frozen=True)
class Durations:
    """How long each body takes, in milliseconds: ``values`` are dealt out by operation."""

    values: tuple[int, ...] = ()

    def of(self, call: StepCall) -> int:
        if not self.values:
            return 0
        place = int(call.id[:8], 16) + call.attempt
        # Two bodies that were dealt the same do not end at the same moment.
        return self.values[place % len(self.values)] + int(call.id[8:12], 16) % 3000


AT_ONCE = Durations()


@dataclass(frozen=True)
class Crashes:
    """Before and after which checkpoints the process dies."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    resumes: bool = True

    def __str__(self) -> str:
        world = "its work goes on" if self.resumes else "its work begins anew"
        return f"crash before {self.before or 'none'}, after {self.after or 'none'}, {world}"


NONE = Crashes()


class TimedStepRunner(FakingStepRunner):
    """Runs each body after its time, and reports what comes too late as well."""

    def __init__(
        self,
        execution_id: str,
        clock: VirtualClock,
        report: Any,
        *,
        watch: Watch,
        durations: Durations,
        began_ms: dict[tuple[str, int], int],
    ) -> None:
        super().__init__(execution_id, clock, report, Fakes(), watch.strictness)
        self._watch = watch
        self._durations = durations
        self._began_ms = began_ms
        self._late: list[Alarm] = []
        self._is_closed = False

    def launch(self, call: StepCall) -> StepReturned | StepRaised | None:
        self._watch.on_launch(call)
        now_ms = self._clock.now_ms()
        began_ms = self._began_ms.setdefault((call.id, call.attempt), now_ms)
        taken_ms = self._durations.of(call)
        self._watch.planned_ms[call.id] = began_ms + taken_ms
        limit = call.settings.timeout_seconds
        if limit is not None and taken_ms > limit * 1000:
            self._report_late(call, began_ms + taken_ms)
        self._taken[call.id, call.attempt] = Fake(seconds=taken_ms / 1000)
        return self.launch_async(call)

    def cancel(self, operation_id: str) -> None:
        attempt = self._running.get(operation_id)
        if attempt is not None and not self._is_closed:
            self._watch.on_cancel(operation_id)
            self._report_late(attempt.call, self._watch.planned_ms[operation_id])
        super().cancel(operation_id)

    def _report_late(self, call: StepCall, when_ms: int) -> None:
        late = StepReturned(call.id, call.attempt, TOO_LATE, json.loads(TOO_LATE), when_ms)
        self._late.append(self._clock.call_at(when_ms, partial(self._report, late)))

    async def close(self, seconds: float | None = None) -> None:
        self._is_closed = True
        for alarm in self._late:
            alarm.cancel()
        await super().close(seconds)

    def returned(self, call: StepCall, value: Any) -> StepReturned:
        fact = super().returned(call, value)
        self._watch.on_returned(call, fact.value)
        return fact

    async def _pass_time(self, fake: Fake, call: StepCall) -> None:
        limit, taken_ms = call.settings.timeout_seconds, round(fake.seconds * 1000)
        is_late = limit is not None and taken_ms > limit * 1000
        passes_ms = round(limit * 1000) if limit is not None and is_late else taken_ms
        due_ms = self._began_ms[call.id, call.attempt] + passes_ms
        if due_ms > self._clock.now_ms():
            over: asyncio.Future[None] = self._loop.create_future()
            attempt = self._running[call.id]

            def ring() -> None:
                self.hold_clock(attempt)
                over.set_result(None)

            self._alarms[call.id] = self._clock.call_at(due_ms, ring)
            self.release_clock(attempt)
            await over
            del self._alarms[call.id]
        if is_late:
            raise timeout_error(call)


class Wire:
    """A service that answers later: the run goes on while a checkpoint is on its way."""

    def __init__(self, service: CrashingService) -> None:
        self.load = service.load
        self._commit = service.commit

    async def commit(self, execution_id: str, token: str, updates: Sequence[Update]) -> Committed:
        await asyncio.sleep(0)
        answer = await self._commit(execution_id, token, updates)
        await asyncio.sleep(0)
        return answer


@dataclass
class Trial:
    """One shape's run from start to end, and what came of it."""

    shape: Shape
    durations: Durations = AT_ONCE
    crashes: Crashes = NONE
    is_wired: bool = False
    outcome: Any = None
    operations: tuple[Operation, ...] = ()
    commits: int = 0
    watch: Watch = field(init=False, repr=False)

    async def run(self) -> Trial:
        clock = VirtualClock(DEFAULT_START_MS)
        plans = {
            name: [CallbackPlan(COMPLETE, round(seconds * 1000), '"yes"')]
            for name, seconds in self.shape.callbacks
        }
        world = OutsideWorld(clock, plans, {}, _runs_nothing)
        service = CrashingService(world, self.crashes.after, self.crashes.before)
        watch = self.watch = Watch(world, clock)
        began_ms: dict[tuple[str, int], int] = {}
        runner_for = partial(
            Runner,
            service=Wire(service) if self.is_wired else service,
            workflow=self.shape.workflow,
            clock=clock,
            known_errors=KNOWN,
            step_runner=partial(
                TimedStepRunner, watch=watch, durations=self.durations, began_ms=began_ms
            ),
            observer=watch,
        )

        def on_invocation() -> None:
            watch.on_invocation()
            if not self.crashes.resumes:
                began_ms.clear()

        invocations = InvocationLoop(world.service, runner_for, clock, 500, on_invocation, world)
        watch.execution_id = world.service.start(self.shape.name, "{}")
        try:
            end = await invocations.run_to_end(watch.execution_id)
        finally:
            await world.close()
        watch.check_order()
        watch.check_records()
        self.outcome = outcome_of(end)
        self.commits = service.commits
        self.operations = world.service.operations(watch.execution_id)
        await check_replay(Replay(self.shape.workflow, self.operations, KNOWN), end)
        if watch.strictness.hazard is not None:
            raise watch.strictness.hazard
        return self

    # -- comparing -------------------------------------------------------------------------------

    def identities(self) -> dict[str, tuple[Any, ...]]:
        """What each id stands for: of all that the code asked for, be it recorded or not."""
        return {
            op.id: (op.type, op.subtype, op.name, op.scope.operation_id, op.path)
            for op in self.watch.ops.values()
        }

    def reached(self) -> dict[str, dict[str, Any]]:
        """The operations whose ends reached the code, without times and order."""
        delivered = set(self.watch.delivered)
        return {each.id: plain(each) for each in self.operations if each.id in delivered}

    def has_close_call(self) -> bool:
        """Whether two things that went on at once ended so close together that lag may decide.

        The start of a step or timer may lag 100 ms, in a run with a crash twice.
        """
        ends: list[tuple[int, int, int, str]] = []
        records = {each.id: each for each in self.operations}
        for operation_id, (issued, delivered) in self.watch.spans.items():
            end_ms = self.watch.planned_ms.get(operation_id)
            record = records.get(operation_id)
            if record is not None and record.end_ms is not None and delivered < 1 << 60:
                end_ms = record.end_ms
            if end_ms is not None:
                ends.append((end_ms, issued, delivered, operation_id))
        ends.sort()
        return any(
            other[0] - one[0] <= CLOSE_MS and one[1] < other[2] and other[1] < one[2]
            for place, one in enumerate(ends)
            for other in ends[place + 1 : place + 20]
            if other[3] != self._parent(one[3]) and one[3] != self._parent(other[3])
        )

    def _parent(self, operation_id: str) -> str | None:
        op = self.watch.ops.get(operation_id)
        return None if op is None else op.scope.operation_id


CLOSE_MS = 300


def plain(operation: Operation) -> dict[str, Any]:
    """An operation without times, order and the places in the code that a stack names."""
    error = operation.error
    return {
        "type": operation.type,
        "subtype": operation.subtype,
        "name": operation.name,
        "parent_id": operation.parent_id,
        "status": operation.status,
        "attempt": operation.attempt,
        "payload": operation.payload,
        "error": None if error is None else ErrorRecord(error.message, error.type, error.data),
    }


def outcome_of(end: End) -> Any:
    match end:
        case Succeeded():
            return json.loads(end.payload)
        case Failed():
            return Raises(end.record.type.rpartition(".")[2], end.record.message)
    raise AssertionError(f"it ended as {end}")


def is_one_of(outcome: Any, allowed: tuple[Any, ...]) -> bool:
    if isinstance(outcome, Raises):
        return any(
            isinstance(each, Raises)
            and each.type == outcome.type
            and outcome.message.startswith(each.message)
            for each in allowed
        )
    return outcome in allowed


async def _runs_nothing(*_: Any) -> Any:
    raise AssertionError("no shape invokes a workflow")
