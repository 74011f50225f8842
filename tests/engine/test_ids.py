from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyworkflow._engine.ids import Namespace, hash_path
from pyworkflow._engine.scopes import Scope
from tests.engine.loops import World

ID_1 = "1ced8f5be2db23a6513eba4d819c73806424748a7bc6fa0d792cc1c7d1775a97"


def test_ids_are_those_of_the_service_own_sdk() -> None:
    assert hash_path("1") == ID_1
    assert (
        hash_path(f"{ID_1}-1") == "974bfc6321e227b0ff101342eaf19b336f002dc6cc99c18f0941a7755cc20fc4"
    )


def test_a_namespace_counts_from_one() -> None:
    root = Namespace("", Scope(None))
    assert root.number == 0
    assert [root.take_path() for _ in range(3)] == ["1", "2", "3"]
    assert root.number == 3


@pytest.mark.parametrize("prefix", ["", "2"])
def test_the_next_path_can_be_looked_at_without_taking_it(prefix: str) -> None:
    namespace = Namespace(prefix, Scope(None))
    for _ in range(3):
        ahead = namespace.next_path()
        assert namespace.next_path() == ahead
        assert namespace.take_path() == ahead


def test_a_namespace_below_has_its_prefix() -> None:
    below = Namespace("2", Scope(None))
    assert [below.take_path(), below.take_path()] == ["2-1", "2-2"]
    assert Namespace("2-1", Scope(None)).take_path() == "2-1-1"


def test_hash_numbers_are_no_operation_numbers() -> None:
    namespace = Namespace("", Scope(None))
    assert [namespace.take_hash(), namespace.take_hash()] == [1, 2]
    assert namespace.take_path() == "1"


def test_chance_is_the_same_for_the_same_place() -> None:
    def draw(prefix: str, execution: str, purpose: str) -> float:
        return Namespace(prefix, Scope(None)).chance(execution, purpose).random()

    first = draw("1", "execution", "random")
    assert first == draw("1", "execution", "random")
    others = {
        draw("2", "execution", "random"),
        draw("1", "another", "random"),
        draw("1", "execution", "uuid4"),
    }
    assert len({first, *others}) == 4


def test_chance_goes_on_where_it_was() -> None:
    namespace = Namespace("", Scope(None))
    generator = namespace.chance("execution", "random")
    assert namespace.chance("execution", "random") is generator
    assert generator.random() != generator.random()


@given(st.lists(st.one_of(st.none(), st.integers(0, 3)), max_size=40))
def test_ids_depend_on_the_own_task_alone(moves: list[int | None]) -> None:
    """However four tasks take turns, each one's paths are those it takes when alone."""
    root = Namespace("", Scope(None))
    tasks = [Namespace(root.take_path(), root.scope) for _ in range(4)]
    taken: dict[str, list[str]] = {}
    for move in moves:
        namespace = root if move is None else tasks[move]
        taken.setdefault(namespace.prefix, []).append(namespace.take_path())
    for prefix, paths in taken.items():
        first = 1 if prefix else 5
        dash = f"{prefix}-" if prefix else ""
        assert paths == [f"{dash}{first + i}" for i in range(len(paths))]
    flat = [path for paths in taken.values() for path in paths]
    assert len(set(flat)) == len(flat)


def test_a_scope_holds_what_runs_and_forgets_what_is_done() -> None:
    world = World()
    held: list[int] = []

    async def nothing() -> None:
        return

    async def main() -> None:
        forever = asyncio.create_task(asyncio.Event().wait())
        for _ in range(1000):
            await asyncio.create_task(nothing())
            held.append(len(world.loop.root.tasks))
        assert forever in world.loop.root.tasks
        forever.cancel()

    task = world.start(main())
    assert task.done()
    assert task.exception() is None
    assert max(held) <= 200


def test_live_tasks_are_all_held_in_order() -> None:
    world = World()
    made: list[Any] = []

    async def main() -> None:
        made.extend(asyncio.create_task(asyncio.Event().wait()) for _ in range(300))
        await asyncio.Event().wait()

    main_task = world.start(main())
    assert world.loop.root.tasks == [main_task, *made]
    world.close()
