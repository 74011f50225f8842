"""The updates to write, their order, and which must be durable before an effect happens.

===========================================  ===================================
update                                       acknowledged before
===========================================  ===================================
step START, at-least-once                    nothing: it rides with the next batch
step START, at most once                     the step's body runs
step SUCCEED / FAIL / RETRY                  the workflow sees the outcome
wait START                                   the invocation ends; it does not ride along
callback START                               `ctx.callback` returns: see `journal`
invoke START                                 the invocation ends; it is urgent
child context START                          nothing
child context SUCCEED / FAIL                 the parent sees it
===========================================  ===================================

*Urgent* updates are sent as soon as the one writer is free. The others may lag, so that a fast step
costs one request: they go with the next batch. *Patient* ones do not even do that, so that a timer
that was never needed costs none: they go when `hurry` is called, as it is when they have lagged
long enough or nothing else is going on. Otherwise order is kept. A batch is atomic, so none may
contain a move that the service could have overtaken: there is no CANCEL, and the START of a retry
is queued only after READY was read.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from pyworkflow._protocol.limits import MAX_BATCH_BYTES, MAX_UPDATES, bound_of, wire_size
from pyworkflow._protocol.records import Action, OperationType, Update

if TYPE_CHECKING:
    from collections.abc import Callable


class QueuedUpdate(msgspec.Struct, eq=False):
    """A queued update, or what makes it when it is sent; ``sent`` once the writer has it."""

    update: Update | Callable[[], Update] | None
    urgent: bool
    sent: bool = False


class Outbox:
    """The updates of one execution that are not written yet."""

    def __init__(self) -> None:
        self.in_flight = False
        self._entries: deque[QueuedUpdate] = deque()
        self._patient: deque[QueuedUpdate] = deque()
        self._urgent = 0
        self._waiting = 0

    def put(
        self, update: Update | Callable[[], Update], urgent: bool = False, patient: bool = False
    ) -> QueuedUpdate:
        """Queue ``update``, or what will make it, behind the others."""
        entry = QueuedUpdate(update, urgent)
        (self._patient if patient else self._entries).append(entry)
        self._waiting += 1
        self._urgent += urgent
        return entry

    def drop(self, entry: QueuedUpdate) -> None:
        """Forget an update that was not sent."""
        if entry.update is not None and not entry.sent:
            entry.update = None
            self._waiting -= 1
            self._urgent -= entry.urgent

    def clear(self) -> None:
        """Forget all that was not sent."""
        for entry in (*self._entries, *self._patient):
            entry.update = None  # what makes it refers to who queued it
        self._entries.clear()
        self._patient.clear()
        self._waiting = self._urgent = 0

    def drop_lagging(self) -> None:
        """Forget what nothing waits for: the patient, and all behind the last urgent update."""
        for entry in self._patient:
            self.drop(entry)
        self._patient.clear()
        while self._entries and not (self._entries[-1].urgent and self._entries[-1].update):
            self.drop(self._entries[-1])
            self._entries.pop()

    def hurry(self) -> bool:
        """Make everything urgent that waits now; return whether something is due then."""
        if self._urgent < self._waiting:
            self._entries.extend(self._patient)
            self._patient.clear()
            for entry in self._entries:
                if entry.update is not None and not entry.urgent:
                    entry.urgent = True
                    self._urgent += 1
        return self.is_due

    @property
    def is_due(self) -> bool:
        """Whether something must be written now: it is urgent and the writer is free."""
        return self._urgent > 0 and not self.in_flight

    @property
    def is_waiting(self) -> bool:
        """Whether something can be written now: anything waits and the writer is free."""
        return self._waiting > 0 and not self.in_flight

    @property
    def is_lagging(self) -> bool:
        """Whether anything waits, be the writer free or not."""
        return self._waiting > 0

    @property
    def step_outcomes(self) -> tuple[str, ...]:
        """The names of the steps whose outcomes are not sent yet; on any thread."""
        updates = [entry.update for entry in (*self._entries, *self._patient) if not entry.sent]
        return tuple(
            update.name or update.id
            for update in updates
            if isinstance(update, Update)
            and update.type is OperationType.STEP
            and update.action is not Action.START
        )

    def take_batch(self, room: int = MAX_UPDATES) -> tuple[Update, ...]:
        """Take what fits into one checkpoint. It is `in_flight` until the caller says otherwise."""
        entries = self._entries
        batch: list[Update] = []
        count = bound_of
        size = 0
        urgent = 0
        while entries:
            entry = entries.popleft()
            update = entry.update
            if update is None:
                continue
            if type(update) is not Update:
                entry.update = update = update()  # type: ignore[operator] # it makes one
            size += count(update)
            if size > MAX_BATCH_BYTES and count is not wire_size:
                count = wire_size  # once the bound does not do
                size = sum(map(count, (*batch, update)))
            if batch and (len(batch) == room or size > MAX_BATCH_BYTES):
                entries.appendleft(entry)
                break
            batch.append(update)
            entry.sent = True
            urgent += entry.urgent
        self._urgent -= urgent
        self._waiting -= len(batch)
        self.in_flight = bool(batch)
        return tuple(batch)
