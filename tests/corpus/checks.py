"""What is asserted of a shape. Each check takes a shape, and says how many cases it tried.

With one crash, whatever each body takes:

============================================  ======================================================
in this case                                  this holds
============================================  ======================================================
a shape that is no race                       the outcome, and each operation whose end reached the
                                              code, are those of the run without a crash
a race, and a body's work goes on in a crash  the same
a race with a close call (`CLOSE_MS`)         what holds of every run, see below
a race, and a body's work begins anew         the same, for others may overtake it
a body that may run at most once was cut off  the same; the outcome is one of those that the shape
                                              names for it, and no attempt has run twice
============================================  ======================================================

Of every run: what `Watch` asserts holds; an id stands for the same operation as in the run without
a crash (where another may have won a race: for the same place in the code); the outcome is one that
the shape allows; and the whole record, replayed, leads to that outcome with nothing launched or
written.
"""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from types import ModuleType

import pytest
from msgspec.structs import replace

from pyworkflow._engine.messages import Broken, Turn
from pyworkflow._protocol.records import Operation, OperationType, Status
from pyworkflow.errors import NonDeterminismError
from pyworkflow.testing._verify import Replay
from tests.corpus.registry import Shape
from tests.corpus.trials import (
    AT_ONCE,
    KNOWN,
    NONE,
    Crashes,
    Durations,
    Trial,
    is_one_of,
    outcome_of,
)

Counts = Counter[str]

EXACT = "crashes: nothing changed"
EXACT_RACE = "crashes in a race: nothing changed"
CLOSE = "crashes in a race, with a close call: the laws of every run"
ANEW = "crashes in a race, work begins anew: the laws of every run"
CUT_OFF = "crashes in a body that may run at most once: one of its outcomes"


async def check_crashes(shape: Shape, durations: Durations, *, is_wired: bool = False) -> Counts:
    """Crash before and after each checkpoint in turn, then after each of them at once.

    The service answers at once; if ``is_wired``, the run goes on before it does.
    """
    counts: Counts = Counter()
    calm = await Trial(shape, durations, is_wired=is_wired).run()
    assert not shape.outcomes or is_one_of(calm.outcome, shape.outcomes), calm.outcome
    numbers = range(1, calm.commits + 1)
    ordered = [(number,) for number in numbers] + [tuple(range(1, 200))]
    # What takes no time takes none again.
    for resumes in (True, False) if durations.values else (True,):
        for each in ordered:
            for crashes in (
                Crashes(after=each, resumes=resumes),
                Crashes(before=each[:1], resumes=resumes),
            ):
                try:
                    crashed = await Trial(shape, durations, crashes, is_wired).run()
                    counts[_compare(calm, crashed)] += 1
                except Exception as error:
                    what = f"{shape.name}, {durations}, {crashes}"
                    raise AssertionError(f"{what}: {error}") from error
    return counts


def _compare(calm: Trial, crashed: Trial) -> str:
    shape = calm.shape
    _check_identities(calm, crashed, is_race=shape.is_race)
    if crashed.watch.interrupted:
        allowed = (*shape.interrupted, *shape.outcomes)
        assert not allowed or is_one_of(crashed.outcome, allowed), crashed.outcome
        return CUT_OFF
    if shape.is_race and not crashed.crashes.resumes:
        verdict = ANEW
    elif shape.is_race and calm.has_close_call():
        verdict = CLOSE
    else:
        verdict = EXACT_RACE if shape.is_race else EXACT
    if verdict in (EXACT, EXACT_RACE):
        _check_identities(calm, crashed, is_race=False)
        assert crashed.outcome == calm.outcome, f"{crashed.outcome} instead of {calm.outcome}"
        assert crashed.reached() == calm.reached()
    else:
        assert not shape.outcomes or is_one_of(crashed.outcome, shape.outcomes), crashed.outcome
    return verdict


def _check_identities(one: Trial, other: Trial, *, is_race: bool) -> None:
    """An id that both runs know stands for one operation.

    What comes next in a race may be named after its winner; its place stays its place.
    """
    first, second = one.identities(), other.identities()
    for operation_id in first.keys() & second.keys():
        here, there = first[operation_id], second[operation_id]
        if is_race:
            here, there = here[-2:], there[-2:]
        assert here == there, f"an id stands for {here} and for {there}"


