from __future__ import annotations

from pyworkflow._engine import outbox as module
from pyworkflow._engine.outbox import Outbox
from pyworkflow._protocol.limits import MAX_BATCH_BYTES, MAX_UPDATES
from pyworkflow._protocol.records import Action, ErrorRecord, OperationType, Update


def update(name: str, action: Action = Action.SUCCEED, **fields: str | None) -> Update:
    return Update(id=name, type=OperationType.STEP, action=action, **fields)  # type: ignore[arg-type]


def put(outbox: Outbox, *names: str, urgent: bool = True) -> list[module.QueuedUpdate]:
    return [outbox.put(update(name), urgent=urgent) for name in names]


def ids(batch: tuple[Update, ...]) -> list[str]:
    return [each.id for each in batch]


def test_an_empty_outbox_has_nothing_to_say() -> None:
    outbox = Outbox()
    assert not outbox.is_due
    assert not outbox.is_waiting
    assert outbox.take_batch() == ()
    assert not outbox.in_flight


def test_urgent_updates_are_due_and_take_along_what_lags_in_order() -> None:
    outbox = Outbox()
    put(outbox, "a", urgent=False)
    assert (outbox.is_due, outbox.is_waiting) == (False, True)
    put(outbox, "b")
    put(outbox, "c", urgent=False)
    assert outbox.is_due
    assert ids(outbox.take_batch()) == ["a", "b", "c"]
    assert outbox.in_flight


def test_only_one_batch_is_in_flight() -> None:
    outbox = Outbox()
    put(outbox, "a")
    outbox.take_batch()
    put(outbox, "b")
    assert (outbox.is_due, outbox.is_waiting) == (False, False)
    outbox.in_flight = False
    assert (outbox.is_due, outbox.is_waiting) == (True, True)
    assert ids(outbox.take_batch()) == ["b"]


def test_a_batch_holds_250_updates_at_most() -> None:
    outbox = Outbox()
    names = [f"u{n}" for n in range(MAX_UPDATES + 1)]
    put(outbox, *names)
    assert ids(outbox.take_batch()) == names[:MAX_UPDATES]
    assert ids(outbox.take_batch()) == names[MAX_UPDATES:]


def test_a_batch_stays_below_the_limit_of_bytes() -> None:
    outbox = Outbox()
    for name in ("a", "b", "c"):
        outbox.put(update(name, payload='"' + "x" * (MAX_BATCH_BYTES * 2 // 5) + '"'), urgent=True)
    assert ids(outbox.take_batch()) == ["a", "b"]
    assert ids(outbox.take_batch()) == ["c"]


def test_escapes_are_not_guessed_where_the_guess_does_not_do() -> None:
    """A bound of six bytes a character would let one of these into a batch."""
    outbox = Outbox()
    for name in ("a", "b", "c"):
        outbox.put(update(name, payload="\x1b" * 40_000), urgent=True)
    for name in ("d", "e", "f"):
        outbox.put(update(name, payload="x" * 240_000), urgent=True)
    assert ids(outbox.take_batch()) == ["a", "b", "c"]
    assert ids(outbox.take_batch()) == ["d", "e", "f"]


def test_one_update_above_the_limit_goes_alone() -> None:
    outbox = Outbox()
    outbox.put(update("big", payload="x" * MAX_BATCH_BYTES), urgent=True)
    put(outbox, "b")
    assert ids(outbox.take_batch()) == ["big"]
    assert ids(outbox.take_batch()) == ["b"]


def test_errors_count_too() -> None:
    outbox = Outbox()
    half = "x" * (MAX_BATCH_BYTES * 2 // 5)
    errors = [ErrorRecord(half, "E", half), ErrorRecord(half, "E", None, (half, half))]
    for number, error in enumerate(errors):
        fail = Update(id=str(number), type=OperationType.STEP, action=Action.FAIL, error=error)
        outbox.put(fail, urgent=True)
    assert ids(outbox.take_batch()) == ["0"]


def test_what_was_not_sent_can_be_dropped_once() -> None:
    outbox = Outbox()
    first, second = put(outbox, "a", "b")
    outbox.drop(first)
    outbox.drop(first)
    assert ids(outbox.take_batch()) == ["b"]
    assert second.sent
    outbox.drop(second)
    outbox.in_flight = False
    assert (outbox.is_due, outbox.is_waiting) == (False, False)


def test_dropping_the_last_urgent_one_leaves_nothing_due() -> None:
    outbox = Outbox()
    put(outbox, "lag", urgent=False)
    (entry,) = put(outbox, "urgent")
    outbox.drop(entry)
    assert (outbox.is_due, outbox.is_waiting) == (False, True)


def test_hurry_makes_all_that_waits_urgent() -> None:
    outbox = Outbox()
    dropped, _ = put(outbox, "dropped", "lag", urgent=False)
    put(outbox, "urgent")
    outbox.drop(dropped)
    outbox.hurry()
    outbox.hurry()
    assert outbox.is_due
    assert ids(outbox.take_batch()) == ["lag", "urgent"]
    outbox.in_flight = False
    put(outbox, "later", urgent=False)
    assert not outbox.is_due, "what comes after the hurry lags again"


def test_lagging_updates_behind_the_last_urgent_one_can_be_dropped() -> None:
    outbox = Outbox()
    put(outbox, "a", urgent=False)
    _, gone = put(outbox, "b", "gone")
    put(outbox, "c", urgent=False)
    outbox.drop(gone)
    outbox.drop_lagging()
    assert ids(outbox.take_batch()) == ["a", "b"]
    outbox.drop_lagging()
    assert not outbox.is_waiting


def test_patient_updates_do_not_ride_along() -> None:
    outbox = Outbox()
    outbox.put(update("timer"), patient=True)
    put(outbox, "a")
    assert ids(outbox.take_batch()) == ["a"]
    assert (outbox.is_waiting, outbox.is_lagging) == (False, True)
    outbox.hurry()
    outbox.in_flight = False
    assert outbox.is_due
    assert ids(outbox.take_batch()) == ["timer"]
    assert not outbox.is_lagging


def test_patient_updates_can_be_dropped() -> None:
    outbox = Outbox()
    outbox.drop(outbox.put(update("timer"), patient=True))
    outbox.put(update("other"), patient=True)
    outbox.drop_lagging()
    outbox.hurry()
    assert (outbox.is_due, outbox.is_lagging) == (False, False)


def test_clear_forgets_everything() -> None:
    outbox = Outbox()
    put(outbox, "a")
    outbox.put(update("timer"), patient=True)
    put(outbox, "b", urgent=False)
    outbox.clear()
    assert (outbox.is_due, outbox.is_waiting) == (False, False)
    assert outbox.take_batch() == ()
