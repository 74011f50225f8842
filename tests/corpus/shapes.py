"""All shapes of the corpus: those written for it, and asyncio's own."""

from __future__ import annotations

from tests.corpus import (
    shapes_cancelled,
    shapes_children,
    shapes_fan_out,
    shapes_races,
    shapes_steps,
    shapes_tasks,
)
from tests.corpus.registry import SHAPES, Shape, add
from tests.engine import asyncio_shapes

MODULES = (
    shapes_steps,
    shapes_tasks,
    shapes_races,
    shapes_cancelled,
    shapes_children,
    shapes_fan_out,
)

RACES_OF_ASYNCIO = {
    "as_completed_of_tasks",
    "as_completed_with_a_limit",
    "cleanup_after_cancellation",
    "shield",
    "tasks_made_in_done_callbacks",
    "timeout_that_is_kept",
    "wait_for",
    "wait_for_a_task",
}
"""Their steps end at once where they were written for; here they may take long."""

for _name, (_workflow, _expected) in asyncio_shapes.SHAPES.items():
    if _name not in SHAPES:
        _is_race = _name in RACES_OF_ASYNCIO
        add(_workflow, is_race=_is_race, outcomes=() if _is_race else (_expected,))

__all__ = ["MODULES", "SHAPES", "Shape"]
