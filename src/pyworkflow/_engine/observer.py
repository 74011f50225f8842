"""Watching a run from outside, as tests do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyworkflow._engine.messages import AttemptSettings
    from pyworkflow._engine.ops.base import Op
    from pyworkflow._engine.scopes import IssuedOperation
    from pyworkflow._protocol.records import Operation


class Observer(Protocol):
    """An observer of a run; tests have some."""

    def on_issue(self, op: Op) -> None:
        """The code issued an operation."""
        ...

    def on_delivery(self, op: IssuedOperation, record: Operation) -> None:
        """A recorded end reaches the code."""
        ...

    def on_recall(
        self,
        operation_id: str,
        settings: AttemptSettings,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        record: Operation,
    ) -> None:
        """A step was issued and its recorded result delivered, in one: see `replay_fast_path`."""
        ...
