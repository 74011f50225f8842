"""A reproducible order of delivery: which recorded end reaches the workflow next.

Services of ours number the ends of an execution (`Operation.sequence`), and that number alone
decides. Lambda gives times: there it is the end's time in whole milliseconds, then the order of
issue; a wait counts from when it was due, or from its end if that came first.

A time can be learned too late: an end that sorts before one that was delivered already (a tie, two
clocks, a callback that came in between). Replay would then take another order than the live run
did. So the next batch begins with an *order record*: a step of the engine's own, whose result is
the list of the ids delivered so far. Replay delivers these first, in that order.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

import msgspec

from pyworkflow._engine.ids import hash_path
from pyworkflow._engine.mismatch import mismatch_error
from pyworkflow._protocol.records import Action, OperationType, Status, SubType, Update
from pyworkflow.errors import StepCancelledError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyworkflow._engine.scopes import IssuedOperation
    from pyworkflow._protocol.records import Operation

Place = tuple[int, int, int]
"""Where an end stands: 0 and its rank in an order record; or 1, its number or time, its issue.

2 stands behind all of these: there is the end of a step that the code cancelled. No code ever saw
it, so on a replay the step is cancelled again before it comes, whatever its time says."""

_CANCELLED = f"{StepCancelledError.__module__}.{StepCancelledError.__qualname__}"

_decode_ids = msgspec.json.Decoder(list[str]).decode


class DeliveryOrder:
    """The ends that wait for their delivery, and the order of those that had it."""

    def __init__(self) -> None:
        self.ends: list[tuple[int, int, int, IssuedOperation, Operation, bool]] = []
        """A heap: each end's place, then the end; the one that is next comes first."""
        self._ranks: dict[str, int] = {}
        self._delivered: list[str] = []
        self._last: Place = (0, 0, 0)
        self._records = 0
        self._is_inverted = False

    def load(self, records: Mapping[str, Operation]) -> list[str]:
        """Obey the order records of the history; return their ids: no code consumes them."""
        found: list[str] = []
        while (record := records.get(_record_id(len(found)))) is not None:
            found.append(record.id)
            if record.status is Status.SUCCEEDED:
                ids = _ids_of(record)
                self._ranks = {operation_id: rank for rank, operation_id in enumerate(ids)}
        self._records = len(found)
        return found

    def put(self, op: IssuedOperation, record: Operation, is_replay: bool) -> None:
        """Queue an end."""
        is_unranked, number, issue = self.place(record, op.number)
        heappush(self.ends, (is_unranked, number, issue, op, record, is_replay))

    def take(self) -> tuple[IssuedOperation, Operation, bool]:
        """Take the end that is next; there must be one."""
        is_unranked, number, issue, op, record, is_replay = heappop(self.ends)
        if record.sequence is None and not op.abandoned:
            self.note(record, (is_unranked, number, issue))
        return op, record, is_replay

    def note(self, record: Operation, place: Place) -> None:
        """Take note that an end without a number is delivered."""
        self._delivered.append(record.id)
        if place < self._last:
            self._is_inverted = True
        else:
            self._last = place

    def pass_by(self, op: IssuedOperation | None, record: Operation) -> None:
        """Take note of an end that no code will see: one that was abandoned before it was known.

        It must not come before those that were delivered, on a replay that has it from the start.
        """
        if op is not None and record.ended and record.sequence is None:
            self._is_inverted |= self.place(record, op.number) < self._last

    def next_ms(self) -> int | None:
        """Return the time of the end that is next, `None` if its place does not come from times."""
        if not self.ends:
            return None
        is_unranked, number_or_ms, _, _, record, _ = self.ends[0]
        return number_or_ms if is_unranked and record.sequence is None else None

    def place(self, record: Operation, number: int) -> Place:
        """Return where an end stands whose operation was the ``number``-th that was issued."""
        rank = self._ranks.get(record.id)
        if rank is not None:
            return (0, rank, 0)
        if record.sequence is not None:
            return (1, record.sequence, number)
        is_cancelled = record.error is not None and record.error.type == _CANCELLED
        return (2 if is_cancelled else 1, _end_ms(record), number)

    def take_record(self) -> tuple[Update, ...]:
        """Return the updates of an order record, if one has to be written first."""
        if not self._is_inverted:
            return ()
        self._is_inverted = False
        payload = msgspec.json.encode(self._delivered).decode()
        fields = {
            "id": _record_id(self._records),
            "type": OperationType.STEP,
            "name": "pyworkflow delivery order",
            "subtype": SubType.STEP,
        }
        self._records += 1
        return (Update(action=Action.SUCCEED, payload=payload, **fields),)  # type: ignore[arg-type]


def _record_id(number: int) -> str:
    return hash_path(f"delivery-order-{number}")


def _ids_of(record: Operation) -> list[str]:
    try:
        return _decode_ids(record.payload or "[]")
    except (msgspec.DecodeError, UnicodeError) as error:
        raise mismatch_error(
            f"the record of the order of delivery can't be read ({error}): expected a JSON array "
            f"of operation ids.\n  recorded:  {record.payload!r:.200}\n  attempted: to read it"
        ) from error


def _end_ms(record: Operation) -> int:
    end_ms = record.end_ms if record.end_ms is not None else record.start_ms
    if record.scheduled_end_ms is not None:
        return min(record.scheduled_end_ms, end_ms)
    return end_ms
