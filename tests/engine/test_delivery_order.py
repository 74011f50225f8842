"""Delivery by number where the service counts ends, by time where it does not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec.structs import replace

from pyworkflow import Retry, step
from pyworkflow._engine.delivery_order import DeliveryOrder
from pyworkflow._engine.ids import hash_path
from pyworkflow._engine.messages import Broken, Suspended
from pyworkflow._protocol.records import Action, Operation, OperationType, Status
from tests.engine.harness import Run, Service


class Issued:
    """As much of an operation as the order looks at."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.abandoned = False


def ended(operation_id: str, end_ms: int, **fields: Any) -> Operation:
    return Operation(
        id=operation_id,
        type=fields.pop("type", OperationType.STEP),
        status=Status.SUCCEEDED,
        start_ms=0,
        end_ms=end_ms,
        **fields,
    )


def put(order: DeliveryOrder, number: int, record: Operation) -> Issued:
    issued: Any = Issued(number)
    order.put(issued, record, is_replay=False)
    return issued  # type: ignore[no-any-return]


def drain(order: DeliveryOrder) -> list[str]:
    taken = []
    while order.ends:
        taken.append(order.take()[1].id)
    return taken


def test_the_number_alone_decides() -> None:
    order = DeliveryOrder()
    put(order, 1, ended("late", 1, sequence=2))
    put(order, 2, ended("early", 9, sequence=1))
    assert order.next_ms() is None
    assert drain(order) == ["early", "late"]
    assert order.take_record() == ()


def test_times_decide_then_the_order_of_issue() -> None:
    order = DeliveryOrder()
    put(order, 3, ended("c", 5))
    put(order, 2, ended("b", 5))
    put(order, 1, ended("a", 6))
    assert order.next_ms() == 5
    assert drain(order) == ["b", "c", "a"]
    assert order.next_ms() is None


def test_a_wait_counts_from_when_it_was_due_or_ended_earlier() -> None:
    order = DeliveryOrder()
    put(order, 1, ended("late", 90, type=OperationType.WAIT, scheduled_end_ms=40))
    put(order, 2, ended("step", 50))
    put(order, 3, ended("early", 30, type=OperationType.WAIT, scheduled_end_ms=60))
    assert drain(order) == ["early", "late", "step"]


def test_an_end_without_a_time_counts_from_its_start() -> None:
    order = DeliveryOrder()
    put(order, 1, replace(ended("a", 0), end_ms=None, start_ms=7))
    assert order.next_ms() == 7


def test_an_end_that_is_learned_too_late_asks_for_a_record() -> None:
    order = DeliveryOrder()
    put(order, 1, ended("a", 10))
    put(order, 2, ended("c", 30))
    assert drain(order) == ["a", "c"]
    assert order.take_record() == ()
    put(order, 3, ended("b", 20))
    assert drain(order) == ["b"]
    (update,) = order.take_record()
    assert update.action is Action.SUCCEED
    assert json.loads(update.payload or "") == ["a", "c", "b"]
    assert order.take_record() == ()


def test_an_abandoned_end_is_not_delivered() -> None:
    order = DeliveryOrder()
    put(order, 2, ended("b", 20))
    drain(order)
    put(order, 1, ended("a", 10)).abandoned = True
    drain(order)
    assert order.take_record() == ()


def test_the_last_record_is_obeyed() -> None:
    first, again = DeliveryOrder(), DeliveryOrder()
    records: dict[str, Operation] = {}
    for late in (20, 15):
        put(first, 1, ended(f"z{late}", 30))
        put(first, 2, ended(f"y{late}", late))
        first.take()
        drain(first)
        put(first, 3, ended(f"x{late}", 1))
        drain(first)
        (update,) = first.take_record()
        records[update.id] = ended(update.id, 0, payload=update.payload)
    assert again.load(records) == list(records)
    put(again, 1, ended("x20", 1))
    put(again, 2, ended("new", 0))
    put(again, 3, ended("z20", 30))
    put(again, 4, ended("y20", 20))
    assert again.next_ms() is None
    assert drain(again) == ["y20", "z20", "x20", "new"]
    assert again.take_record() == ()


def test_a_record_that_did_not_end_is_known_but_says_nothing() -> None:
    first = DeliveryOrder()
    put(first, 2, ended("b", 2))
    drain(first)
    put(first, 1, ended("a", 1))
    drain(first)
    (update,) = first.take_record()
    again = DeliveryOrder()
    begun = replace(ended(update.id, 0), status=Status.STARTED)
    assert again.load({update.id: begun}) == [update.id]
    put(again, 1, ended("a", 1))
    put(again, 2, ended("b", 2))
    assert drain(again) == ["a", "b"]


