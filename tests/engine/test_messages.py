from __future__ import annotations

import msgspec
import pytest

from pyworkflow._engine import messages as module
from pyworkflow._engine.messages import Refreshing, Suspended, Turn


def test_an_empty_turn_asks_for_nothing() -> None:
    turn = Turn()
    assert (turn.launch, turn.cancel, turn.write) == ((), (), ())
    assert (turn.lags, turn.next_due_ms, turn.end) == (False, None, None)


def test_facts_and_turns_are_frozen_and_compare_by_identity() -> None:
    turn = Turn(end=Suspended())
    with pytest.raises(AttributeError):
        turn.lags = True  # type: ignore[misc]
    assert Refreshing() != Refreshing()
    for fact in (*module.Fact.__args__, *module.End.__args__):
        assert issubclass(fact, msgspec.Struct)
        assert fact.__struct_config__.frozen
