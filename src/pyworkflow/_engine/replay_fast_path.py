"""The short way through replay: a recorded result that would be delivered next is given at once.

When code awaits an operation, the loop runs until it is idle, and then the earliest recorded end is
delivered. If nothing else is ready, and no other issued operation has an end to deliver, that is
the end of the very operation that is being issued: the task would be resumed at once. So it need
not be suspended at all. The order of events is the same; what falls away is the machinery.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from pyworkflow._engine.ids import hash_path
from pyworkflow._engine.loop.tasks import current_task
from pyworkflow._engine.messages import AttemptSettings
from pyworkflow._protocol.records import OperationType, Status, SubType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyworkflow._engine.execution import Execution
    from pyworkflow._values.codec import Decode

_STEP, _SUBTYPE, _SUCCEEDED = OperationType.STEP, SubType.STEP, Status.SUCCEEDED


class Recallable(AttemptSettings, Protocol):
    """A step whose recorded results are read by one function."""

    @property
    def decode(self) -> Decode: ...


def recall_step(
    execution: Execution,
    settings: Recallable,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> tuple[Any] | None:
    """Return the recorded result of the step that is being called, in a tuple of one.

    `None` if it has to be issued as an operation: then nothing has changed. Whatever is not the
    plain case, a mismatch above all, is left to that.
    """
    journal, loop = execution.journal, execution.loop
    unconsumed = journal.unconsumed
    if not unconsumed or loop.ready or loop.stopped or journal.order.ends:
        return None
    if execution.pending.waiting or journal.creations:
        return None
    task = current_task(loop)
    if task is None or settings.key is not None:
        return None
    namespace = task.namespace
    scope = namespace.scope
    operation_id = hash_path(namespace.next_path())
    record = unconsumed.get(operation_id)
    if (
        record is None
        or record.status is not _SUCCEEDED
        or record.type is not _STEP
        or record.name != settings.name
        or record.subtype != _SUBTYPE
        or record.parent_id != scope.operation_id
        or scope.is_over
    ):
        return None
    try:
        value = settings.decode(record.payload or "null")
    except Exception:
        return None
    namespace.number += 1
    journal.recall(record)
    execution.pass_time(record)
    if execution.observer is not None:
        execution.observer.on_recall(operation_id, settings, args, kwargs, record)
    return (value,)
