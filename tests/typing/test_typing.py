"""The typed examples do at run time what they say to type checkers."""

from __future__ import annotations

import pytest

from tests.api.world import run
from tests.typing import decorated


def test_the_typed_examples_run() -> None:
    assert run(decorated.parent, {"order_id": "a"}) == [["a", "a"], 1.5]
    assert run(decorated.blocking, {"order_id": "abc"}) == 3


def test_the_mistakes_are_mistakes_at_run_time_too() -> None:
    with pytest.raises(TypeError):
        decorated.total([1], vat=1)  # type: ignore[call-arg]