# -- in the engine -------------------------------------------------------------------------------


@step(retry=False)
async def fetch(name: str) -> str:
    return name


async def race(ctx: Any) -> list[str]:
    order: list[str] = []

    async def one(name: str) -> None:
        await fetch.options(name=name)(name)
        order.append(name)

    await asyncio.gather(one("a"), one("b"))
    await fetch.options(name="-".join(order))("end")
    return order


def test_a_tie_that_was_delivered_the_other_way_is_recorded_and_replayed() -> None:
    service = Service(sequences=False)
    run = Run(race, service)
    run.settle()
    service.now_ms = 5_000_000
    run.done("b", "b")
    service.now_ms -= 10  # both ends bear the same time, and "a" was issued first
    run.done("a", "a")
    assert [u.name for u in service.batches[-1]] == ["a"]
    assert run.call("b-a").attempt == 1
    run.lag()
    run.settle()
    assert service.batches[-1][0].name == "pyworkflow delivery order"
    again = run.crash(race)
    assert again.call("b-a").attempt == 1
    again.done("b-a", "end")
    assert again.value == ["b", "a"]


async def wait_or_step(ctx: Any) -> str:
    try:
        async with asyncio.timeout(10):
            return await fetch("x")
    except TimeoutError:
        return "timeout"


def test_an_end_waits_for_a_wait_that_was_due_before_it() -> None:
    service = Service(sequences=False)
    run = Run(wait_or_step, service)
    run.lag()
    run.settle()
    service.now_ms += 20_000  # the timer is due, but nobody has said so yet
    run.done("fetch", "x")
    assert isinstance(run.end, Suspended)
    again = run.wake(wait_or_step)
    assert again.end is not None
    assert again.value == "timeout"


def test_an_end_before_the_wait_is_due_goes_first() -> None:
    service = Service(sequences=False)
    run = Run(wait_or_step, service)
    run.lag()
    run.settle()
    run.done("fetch", "x")
    assert run.value == "x"


@step(retry=Retry(delay="1s", jitter=False))
async def tried_twice() -> str:
    return "at last"


def test_no_start_is_written_of_what_an_end_that_waits_holds_back() -> None:
    """A later run would find it, and could not know that its body never ran."""

    async def main(ctx: Any) -> Any:
        return await asyncio.gather(asyncio.sleep(10), tried_twice(), fetch("x"))

    service = Service(sequences=False)
    run = Run(main, service)
    run.lag()
    run.settle()
    run.fail("tried_twice", ValueError("not yet"))
    run.settle()
    service.fire_next()
    service.now_ms += 20_000  # the timer is due, but nobody has said so yet
    run.done("fetch", "x")
    assert isinstance(run.end, Suspended)
    assert [one.status for one in service.named("tried_twice")] == [Status.READY]
    again = run.wake(main)
    again.done("tried_twice", "at last")
    assert again.value == [None, "at last", "x"]
    assert again.launched == [("tried_twice", 2)]


def test_a_start_that_is_recorded_is_followed_by_its_body() -> None:
    """It may run at most once: no later run would begin it."""

    async def main(ctx: Any) -> Any:
        async def careful() -> str:
            await tried_twice()
            return await fetch.options(name="careful", at_most_once=True)("y")

        return await asyncio.gather(asyncio.sleep(10), careful(), fetch("x"))

    service = Service(sequences=False)
    run = Run(main, service)
    run.lag()
    run.settle()
    run.ok("tried_twice", "at last")
    run.ok("fetch", "x")
    run.commit()
    assert [u.name for u in run.in_flight or ()] == ["fetch", "careful"]
    service.now_ms += 20_000  # the timer is due, but nobody has said so yet
    run.settle()
    assert run.end is None
    run.done("careful", "y")
    assert isinstance(run.end, Suspended)
    assert run.wake(main).value == [None, "y", "x"]


@pytest.mark.parametrize("payload", ["{", "null", "[1]", "garbage"])
def test_an_order_record_that_can_not_be_read_stops_the_run(payload: str) -> None:
    service = Service(sequences=False)
    record = Operation(
        id=hash_path("delivery-order-0"),
        type=OperationType.STEP,
        status=Status.SUCCEEDED,
        start_ms=0,
        payload=payload,
    )
    service.operations[record.id] = record
    run = Run(wait_or_step, service)
    assert isinstance(run.end, Broken)
    assert "the record of the order of delivery can't be read" in str(run.end.error)
    assert run.launched == []
    run.close()
