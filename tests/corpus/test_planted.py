"""Planted defects: one for each law of the engine, each caught by a check of the corpus.

A check that nothing can make fail proves nothing. So each law is broken in turn, and the check that
watches over it must fail for a shape that is named here, and hold again once the defect is gone.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pyworkflow._api import step as step_module
from pyworkflow._api.base_context import BaseContext
from pyworkflow._engine import execution as execution_module
from pyworkflow._engine.attempts import AttemptedOperation, Attempts
from pyworkflow._engine.delivery_order import DeliveryOrder, Place
from pyworkflow._engine.execution import Execution
from pyworkflow._engine.ids import Namespace, hash_path
from pyworkflow._engine.journal import Journal
from pyworkflow._engine.messages import StepReturned
from pyworkflow._engine.ops.child import ChildOp
from pyworkflow._engine.ops.step import StepOp
from pyworkflow._engine.replay_fast_path import recall_step
from pyworkflow._protocol.records import Action, Operation, OperationType, Status, SubType
from pyworkflow._runtime.steps import StepRunner
from pyworkflow._values import exceptions
from pyworkflow._values.exception_classes import NOWHERE
from pyworkflow._values.exception_rebuilding import LostClassError, stand_in
from pyworkflow._values.exceptions import KnownErrors
from pyworkflow.errors import ReplayHazardError, ServiceError
from tests.corpus.checks import (
    check_crashes,
    check_error_classes,
    check_foreign_records,
    check_paces,
)
from tests.corpus.counting import count
from tests.corpus.shapes import SHAPES, Shape
from tests.corpus.test_histories import group_of, operations_of, outcome_in, read, replay
from tests.corpus.trials import AT_ONCE, Durations, outcome_of

SOME = Durations((1_000, 20_000, 7_000, 3, 12_000))
Patch = pytest.MonkeyPatch


async def crashes(shape: Shape) -> Any:
    return await check_crashes(shape, SOME)


async def wired_crashes(shape: Shape) -> Any:
    """Where the run goes on while a checkpoint is on its way."""
    return await check_crashes(shape, SOME, is_wired=True)


async def steady_crashes(shape: Shape) -> Any:
    """At a pace at which attempts that ran out of time come back while the next one runs."""
    return await check_crashes(shape, Durations((4_000,)))


async def paces(shape: Shape) -> Any:
    return await check_paces(shape, AT_ONCE, SOME)


async def foreign_records(shape: Shape) -> Any:
    return await check_foreign_records(shape)


async def error_classes(shape: Shape) -> Any:
    return await check_error_classes(shape)


async def histories(shape: Shape) -> Any:
    history = read(shape.name)[group_of(shape.name)]
    turn = await replay(shape, operations_of(history))
    assert turn.end is not None
    assert outcome_of(turn.end) == outcome_in(history)


# -- the defects ---------------------------------------------------------------------------------


def delivers_in_reverse(patch: Patch) -> None:
    """What is recorded reaches the code last end first."""
    place = DeliveryOrder.place

    def reversed_place(order: DeliveryOrder, record: Operation, number: int) -> Place:
        known, when, issue = place(order, record, number)
        return known, -when, issue

    patch.setattr(DeliveryOrder, "place", reversed_place)


def delivers_all_at_once(patch: Patch) -> None:
    """Ends do not reach the code one at a time, with the loop idle between them."""
    bring_next = Execution.bring_next

    def bring_all(execution: Execution) -> bool:
        brought = False
        while bring_next(execution):
            brought = True
        return brought

    patch.setattr(Execution, "bring_next", bring_all)


def compares_nothing(patch: Patch) -> None:
    """An operation takes its record whatever that is."""
    patch.setattr(execution_module, "difference", lambda op, record: None)


def recalls_without_comparing(patch: Patch) -> None:
    """The short way through replay takes any record at its place."""

    def blind(execution: Execution, settings: Any, args: Any, kwargs: Any) -> Any:
        namespace = execution.loop.namespace()
        unconsumed = execution.journal.unconsumed
        operation_id = hash_path(namespace.next_path())
        record = unconsumed.get(operation_id)
        if record is not None and settings.key is None:
            unconsumed[operation_id] = replace(
                record,
                type=OperationType.STEP,
                subtype=SubType.STEP,
                name=settings.name,
                parent_id=namespace.scope.operation_id,
            )
        return recall_step(execution, settings, args, kwargs)

    patch.setattr(step_module, "recall_step", blind)


def counts_globally(patch: Patch) -> None:
    """Ids count over the whole execution, in the order of issue."""
    counters: dict[Any, Any] = {}

    def take_path(namespace: Namespace) -> str:
        counter = counters.setdefault(namespace.scope, itertools.count(1))
        prefix = namespace.scope.operation_id
        return f"{prefix}-{next(counter)}" if prefix else str(next(counter))

    patch.setattr(Namespace, "take_path", take_path)
    patch.setattr(step_module, "recall_step", lambda *_: None)


def numbers_keys(patch: Patch) -> None:
    """A keyed operation takes a number like any other."""
    issue = Execution.issue

    def numbering(execution: Execution, op: Any) -> None:
        if op.path.startswith("key"):
            execution.loop.namespace().take_path()
        issue(execution, op)

    patch.setattr(Execution, "issue", numbering)


def hands_over_early(patch: Patch) -> None:
    """A step's result reaches the code before the checkpoint that records it."""
    deliver = StepOp.deliver

    def succeed(op: StepOp, payload: str, value: Any) -> None:
        op._value = (payload, value)
        op.end_attempt(op.update(Action.SUCCEED, payload))
        op.future.set_result(value)

    def deliver_late(op: StepOp, record: Operation) -> None:
        if not op.future.done():
            deliver(op, record)

    patch.setattr(StepOp, "succeed", succeed)
    patch.setattr(StepOp, "deliver", deliver_late)


