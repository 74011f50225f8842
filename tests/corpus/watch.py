"""What is asserted of every run while it goes on, from its first invocation to its last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyworkflow._engine.messages import AttemptSettings, StepCall
from pyworkflow._engine.ops.base import Op
from pyworkflow._engine.ops.step import StepOp
from pyworkflow._engine.ops.wait import WaitOp
from pyworkflow._engine.scopes import IssuedOperation
from pyworkflow._protocol.records import Operation, Status
from pyworkflow._runtime.clock import VirtualClock
from pyworkflow.testing._outside_world import OutsideWorld
from pyworkflow.testing._strictness import Strictness

TOO_LATE = '"too late"'
"""What a body returns that was cancelled, or ran out of time."""


class Watch:
    """What a trial saw, over all its invocations; raises `AssertionError` when a law is broken."""

    def __init__(self, world: OutsideWorld, clock: VirtualClock) -> None:
        self.service = world.service
        self.execution_id = ""
        self.invocations = 0
        self.strictness = Strictness()
        self.delivered: list[str] = []
        self.interrupted: set[str] = set()
        self.ops: dict[str, Op] = {}
        self.spans: dict[str, list[int]] = {}
        self.planned_ms: dict[str, int] = {}
        self._clock = clock
        self._moments = 0
        self._now: list[str] = []
        self._issued: dict[str, Op] = {}
        self._values: dict[str, str] = {}
        self._ran: set[tuple[str, int]] = set()
        self._cancelled: set[str] = set()
        self._ended: dict[str, Operation] = {}

    def records(self) -> Mapping[str, Operation]:
        return self.service.state(self.execution_id).operations

    # -- what the engine tells -------------------------------------------------------------------

    def on_invocation(self) -> None:
        self.check_order()
        self.check_records()
        self.invocations += 1
        self._issued.clear()

    def check_order(self) -> None:
        """This invocation delivered what earlier ones did, in their order."""
        now, before = set(self._now), set(self.delivered)
        again = [each for each in self._now if each in before]
        first = [each for each in self.delivered if each in now]
        assert again == first, "a replay delivers in another order than the live run did"
        self.delivered = [each for each in self.delivered if each not in now] + self._now
        self._now = []

    def check_records(self) -> None:
        """What had ended by the last invocation is unchanged."""
        records = self.records()
        for operation in self._ended.values():
            assert records[operation.id] == operation, "a record that had ended was changed"
        self._ended = {i: each for i, each in records.items() if each.ended}

    def on_issue(self, op: Op) -> None:
        self.strictness.on_issue(op)
        self._issued[op.id] = op
        if op.id not in self.ops:
            self.ops[op.id] = op
            self._moments += 1
            self.spans[op.id] = [self._moments, 1 << 60]
            if isinstance(op, WaitOp):
                self.planned_ms[op.id] = self._clock.now_ms() + 1000 * op._seconds
        record = self.records().get(op.id)
        is_started = record is not None and record.status is Status.STARTED
        if is_started and isinstance(op, StepOp) and op.settings.at_most_once:
            self.interrupted.add(op.id)

    def on_delivery(self, op: IssuedOperation, record: Operation) -> None:
        self._deliver(op.id)
        known = self.records()[op.id]
        assert known.ended, "an end was handed over that is not recorded"
        assert known.payload == record.payload, "a result was handed over that is not the record's"
        assert known.payload != TOO_LATE, "an outcome that came too late was taken"

    def on_recall(
        self,
        operation_id: str,
        settings: AttemptSettings,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        record: Operation,
    ) -> None:
        self.strictness.on_recall(operation_id, settings, args, kwargs, record)
        self._deliver(operation_id)

    def _deliver(self, operation_id: str) -> None:
        self._now.append(operation_id)
        self._moments += 1
        span = self.spans.setdefault(operation_id, [self._moments, 1 << 60])
        span[1] = min(span[1], self._moments)

    # -- what the bodies tell --------------------------------------------------------------------

    def on_launch(self, call: StepCall) -> None:
        record = self.records().get(call.id)
        assert record is None or not record.ended, f"{call.name} runs, though its end is recorded"
        assert call.id not in self._cancelled, f"{call.name} runs, though the code cancelled it"
        if call.settings.at_most_once:
            assert (call.id, call.attempt) not in self._ran, f"{call.name} runs twice"
            assert record is not None, f"{call.name} runs before its start is recorded"
            assert record.status is Status.STARTED, f"{call.name} runs before its start is recorded"
        self._ran.add((call.id, call.attempt))
        for value in (each for each in call.args if isinstance(each, str)):
            made_by = self._values.get(value)
            if made_by is not None:
                assert self.records()[made_by].ended, f"{call.name} was given {value} too early"
        now = set(self._now)
        for op in self._issued.values():
            late = op.ended and op.id not in now and not op.abandoned
            assert not late, f"{call.name} runs before the end of {op.name} is delivered"

    def on_returned(self, call: StepCall, value: Any) -> None:
        if isinstance(value, str):
            known = self.records().get(call.id)
            if known is None or not known.ended:
                self._values[value] = call.id

    def on_cancel(self, operation_id: str) -> None:
        self._cancelled.add(operation_id)
