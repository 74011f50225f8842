from __future__ import annotations

from typing import Any

from pyworkflow._engine.pending import PendingOperations
from pyworkflow._protocol.records import OperationType


class Waiting:
    def __init__(self, number: int, type_: OperationType = OperationType.WAIT) -> None:
        self.number = number
        self.type = type_


def op(number: int) -> Any:
    return Waiting(number)


def test_nothing_is_waited_for_at_first() -> None:
    pending = PendingOperations()
    assert not pending.waiting
    assert pending.next_due_ms() is None


def test_the_earliest_is_next() -> None:
    pending = PendingOperations()
    late, early = op(0), op(1)
    pending.add(late, 20)
    pending.add(early, 10)
    assert pending.waiting
    assert pending.next_due_ms() == 10
    pending.discard(early)
    pending.discard(early)
    assert pending.next_due_ms() == 20


def test_equal_times_do_not_compare_operations() -> None:
    pending = PendingOperations()
    for number in range(3):
        pending.add(op(number), 10)
    assert pending.next_due_ms() == 10


def test_an_event_without_a_time_is_waited_for_but_never_due() -> None:
    pending = PendingOperations()
    callback = op(0)
    pending.add(callback, None)
    assert pending.waiting
    assert pending.next_due_ms() is None
    pending.discard(callback)
    assert not pending.waiting


def test_a_new_time_replaces_the_old_one() -> None:
    pending = PendingOperations()
    retried = op(0)
    pending.add(retried, 10)
    pending.discard(retried)
    pending.add(retried, 30)
    assert pending.next_due_ms() == 30


def test_only_waits_end_when_they_are_due() -> None:
    pending = PendingOperations()
    retry: Any = Waiting(1, OperationType.STEP)
    pending.add(retry, 10)
    assert pending.next_wait_ms() is None
    wait = op(2)
    pending.add(wait, 20)
    assert pending.next_wait_ms() == 20
    assert pending.next_due_ms() == 10
    pending.discard(wait)
    assert pending.next_wait_ms() is None