async def check_paces(shape: Shape, first: Durations, second: Durations) -> Counts:
    """Run at two paces: an id stands for the same, and no race makes no difference."""
    slow, fast = await Trial(shape, first).run(), await Trial(shape, second).run()
    _check_identities(slow, fast, is_race=shape.is_race)
    if not shape.is_race:
        assert fast.outcome == slow.outcome
        assert fast.reached() == slow.reached()
    return Counter({"pairs of paces": 1})


# -- records that do not fit ---------------------------------------------------------------------


async def check_foreign_records(shape: Shape) -> Counts:
    """Change one operation of the record at a time, or add one: each must be noticed.

    What lies below a child context that is over is not asked for again; it is left alone.
    """
    calm = await Trial(shape).run()
    counts: Counts = Counter()
    for index, operation in enumerate(calm.operations):
        if operation.type is OperationType.EXECUTION or _is_skipped(operation, calm):
            continue
        other = OperationType.WAIT if operation.type is OperationType.STEP else OperationType.STEP
        for changed in (
            replace(operation, name="another name"),
            replace(operation, type=other),
            replace(operation, subtype="AnotherKind"),
            replace(operation, parent_id="another parent"),
        ):
            operations = list(calm.operations)
            operations[index] = changed
            await _must_stop(shape, tuple(operations), f"{operation.name} was changed")
            counts["changed records: noticed"] += 1
    stranger = Operation(
        id="0" * 64,
        type=OperationType.STEP,
        subtype="Step",
        status=Status.SUCCEEDED,
        name="stranger",
        payload="1",
        start_ms=calm.operations[0].start_ms,
        end_ms=calm.operations[0].start_ms,
        sequence=10_000,
    )
    await _must_stop(shape, (*calm.operations, stranger), "an operation was added")
    counts["added records: noticed"] += 1
    return counts


async def check_error_classes(shape: Shape) -> Counts:
    """Replay in a process that loaded the shape's file under another name, then without its errors.

    The first leads to the same outcome, the second to a problem that names the class.
    """
    module = sys.modules[inspect.unwrap(shape.workflow).__module__]
    classes = {name: each for name, each in vars(module).items() if _is_own_error(each, module)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "__main__", module)
        patch.setitem(vars(module), "__name__", "__main__")
        for each in classes.values():
            patch.setattr(each, "__module__", "__main__")
        trial = await Trial(shape, AT_ONCE).run()
    turn = await Replay(shape.workflow, trial.operations, KNOWN).run()
    assert turn.end is not None
    assert outcome_of(turn.end) == trial.outcome
    types = {each.error.type for each in trial.operations if each.error is not None}
    lost = {name for name in classes if f"__main__.{name}" in types}
    assert lost
    with pytest.MonkeyPatch.context() as patch:
        for name in lost:
            patch.delitem(vars(module), name)
        turn = await Replay(shape.workflow, trial.operations, KNOWN).run()
    assert isinstance(turn.end, Broken), f"a lost class was not noticed: {turn}"
    assert any(f"recorded:  __main__.{name}" in str(turn.end.error) for name in lost)
    return Counter({"error classes found under another name, and missed": len(lost)})


def _is_own_error(each: object, module: ModuleType) -> bool:
    is_error = isinstance(each, type) and issubclass(each, Exception)
    return is_error and each.__module__ == module.__name__


def _is_skipped(operation: Operation, trial: Trial) -> bool:
    records = {each.id: each for each in trial.operations}
    parent = records.get(operation.parent_id or "")
    if parent is None:
        return False
    return (parent.ended and not parent.replay_children) or _is_skipped(parent, trial)


async def _must_stop(shape: Shape, operations: tuple[Operation, ...], what: str) -> None:
    turn: Turn = await Replay(shape.workflow, operations, KNOWN).run()
    assert isinstance(turn.end, Broken), f"{shape.name}: {what}, and nobody noticed: {turn}"
    assert isinstance(turn.end.error, NonDeterminismError)
    assert not turn.launch
    assert not turn.write


__all__ = ["AT_ONCE", "NONE", "check_crashes", "check_foreign_records", "check_paces"]
