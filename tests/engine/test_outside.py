from __future__ import annotations

from typing import Any

from pyworkflow._engine.pending import Outside
from pyworkflow._protocol.records import OperationType


class Waiting:
    def __init__(self, number: int, type_: OperationType = OperationType.WAIT) -> None:
        self.number = number
        self.type = type_


def op(number: int) -> Any:
    return Waiting(number)


def test_nothing_is_waited_for_at_first() -> None:
    outside = Outside()
    assert not outside.waiting
    assert outside.next_due_ms() is None


def test_the_earliest_is_next() -> None:
    outside = Outside()
    late, early = op(0), op(1)
    outside.add(late, 20)
    outside.add(early, 10)
    assert outside.waiting
    assert outside.next_due_ms() == 10
    outside.discard(early)
    outside.discard(early)
    assert outside.next_due_ms() == 20


def test_equal_times_do_not_compare_operations() -> None:
    outside = Outside()
    for number in range(3):
        outside.add(op(number), 10)
    assert outside.next_due_ms() == 10


def test_an_event_without_a_time_is_waited_for_but_never_due() -> None:
    outside = Outside()
    callback = op(0)
    outside.add(callback, None)
    assert outside.waiting
    assert outside.next_due_ms() is None
    outside.discard(callback)
    assert not outside.waiting


def test_a_new_time_replaces_the_old_one() -> None:
    outside = Outside()
    retried = op(0)
    outside.add(retried, 10)
    outside.discard(retried)
    outside.add(retried, 30)
    assert outside.next_due_ms() == 30


def test_only_waits_end_when_they_are_due() -> None:
    outside = Outside()
    retry: Any = Waiting(1, OperationType.STEP)
    outside.add(retry, 10)
    assert outside.next_wait_ms() is None
    wait = op(2)
    outside.add(wait, 20)
    assert outside.next_wait_ms() == 20
    assert outside.next_due_ms() == 10
    outside.discard(wait)
    assert outside.next_wait_ms() is None