def launches_before_replay(patch: Patch) -> None:
    """A body is launched though a recorded end waits for its delivery."""
    bring_next = Execution.bring_next
    told: set[Execution] = set()

    def hasty(execution: Execution) -> bool:
        if execution.attempts.waiting and execution.journal.order.ends and execution not in told:
            told.add(execution)
            return False
        return bring_next(execution)

    patch.setattr(Execution, "bring_next", hasty)


def forgets_who_runs(patch: Patch) -> None:
    """An outcome counts whichever attempt it is of, and though the step was abandoned."""
    launch = Attempts.launch
    known: dict[tuple[int, str], StepOp] = {}

    def remember(attempts: Attempts, op: StepOp, call: Any) -> None:
        known[id(attempts), call.id] = op
        launch(attempts, op, call)

    def take(attempts: Attempts, outcome: Any) -> StepOp | None:
        attempts.running.pop(outcome.id, None)
        return known.get((id(attempts), outcome.id))

    patch.setattr(Attempts, "launch", remember)
    patch.setattr(Attempts, "take_outcome_of", take)


def forgets_the_attempt(patch: Patch) -> None:
    """An outcome of an earlier attempt counts for the one that runs."""

    def take(attempts: Attempts, outcome: Any) -> AttemptedOperation | None:
        return attempts.running.pop(outcome.id, None)

    patch.setattr(Attempts, "take_outcome_of", take)


def lets_bodies_run_on(patch: Patch) -> None:
    """A cancelled step's launch is not taken back."""
    cancel = Attempts.cancel

    def keep(attempts: Attempts, op: StepOp) -> None:
        if op not in attempts.waiting:
            cancel(attempts, op)

    patch.setattr(Attempts, "cancel", keep)


def ignores_what_is_left(patch: Patch) -> None:
    """History that the code no longer asks for is not reported."""
    patch.setattr(Execution, "_check_consumption", lambda _: None)


def gives_live_values(patch: Patch) -> None:
    """The workflow receives what the body returned, and not what was decoded from the record."""
    returned = StepRunner.returned

    def raw(runner: StepRunner, call: Any, value: Any) -> StepReturned:
        fact = returned(runner, call, value)
        return StepReturned(fact.id, fact.attempt, fact.payload, value, fact.end_ms)

    patch.setattr(StepRunner, "returned", raw)


def begins_unrecorded(patch: Patch) -> None:
    """A body that may run at most once begins before its start is recorded."""
    begin = StepOp._begin_attempt

    def at_once(op: StepOp) -> None:
        begin(op)
        if op.settings.at_most_once:
            op._is_recorded_started = True
            op._launch()

    patch.setattr(StepOp, "_begin_attempt", at_once)


def tries_again(patch: Patch) -> None:
    """An attempt that may run at most once, and was cut off, is run again."""

    def replay(op: StepOp, record: Operation) -> None:
        op.attempt = record.ended_attempts + 1
        if record.status is not Status.STARTED:
            op.on_change(record)
            return
        op._is_recorded_started = True
        op._launch()

    patch.setattr(StepOp, "replay", replay)


