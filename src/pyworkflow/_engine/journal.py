"""What is recorded, what of it the code has consumed, and which end is delivered next.

Two laws live here. *Identity*: each operation that the code issues takes its record, and differs
from it in nothing; what nobody took by the time that something new would happen is history that
the code no longer consumes. *Order*: ends reach the workflow one at a time. Services of ours number
them (`Operation.sequence`), and that number alone decides; on Lambda it is the end's time in whole
milliseconds, then the order of issue, where a wait counts from when it was due.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from pyworkflow._engine.records import Operation, OperationType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyworkflow._engine.ops.base import Op


class Journal:
    """The recorded operations of one execution, as one run of the engine sees them."""

    def __init__(self) -> None:
        self.unconsumed: dict[str, Operation] = {}
        self.is_complete = False
        """Whether the execution has ended, so that all of this run is replay."""
        self._records: dict[str, Operation] = {}
        self._children: dict[str, list[Operation]] = {}
        self._ends: list[tuple[int, int, Op, Operation, bool]] = []
        self._replays = 0
        self._issued: dict[str, Op] = {}

    def load(self, operations: Iterable[Operation]) -> None:
        """Take the recorded history, before anything is issued."""
        for operation in operations:
            if operation.type is OperationType.EXECUTION:
                continue
            self._records[operation.id] = operation
            self.unconsumed[operation.id] = operation
            if operation.parent_id is not None:
                self._children.setdefault(operation.parent_id, []).append(operation)

    @property
    def is_replaying(self) -> bool:
        """Whether recorded history is still ahead of the code."""
        return bool(self.is_complete or self.unconsumed or self._replays)

    def issue(self, op: Op) -> Operation | None:
        """Register what the code issues; return its record, `None` if it is new."""
        op.number = len(self._issued)
        self._issued[op.id] = op
        record = self._records.get(op.id)
        if record is not None:
            self.unconsumed.pop(op.id, None)
        return record

    @property
    def has_ends(self) -> bool:
        """Whether an end waits for its delivery."""
        return bool(self._ends)

    def knows(self, operation_id: str) -> bool:
        """Whether something is recorded for this operation."""
        return operation_id in self._records

    def consume_below(self, operation_id: str) -> None:
        """Consume what is recorded below a child context that is over: it will not run again."""
        for child in self._children.get(operation_id, ()):
            self.unconsumed.pop(child.id, None)
            self.consume_below(child.id)

    def has_unconsumed_in(self, parent_id: str | None) -> bool:
        """Whether unconsumed history is left in a child context (`None`: the root)."""
        return any(record.parent_id == parent_id for record in self.unconsumed.values())

    def take_change(self, record: Operation) -> Op | None:
        """Take the new state of an operation; return the issued operation whose state it is."""
        self._records[record.id] = record
        return self._issued.get(record.id)

    def queue_end(self, op: Op, record: Operation, *, is_replay: bool) -> None:
        """Queue the end of an issued operation for delivery, once.

        ``is_replay`` says that it was recorded before the operation was issued.
        """
        if not op.ended:
            op.ended = True
            major = record.sequence if record.sequence is not None else _end_ms(record)
            heappush(self._ends, (major, op.number, op, record, is_replay))
            self._replays += is_replay

    def take_end(self) -> tuple[Op, Operation] | None:
        """Take the end to be delivered next; those of abandoned operations are passed by."""
        while self._ends:
            _, _, op, record, is_replay = heappop(self._ends)
            self._replays -= is_replay
            if not op.abandoned:
                return op, record
        return None


def _end_ms(record: Operation) -> int:
    end_ms = record.end_ms if record.end_ms is not None else record.start_ms
    if record.scheduled_end_ms is not None:
        return min(record.scheduled_end_ms, end_ms)
    return end_ms
