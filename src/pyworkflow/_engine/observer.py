"""Watching a run from outside, as tests do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyworkflow._engine.ops.base import Op
    from pyworkflow._engine.ops.step import StepSettings
    from pyworkflow._protocol.records import Operation


class Observer(Protocol):
    """Somebody who watches a run: tests."""

    def on_issue(self, op: Op) -> None:
        """The code issued an operation."""
        ...

    def on_delivery(self, op: Op, record: Operation) -> None:
        """A recorded end reaches the code."""
        ...

    def on_recall(
        self,
        operation_id: str,
        settings: StepSettings,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        record: Operation,
    ) -> None:
        """A step was issued and its recorded result delivered, in one: see `recall`."""
        ...