def runs_children_again(patch: Patch) -> None:
    """The code of a child context runs although its outcome is recorded."""
    consume_below = Journal.consume_below

    def forget(journal: Journal, operation_id: str) -> None:
        below = [r.id for r in journal._records.values() if r.parent_id == operation_id]
        consume_below(journal, operation_id)
        for child_id in below:
            journal._records.pop(child_id, None)

    def replay_end(op: ChildOp, record: Operation) -> None:
        op.execution.journal.consume_below(op.id)

    patch.setattr(Journal, "consume_below", forget)
    patch.setattr(ChildOp, "replay_end", replay_end)


def takes_true_chance(patch: Patch) -> None:
    """`ctx.random` is not seeded by the execution."""
    patch.setattr(BaseContext, "_chance", lambda *_: random.SystemRandom())


def names_classes_by_their_modules(patch: Patch) -> None:
    """An error's class is looked for under the module's name that it had where it was raised."""
    patch.setattr(exceptions, "mark_of", lambda kind, _: f"{kind.__module__}:{kind.__qualname__}")


def replaces_lost_classes(patch: Patch) -> None:
    """An error whose class is not there reaches the code as one of another class."""
    rebuild = KnownErrors.rebuild

    def replace_lost(known: KnownErrors, record: Any, fallback: Any, home: Any = NOWHERE) -> Any:
        try:
            return rebuild(known, record, fallback, home)
        except LostClassError:
            return stand_in(record, fallback)

    patch.setattr(KnownErrors, "rebuild", replace_lost)


DEFECTS: tuple[tuple[Callable[[Patch], None], Callable[[Shape], Any], str], ...] = (
    (delivers_in_reverse, crashes, "order_of_arrival"),
    (delivers_in_reverse, crashes, "first_completed_and_the_rest"),
    (delivers_all_at_once, crashes, "first_completed"),
    (compares_nothing, foreign_records, "gather"),
    (compares_nothing, foreign_records, "children"),
    (recalls_without_comparing, foreign_records, "sequence"),
    (counts_globally, paces, "gather_of_sequences"),
    (counts_globally, histories, "nested_tasks"),
    (numbers_keys, histories, "keyed"),
    (hands_over_early, crashes, "sequence"),
    (hands_over_early, wired_crashes, "children"),
    (launches_before_replay, crashes, "first_completed"),
    (launches_before_replay, crashes, "child_under_a_limit"),
    (forgets_who_runs, crashes, "first_completed"),
    (forgets_the_attempt, steady_crashes, "steps_with_timeouts_side_by_side"),
    (lets_bodies_run_on, crashes, "first_completed"),
    (ignores_what_is_left, foreign_records, "sequence"),
    (ignores_what_is_left, foreign_records, "children_side_by_side"),
    (gives_live_values, crashes, "decoded_values"),
    (begins_unrecorded, wired_crashes, "careful"),
    (tries_again, crashes, "careful_between_others"),
    (runs_children_again, crashes, "children"),
    (takes_true_chance, crashes, "loops_on_chance"),
    (names_classes_by_their_modules, error_classes, "errors_of_its_own"),
    (replaces_lost_classes, error_classes, "errors_of_its_own_out_of_a_child"),
)


@pytest.mark.parametrize(
    ("plant", "check", "name"),
    DEFECTS,
    ids=[f"{plant.__name__}-{name}" for plant, _, name in DEFECTS],
)
def test_a_planted_defect_is_caught(
    plant: Callable[[Patch], None], check: Callable[[Shape], Any], name: str
) -> None:
    shape = SHAPES[name]
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        with pytest.raises((AssertionError, ServiceError, ReplayHazardError)):
            asyncio.run(check(shape))
    asyncio.run(check(shape))
    count("planted defects caught, by a shape each")


def test_each_law_has_its_defect() -> None:
    plants = {plant for plant, _, _ in DEFECTS}
    assert len(plants) >= 15
    assert all(plant.__doc__ for plant in plants)


def test_the_documents_list_each_defect_with_what_catches_it() -> None:
    text = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text("utf-8")
    rows = {line for line in text.splitlines() if line.startswith("| ")}
    for plant, _, name in DEFECTS:
        found = [row for row in rows if f"`{plant.__name__}`" in row]
        assert len(found) == 1, plant.__name__
        assert f"`{name}`" in found[0]
