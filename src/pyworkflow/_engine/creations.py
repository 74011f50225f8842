"""Operations whose code goes on once the service keeps them, and not only at their end.

`ctx.callback` returns when its START is durable, for it gives the id that the service chose. That
resumes code, so it needs an order that a replay repeats, though there each creation is known at
once. Hence: creations reach the code when it is idle, in the order of issue, before any end. While
the first of them is not durable, no end is delivered; and while one waits for that, no body is
launched, for the end may cancel it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyworkflow._engine.journal import Journal
    from pyworkflow._engine.ops.callback import CallbackOp


class Creations:
    """The operations of one run whose creation the code has not seen yet."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.waiting: dict[CallbackOp, None] = {}
        """Those whose creation the code waits for, in the order of issue."""

    def add(self, op: CallbackOp) -> None:
        """The code waits until ``op`` is durable."""
        self.waiting[op] = None

    def discard(self, op: CallbackOp) -> None:
        """The code does not wait for ``op`` any more."""
        self.waiting.pop(op, None)

    def bring_next(self) -> bool:
        """Give the code the creation that is next; False if it is not durable yet."""
        op = next(iter(self.waiting))
        record = self._journal.record_of(op.id)
        if record is None:
            return False
        del self.waiting[op]
        op.create(record)
        return True
