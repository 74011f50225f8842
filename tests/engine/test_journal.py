from __future__ import annotations

from typing import Any

import pytest

from pyworkflow._engine.journal import Journal
from pyworkflow._protocol.records import Operation, OperationType, Status


class Issued:
    def __init__(self, operation_id: str) -> None:
        self.id = operation_id
        self.number = -1
        self.abandoned = False
        self.ended = False


def op(operation_id: str) -> Any:
    return Issued(operation_id)


def record(operation_id: str, **fields: Any) -> Operation:
    settings: dict[str, Any] = {
        "id": operation_id,
        "type": OperationType.STEP,
        "status": Status.SUCCEEDED,
        "start_ms": 5,
    }
    return Operation(**settings | fields)


def loaded(*records: Operation) -> Journal:
    journal = Journal()
    journal.load(records)
    return journal


def delivered(journal: Journal) -> list[str]:
    ids = []
    while (end := journal.take_end()) is not None:
        ids.append(end[0].id)
    return ids


def queue(journal: Journal, *records: Operation, is_replay: bool = True) -> list[Any]:
    ops = []
    for each in records:
        issued = op(each.id)
        journal.issue(issued)
        journal.queue_end(issued, each, is_replay=is_replay)
        ops.append(issued)
    return ops


# -- consumption ---------------------------------------------------------------------------------


def test_what_is_issued_takes_its_record_and_a_number() -> None:
    a = record("a")
    journal = loaded(record("root", type=OperationType.EXECUTION), a)
    assert list(journal.unconsumed) == ["a"], "the execution itself is nothing to consume"
    new, old = op("new"), op("a")
    assert journal.issue(new) is None
    assert journal.issue(old) is a
    assert (new.number, old.number) == (0, 1)
    assert not journal.unconsumed


def test_knowledge_outlives_consumption() -> None:
    journal = loaded(record("a"))
    assert (journal.knows("a"), journal.knows("b")) == (True, False)
    journal.issue(op("a"))
    assert journal.knows("a")


def test_all_below_an_ended_child_is_consumed_at_any_depth() -> None:
    journal = loaded(
        record("c", type=OperationType.CONTEXT),
        record("c1", parent_id="c", type=OperationType.CONTEXT),
        record("c11", parent_id="c1"),
        record("c2", parent_id="c"),
        record("d1", parent_id="d"),
    )
    journal.issue(op("c"))
    journal.consume_below("c")
    assert list(journal.unconsumed) == ["d1"]


def test_what_is_left_is_told_by_child_context() -> None:
    journal = loaded(record("a"), record("c1", parent_id="c"))
    assert journal.has_unconsumed_in(None)
    assert journal.has_unconsumed_in("c")
    assert not journal.has_unconsumed_in("d")
    journal.issue(op("a"))
    assert not journal.has_unconsumed_in(None)


def test_a_change_reaches_the_operation_that_was_issued() -> None:
    journal = Journal()
    issued = op("a")
    journal.issue(issued)
    assert journal.take_change(record("a")) is issued
    assert journal.take_change(record("b")) is None
    assert journal.knows("b")


# -- order ---------------------------------------------------------------------------------------


def test_the_sequence_decides_and_not_the_order_of_issue() -> None:
    journal = Journal()
    queue(journal, record("a", sequence=3), record("b", sequence=1), record("c", sequence=2))
    assert journal.order.ends
    assert delivered(journal) == ["b", "c", "a"]
    assert not journal.order.ends


def test_the_sequence_outranks_the_time() -> None:
    journal = Journal()
    queue(journal, record("a", sequence=2, end_ms=1), record("b", sequence=1, end_ms=9))
    assert delivered(journal) == ["b", "a"]


def test_without_sequences_the_time_of_the_end_decides_then_the_order_of_issue() -> None:
    journal = Journal()
    queue(
        journal,
        record("tie 1", end_ms=7),
        record("tie 2", end_ms=7),
        record("early", end_ms=6),
        record("no end", start_ms=5),
    )
    assert delivered(journal) == ["no end", "early", "tie 1", "tie 2"]


@pytest.mark.parametrize(("scheduled", "end", "counts_from"), [(7, 9, 7), (9, 7, 7)])
def test_a_wait_counts_from_when_it_was_due_or_ended(
    scheduled: int, end: int, counts_from: int
) -> None:
    journal = Journal()
    queue(
        journal,
        record("before", end_ms=counts_from - 1),
        record("after", end_ms=counts_from + 1),
        record("wait", end_ms=end, scheduled_end_ms=scheduled),
    )
    assert delivered(journal) == ["before", "wait", "after"]


def test_an_end_is_delivered_once() -> None:
    journal = Journal()
    (issued,) = queue(journal, record("a", sequence=1))
    journal.queue_end(issued, record("a", sequence=1), is_replay=False)
    assert delivered(journal) == ["a"]


def test_abandoned_operations_are_passed_by() -> None:
    journal = Journal()
    ops = queue(journal, *(record(n, sequence=s) for s, n in enumerate("abc")))
    ops[0].abandoned = ops[2].abandoned = True
    assert delivered(journal) == ["b"]


# -- replaying -----------------------------------------------------------------------------------


def test_it_replays_until_the_last_recorded_end_is_delivered() -> None:
    a = record("a", sequence=1)
    journal = loaded(a)
    assert journal.is_replaying
    queue(journal, a)
    assert journal.is_replaying
    journal.take_end()
    assert not journal.is_replaying


def test_ends_that_are_new_are_no_replay() -> None:
    journal = Journal()
    queue(journal, record("a", sequence=1), record("b", sequence=2), is_replay=False)
    assert not journal.is_replaying


def test_abandoned_recorded_ends_do_not_keep_it_replaying() -> None:
    journal = Journal()
    (issued,) = queue(journal, record("a", sequence=1))
    issued.abandoned = True
    assert journal.take_end() is None
    assert not journal.is_replaying


def test_a_complete_history_is_all_replay() -> None:
    journal = Journal()
    journal.is_complete = True
    assert journal.is_replaying
