"""Changed code over old history: every change at every place, at every point of the original's run.

Each case ends in one of two ways. Either what is recorded is consumed whole, by the operations of
the same ids, and the execution goes on to the changed program's result, with each step recorded
once. Or the run is stopped by a `NonDeterminismError` that shows both sides, and nothing is
launched or written. Which of the two it must be, `programs.Walk` says without an engine.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pyworkflow._engine.messages import Broken, Succeeded
from pyworkflow.errors import NonDeterminismError
from tests.corpus.counting import count
from tests.corpus.mutations import Mutation, mutations
from tests.corpus.programs import (
    Child,
    Gather,
    Node,
    Place,
    Program,
    Step,
    Task,
    Timeout,
    Wait,
    Walk,
    main,
    step_values,
)
from tests.corpus.resuming import SCHEDULES, Recorded, Schedule, histories, to_end
from tests.engine.harness import Run

if TYPE_CHECKING:
    from collections.abc import Iterator

a, b, c, d, e, r = (Step(name) for name in ("a", "b", "c", "d", "e", "r"))
nap, rest = Wait("nap"), Wait("rest", 30)

PROGRAMS: dict[str, Program] = {
    "steps": (a, b, c),
    "steps and waits": (a, nap, r, rest, b),
    "gather": (a, Gather(((b,), (c, d), (nap, e))), r),
    "gather alone": (Gather(((a, b), (nap,), (r, c))),),
    "gather in gather": (Gather(((Gather(((a,), (b,))), c), (d,))), e),
    "tasks": (a, Task((b, nap)), Task((Task((c,)), d)), e),
    "child": (a, Child("child", (b, nap, c)), d),
    "children": (Child("one", (a, Child("two", (b, rest)), c)), nap, d),
    "children at once": (Gather(((Child("one", (a, r)),), (Child("two", (b, nap, c)),))), d),
    "gather in child": (Child("one", (Gather(((a,), (b, nap))), c)), d),
    "timeouts": (a, Timeout((b, nap)), Gather(((Timeout((c,)),), (r,))), d),
    "some keys": (Step("a", key="a"), b, Wait("nap", key="nap"), Child("c", (c, d), key="c"), e),
}
KEYED: Program = (
    Step("a", key="a"),
    Step("b", key="b"),
    Wait("nap", key="nap"),
    Child("one", (Step("c", key="c"), Step("d", key="d")), key="one"),
    Step("e", key="e"),
)

TURNS = 7
"""In the normal run a change comes at each so many-th state; with all its places, at each state."""

IS_LONG = os.environ.get("HYPOTHESIS_PROFILE") == "proof"
USED = SCHEDULES if IS_LONG else SCHEDULES[:2]

each_schedule = pytest.mark.parametrize("schedule", USED, ids=str)
each_program = pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)


def cases(program: Program, schedule: Schedule) -> Iterator[tuple[Mutation, list[Recorded]]]:
    """Yield each change with the states at which it comes: all of them, or a few in turns."""
    states = histories(program, schedule)
    for number, mutation in enumerate(mutations(program)):
        yield mutation, states if IS_LONG else states[number % TURNS :: TURNS]


def must_go_on(program: Program, state: Recorded) -> Walk | None:
    """Return the walk over ``state`` if ``program`` can go on from there."""
    walk = Walk(state.own, is_reach=True)
    walk.go(program, Place())
    return None if walk.differs or walk.unseen else walk


def check_stopped(run: Run, before: Recorded) -> None:
    assert isinstance(run.end, Broken)
    assert isinstance(run.end.error, NonDeterminismError)
    text = str(run.end.error)
    assert "  recorded:  " in text
    assert "  attempted: " in text
    assert run.launched == []
    assert run.in_flight is None
    assert run.service.operations == before.operations


def check_went_on(run: Run, program: Program, walk: Walk) -> None:
    """The program came to its own result, over one record for each of its steps."""
    expected = walk.go(program, Place())
    assert isinstance(run.end, Succeeded), run.end
    assert run.value == expected
    operations = {i: o for i, o in run.service.operations.items() if i != "root"}
    assert step_values(operations) == walk.steps
    assert all(o.ended for o in operations.values() if o.type == "STEP")


def resume(program: Program, state: Recorded, schedule: Schedule) -> str:
    """Take ``program`` up from ``state``; return what became of it."""
    walk = must_go_on(program, state)
    assert walk is None or not walk.stale, "the program was made to have no such case"
    function = main(program)
    run = Run(function, state.to_service(schedule))
    if walk is None:
        check_stopped(run, state)
        verdict = "stopped"
    else:
        run = to_end(run, function, schedule)
        check_went_on(run, program, Walk(state.own, is_reach=False))
        verdict = "went on"
    run.close()
    return verdict


@each_schedule
@each_program
def test_changed_code_goes_on_unaffected_or_is_stopped(
    program: Program, schedule: Schedule
) -> None:
    for mutation, states in cases(program, schedule):
        for state in states:
            try:
                verdict = resume(mutation.program, state, schedule)
            except AssertionError as error:
                raise AssertionError(f"{mutation}, over {show(state)}") from error
            count(f"changed code: {verdict}")


# -- the remedies --------------------------------------------------------------------------------


@each_schedule
@each_program
def test_with_a_patch_every_change_goes_on(program: Program, schedule: Schedule) -> None:
    """On the old way or the new one, whole, and so through a crash after each further write."""
    for mutation, states in cases(program, schedule):
        function = main(mutation.patched)
        for state in states:
            run = Run(function, state.to_service(schedule))
            run = to_end(run, function, schedule, crashes=True)
            is_new = bool(run.service.named("patched p"))
            walk = Walk(state.own, is_reach=False, patches={"p": is_new})
            try:
                check_went_on(run, mutation.patched, walk)
            except AssertionError as error:
                raise AssertionError(f"{mutation}, over {show(state)}") from error
            run.close()
            way = "new" if is_new else "old"
            count(f"changed code with a patch: went on, the {way} way")


MOVES = {"swapped", "moved into a task", "taken out of a task", "made concurrent", "timeout added"}


@each_schedule
def test_with_keys_what_only_moves_keeps_its_record(schedule: Schedule) -> None:
    """Changes of order and concurrency stop no run but where half of what moved is recorded."""
    positional = _without_keys(KEYED)
    stopped = dict.fromkeys((KEYED, positional), 0)
    for program in stopped:
        for mutation in mutations(program):
            for state in histories(program, schedule):
                verdict = resume(mutation.program, state, schedule)
                kind = "with keys" if program is KEYED else "the same without keys"
                count(f"changed code {kind}: {verdict}")
                if mutation.kind in MOVES:
                    stopped[program] += verdict == "stopped"
                if program is KEYED and mutation.kind in MOVES and is_whole(mutation, state):
                    assert verdict == "went on", f"{mutation}, over {show(state)}"
    assert 0 < stopped[KEYED] < stopped[positional]


def is_whole(mutation: Mutation, state: Recorded) -> bool:
    """Whether all that ``mutation`` moved is recorded as ended, or nothing of it is recorded."""
    names = {getattr(node, "name", "") for node in mutation.old}
    found = [each for each in state.own.values() if each.name in names]
    return not found or (len(found) == len(names) and all(each.ended for each in found))


def _without_keys(program: Program) -> Program:
    plain: list[Node] = []
    for node in program:
        match node:
            case Child():
                plain.append(replace(node, key=None, body=_without_keys(node.body)))
            case Step() | Wait():
                plain.append(replace(node, key=None))
            case _:
                plain.append(node)
    return tuple(plain)


# -- what can't be told --------------------------------------------------------------------------


def stale_steps(old: Program, new: Program, keep: int) -> list[str]:
    """Run ``old`` until ``keep`` steps are recorded, then ``new`` to its end; return its result."""
    schedule = SCHEDULES[0]
    state = next(
        state
        for state in histories(old, schedule)
        if sum(each.ended for each in state.own.values()) == keep
    )
    function = main(new)
    run = to_end(Run(function, state.to_service(schedule)), function, schedule)
    assert isinstance(run.end, Succeeded), run.end
    run.close()
    value: list[str] = run.value
    return value


one, two, three = (Step("pay", number) for number in (1, 2, 3))


def test_limit_steps_of_equal_names_that_swap_keep_each_others_results() -> None:
    """Arguments are not recorded, so two calls of one step are told apart by position alone."""
    assert stale_steps((one, two, a), (two, one, a), keep=2) == ["pay(1)", "pay(2)", "a(0)"]


def test_limit_a_step_inserted_before_one_of_its_name_takes_its_record() -> None:
    """And the one behind it is made once more: ``pay(1)`` has run, and runs again."""
    assert stale_steps((one, a), (two, one, a), keep=1) == ["pay(1)", "pay(1)", "a(0)"]


def test_limit_a_step_removed_before_one_of_its_name_leaves_it_its_record() -> None:
    """``pay(2)`` never runs: it was taken for ``pay(1)``."""
    assert stale_steps((one, two, a), (two, a), keep=1) == ["pay(1)", "a(0)"]


def test_limit_waits_without_a_name_are_all_alike() -> None:
    """A timer of asyncio, `ctx.sleep` and a timeout differ in nothing that is recorded."""
    short, long = Wait(None, 10), Wait(None, 1000)
    schedule = SCHEDULES[0]
    state = histories((short, a), schedule)[2]
    assert [each.ended for each in state.own.values()] == [True]
    run = Run(main((long, a)), state.to_service(schedule))
    assert list(run.launched) == [("a", 1)]
    run.close()


@pytest.mark.parametrize(
    ("old", "new"),
    [((one, two, a), (two, one, a)), ((one, a), (two, one, a)), ((one, two, a), (two, a))],
    ids=["swapped", "inserted", "removed"],
)
@pytest.mark.parametrize("remedy", ["keys", "names"])
def test_keys_and_names_of_their_own_tell_steps_apart(
    old: Program, new: Program, remedy: str
) -> None:
    """Each case goes on to the new code's own result, or is stopped; nothing is taken for another.

    `resume` checks that; without the remedy it finds records that are taken for others.
    """

    def remedied(program: Program) -> Program:
        def one(node: Node) -> Node:
            assert isinstance(node, Step)
            if remedy == "names":
                return replace(node, name=f"{node.name}-{node.argument}")
            return replace(node, key=f"{node.name}-{node.argument}")

        return tuple(one(node) for node in program)

    schedule = SCHEDULES[0]
    for state in histories(remedied(old), schedule):
        resume(remedied(new), state, schedule)
    plain = (must_go_on(new, state) for state in histories(old, schedule))
    assert any(walk.stale for walk in plain if walk is not None)


def test_named_waits_are_told_apart() -> None:
    schedule = SCHEDULES[0]
    old, new = (Wait("short", 10), a), (Wait("long", 1000), a)
    verdicts = [resume(new, state, schedule) for state in histories(old, schedule)]
    assert verdicts[0] == "went on"
    assert set(verdicts[1:]) == {"stopped"}


def show(state: Recorded) -> list[str]:
    return [f"{each.type} {each.name} {each.status}" for each in state.own.values()]
