"""The recorded history, how much of it the code has consumed, and the ends to be delivered.

*Identity* lives here: each operation that the code issues takes its record, and differs from it in
nothing; records not taken by the time that something new would happen are history that the code
no longer consumes. The order of delivery is `order`'s.

`ctx.callback` returns when its START is durable, for it gives the id that the service chose. That
resumes code, so it needs an order that a replay repeats, though there each creation is known at
once. Hence: creations reach the code when it is idle, in the order of issue, before any end. While
the first of them is not durable, no end is delivered; and while one waits for that, no body is
launched, for the end may cancel it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pyworkflow._engine.delivery_order import DeliveryOrder
from pyworkflow._engine.scopes import IssuedOperation
from pyworkflow._protocol.records import Operation, OperationType
from pyworkflow.errors import NonDeterminismError

if TYPE_CHECKING:
    from collections.abc import Iterable


class CreatedOperation(IssuedOperation, Protocol):
    """An operation whose code continues once the service has it, and not only at its end."""

    def create(self, record: Operation) -> None:
        """Give the code what the service chose."""
        ...


class Journal:
    """The recorded operations of one execution, as one run of the engine sees them."""

    def __init__(self) -> None:
        self.unconsumed: dict[str, Operation] = {}
        self.order = DeliveryOrder()
        self.is_complete = False
        """Whether the execution has ended, so that all of this run is replay."""
        self._records: dict[str, Operation] = {}
        self._children: dict[str, list[str]] | None = None
        self.reruns: dict[IssuedOperation, Operation] = {}
        """Ended operations whose code has to run again before their end can be delivered."""
        self.creations: dict[CreatedOperation, None] = {}
        """Operations whose creation the code waits for, in the order of issue."""
        self._replays = 0
        self._issued: dict[str, IssuedOperation] = {}
        self._issues = 0

    def load(self, operations: Iterable[Operation]) -> NonDeterminismError | None:
        """Take the recorded history, before anything is issued; return what is wrong with it."""
        execution = OperationType.EXECUTION
        self._records = {o.id: o for o in operations if o.type is not execution}
        self.unconsumed = self._records.copy()
        try:
            order_records = self.order.load(self._records)
        except NonDeterminismError as error:
            return error
        for operation_id in order_records:
            del self.unconsumed[operation_id]
        return None

    @property
    def is_replaying(self) -> bool:
        """Whether recorded history is still ahead of the code."""
        return bool(self.is_complete or self.unconsumed or self._replays or self.reruns)

    def issue(self, op: IssuedOperation) -> Operation | None:
        """Register what the code issues; return its record, `None` if it is new."""
        op.number = self._issues
        self._issues += 1
        operation_id = op.id
        self._issued[operation_id] = op
        record = self._records.get(operation_id)
        if record is not None:
            self.unconsumed.pop(operation_id, None)
        return record

    def forget_issued(self) -> None:
        """Drop the operations of a finished run, or the collector would have to free them."""
        self._issued.clear()

    def recall(self, record: Operation) -> None:
        """Take note that a recorded operation was issued, and its end delivered, in one."""
        del self.unconsumed[record.id]
        number = self._issues
        self._issues = number + 1
        if record.sequence is None:
            self.order.note(record, self.order.place(record, number))

    def record_of(self, operation_id: str) -> Operation | None:
        """Return what is recorded for this operation, `None` if nothing is."""
        return self._records.get(operation_id)

    def knows(self, operation_id: str) -> bool:
        """Whether something is recorded for this operation."""
        return operation_id in self._records

    def count_operations(self) -> int:
        """Return how many operations the execution has, those not written yet included."""
        return len(self._records.keys() | self._issued.keys())

    def consume(self, operation_id: str) -> None:
        """Consume an operation that is not issued again, and what is recorded below it."""
        self.unconsumed.pop(operation_id, None)
        self.consume_below(operation_id)

    def consume_below(self, operation_id: str) -> None:
        """Consume what is recorded below a child context that is over: it will not run again."""
        if not self.unconsumed:
            return
        if self._children is None:
            self._children = {}
            for record in self._records.values():
                if record.parent_id is not None:
                    self._children.setdefault(record.parent_id, []).append(record.id)
        for child_id in self._children.pop(operation_id, ()):
            self.consume(child_id)

    def has_unconsumed_in(self, parent_id: str | None) -> bool:
        """Whether unconsumed history is left in a child context (`None`: the root)."""
        return any(record.parent_id == parent_id for record in self.unconsumed.values())

    def take_change(self, record: Operation) -> IssuedOperation | None:
        """Take the new state of an operation; return the issued operation whose state it is."""
        self._records[record.id] = record
        return self._issued.get(record.id)

    def bring_creation(self) -> bool:
        """Give the code the creation that is next; False if it is not durable yet."""
        op = next(iter(self.creations))
        record = self._records.get(op.id)
        if record is None:
            return False
        del self.creations[op]
        op.create(record)
        return True

    def queue_end(self, op: IssuedOperation, record: Operation, is_replay: bool) -> None:
        """Queue the end of an issued operation for delivery, once.

        ``is_replay`` says that it was recorded before the operation was issued.
        """
        if not op.ended:
            op.ended = True
            self.order.put(op, record, is_replay)
            self._replays += is_replay

    def take_end(self) -> tuple[IssuedOperation, Operation] | None:
        """Take the end to be delivered next; those of abandoned operations are passed by."""
        while self.order.ends:
            op, record, is_replay = self.order.take()
            self._replays -= is_replay
            if not op.abandoned:
                return op, record
        return None
