"""Histories, records and inputs that no service would give: whatever comes, nothing worse follows.

A replay over a fuzzed history ends in a result, in one of this library's errors, in the workflow's
own error, or waits for what never comes. It ends at all, and it runs no body whose end is recorded.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pyworkflow import PyWorkflowError, step
from pyworkflow._engine.messages import Broken, Failed, Succeeded, Suspended
from pyworkflow._protocol.records import (
    Operation,
    OperationType,
    Status,
    SubType,
)
from pyworkflow.errors import NonDeterminismError, ServiceError
from tests.corpus.counting import count
from tests.corpus.garbage import EXAMPLES, errors, numbers, payloads, texts
from tests.corpus.programs import main
from tests.corpus.resuming import SCHEDULES, body, check_launches, histories
from tests.corpus.test_changed_code import KEYED, PROGRAMS
from tests.engine import test_interleavings as interleavings
from tests.engine.harness import Run, Service

MOST_TURNS = 300

OWN_ERRORS = (PyWorkflowError, OSError, ValueError, ExceptionGroup)
"""What the workflows raise themselves, and what the fuzzed records name."""


@dataclasses.dataclass
class Order:
    id: int
    at: datetime | None = None


@step
async def typed(name: str, argument: int) -> Order:
    raise AssertionError("the test runs the bodies")


@step(at_most_once=True)
async def careful(name: str, argument: int) -> list[Decimal]:
    raise AssertionError("the test runs the bodies")


async def annotated() -> Any:
    order = await typed("order", 1)
    return [order.id, *await careful("careful", 2)]


# -- real histories ------------------------------------------------------------------------------


def answer(call: Any) -> Any:
    """What the body of a step gives, whichever workflow it belongs to."""
    match call.settings.function.__name__:
        case "typed":
            return Order(1)
        case "careful":
            return [Decimal(1)]
        case _ if len(call.args) == 1:
            return interleavings._body(call.name, call.attempt)
    return body(*call.args, attempt=call.attempt)


SHAPES: tuple[Callable[..., Any], ...] = (
    annotated,
    interleavings.chained,
    interleavings.careful,
    interleavings.failing,
    interleavings.timeouts,
    interleavings.racing,
    interleavings.group_fails,
    interleavings.nested,
    interleavings.children_fail,
    interleavings.leaves_tasks,
    interleavings.blocking,
)


@functools.cache
def real_histories() -> list[tuple[Callable[..., Any], list[Operation]]]:
    """Return every state that the runs of some workflows leave, with the workflow."""
    found: list[tuple[Callable[..., Any], list[Operation]]] = []
    for program in (*PROGRAMS.values(), KEYED):
        for schedule in SCHEDULES[:2]:
            states = histories(program, schedule)
            found += ((main(program), list(state.operations.values())) for state in states[1:])
    for shape in SHAPES:
        for sequences in (True, False):
            service = Service(sequences=sequences)
            drive(shape, service, on_record=lambda: found.append((shape, service.load())))  # noqa: B023
    return found


def drive(
    function: Callable[..., Any],
    service: Service,
    *,
    history: list[Operation] | None = None,
    on_record: Callable[[], Any] = lambda: None,
) -> str:
    """Run to the end, whatever that is; return its kind."""
    run = Run(function, service, history=history)
    try:
        for _ in range(MOST_TURNS):
            check_launches(run)
            if run.end is None:
                on_record()
                go_on(run)
            elif isinstance(run.end, Suspended):
                if not fire_next(service):
                    return "waits for what never comes"
                run.close()
                run = Run(function, service)
            else:
                return kind_of(run)
    except ServiceError as error:
        return f"refused: {type(error).__name__}"
    finally:
        run.close()
    raise AssertionError("it does not end")


def service_of(history: list[Operation]) -> Service:
    """Return a service that holds ``history``, and numbers ends if that does."""
    service = Service(sequences=history[-1].sequence is not None)
    service.operations = {each.id: each for each in history}
    service.now_ms = max(max(each.start_ms, each.end_ms or 0) for each in history)
    service._ends = len(history)
    return service


def go_on(run: Run) -> None:
    if run.in_flight is not None:
        run.commit()
    elif run.running:
        call = next(iter(run.running.values()))
        run.finish(call, lambda: answer(call))
    else:
        run.lag()


def fire_next(service: Service) -> bool:
    """Let the next thing come due that has a time; return whether there was one."""
    for operation in list(service.operations.values()):
        times = (operation.next_attempt_ms, operation.scheduled_end_ms)
        is_due = operation.status is Status.PENDING and times[0] is not None
        is_wait = operation.type is OperationType.WAIT and not operation.ended
        if is_due or (is_wait and times[1] is not None):
            status = Status.READY if is_due else Status.SUCCEEDED
            fired = replace(operation, status=status, next_attempt_ms=None)
            service._put(replace(fired, end_ms=service.now_ms) if is_wait else fired)
            return True
    return False


def kind_of(run: Run) -> str:
    match run.end:
        case Succeeded():
            return "a result"
        case Broken(error):
            assert isinstance(error, NonDeterminismError)
            assert not run.running
            return "stopped"
        case Failed(_, error):
            assert isinstance(error, OWN_ERRORS), repr(error)
            return f"failed: {type(error).__name__}"
    raise AssertionError(run.end)


# -- what is done to them ------------------------------------------------------------------------

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "status": st.sampled_from(Status),
    "type": st.sampled_from([each for each in OperationType if each != "EXECUTION"]),
    "subtype": st.none() | st.sampled_from(SubType) | texts,
    "name": st.none() | texts,
    "payload": payloads,
    "error": errors,
    "sequence": st.none() | numbers,
    "ended_attempts": numbers,
    "start_ms": numbers,
    "end_ms": st.none() | numbers,
    "next_attempt_ms": st.none() | numbers,
    "scheduled_end_ms": st.none() | numbers,
    "replay_children": st.booleans(),
    "callback_id": st.none() | texts,
}
EDITS = [*VALUES, "drop", "repeat", "move", "parent_id", "id", "record of the order"]


@st.composite
def fuzzed(draw: st.DrawFn) -> tuple[Callable[..., Any], list[Operation]]:
    function, history = draw(st.sampled_from(real_histories()))
    history = list(history)
    for _ in range(draw(st.integers(1, 4))):
        if len(history) > 1:
            _edit(draw, history)
    return function, history


def _edit(draw: st.DrawFn, history: list[Operation]) -> None:
    at, edit = draw(st.integers(1, len(history) - 1)), draw(st.sampled_from(EDITS))
    ids = st.sampled_from([each.id for each in history]) | texts
    match edit:
        case "drop":
            del history[at]
        case "repeat":
            copy = history[at]
            if draw(st.booleans()):
                copy = replace(copy, parent_id=draw(st.none() | ids))
            history.insert(draw(st.integers(1, len(history))), copy)
        case "move":
            history.insert(draw(st.integers(1, len(history) - 1)), history.pop(at))
        case "parent_id":
            history[at] = replace(history[at], parent_id=draw(st.none() | ids))
        case "id":
            history[at] = replace(history[at], id=draw(ids.filter(lambda i: i != "root")))
        case "record of the order":
            order = draw(st.permutations([each.id for each in history]))
            history.append(_order_record(draw(payloads | st.just(json.dumps(order)))))
        case _:
            history[at] = replace(history[at], **{edit: draw(VALUES[edit])})


def _order_record(payload: str | None) -> Operation:
    """What stands in a history where ends were learned out of order."""
    return Operation(
        id=blake2b(b"delivery-order-0").hexdigest()[:64],
        type=OperationType.STEP,
        status=Status.SUCCEEDED,
        start_ms=0,
        end_ms=0,
        name="pyworkflow delivery order",
        payload=payload,
    )


@given(fuzzed())
@settings(max_examples=10 * EXAMPLES)
def test_a_fuzzed_history_ends_in_nothing_worse_than_an_error(
    case: tuple[Callable[..., Any], list[Operation]],
) -> None:
    function, history = case
    end = drive(function, service_of(history), history=history)
    count(f"fuzzed history: {end}")


def test_the_histories_are_real() -> None:
    """Each of them, as it is, leads to a result or to an error that the workflow raises."""
    found = real_histories()
    assert len(found) > 200
    own = {"a result", "failed: FatalError", "failed: StepInterruptedError", "failed: TimeoutError"}
    for function, history in found:
        assert drive(function, service_of(history), history=history) in own


def test_a_child_that_is_recorded_below_itself_is_no_endless_matter() -> None:
    """Twice in the history, once as it was and once as a child of its own step."""
    function, history = next(
        (function, history)
        for function, history in real_histories()
        if any(each.ended and each.type is OperationType.CONTEXT for each in history)
    )
    child = next(each for each in history if each.ended and each.type is OperationType.CONTEXT)
    below = next(each for each in history if each.parent_id == child.id)
    history = [history[0], replace(child, parent_id=below.id), *history[1:]]
    assert drive(function, service_of(history), history=history) == "a result"
