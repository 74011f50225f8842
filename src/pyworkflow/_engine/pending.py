"""Operations that await an external event: timers, retries, callbacks and invokes."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from pyworkflow._protocol.records import OperationType

if TYPE_CHECKING:
    from pyworkflow._engine.scopes import IssuedOperation


class PendingOperations:
    """The operations that only an external event can end, and when the next is due."""

    def __init__(self) -> None:
        self.waiting: dict[IssuedOperation, int | None] = {}
        """The pending operations, and when each is due at the latest (`None`: unknown)."""
        self._due: list[tuple[int, int, IssuedOperation]] = []
        self._waits: list[tuple[int, int, IssuedOperation]] = []

    def add(self, op: IssuedOperation, due_ms: int | None) -> None:
        """Add ``op``, which is due at ``due_ms`` at the latest (`None`: unknown)."""
        op.is_pending = True
        self.waiting[op] = due_ms
        if due_ms is not None:
            heappush(self._due, (due_ms, op.number, op))
            if op.type is OperationType.WAIT:
                heappush(self._waits, (due_ms, op.number, op))

    def discard(self, op: IssuedOperation) -> None:
        """Remove ``op``, which no longer waits."""
        op.is_pending = False
        self.waiting.pop(op, None)

    def next_due_ms(self) -> int | None:
        """Return when the first of them is due."""
        return self._first(self._due)

    def next_wait_ms(self) -> int | None:
        """Return when the first WAIT is due; a retry that is due ends nothing."""
        return self._first(self._waits)

    def _first(self, due: list[tuple[int, int, IssuedOperation]]) -> int | None:
        while due:
            due_ms, _, op = due[0]
            if self.waiting.get(op) == due_ms:
                return due_ms
            heappop(due)
        return None
