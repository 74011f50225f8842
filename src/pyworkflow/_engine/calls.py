"""Calls that a workflow made and has to await before it ends.

A coroutine that nobody awaits never runs, and a step that was started and forgotten is cancelled
when the workflow returns: both would be work that silently did not happen.
"""

from __future__ import annotations

from types import CoroutineType
from typing import TYPE_CHECKING, Any, Protocol

from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Coroutine


class Started(Protocol):
    """A call that was started at once; ``is_awaited`` once somebody asked for its outcome."""

    is_awaited: bool


class Calls:
    """The calls of one run that were not awaited yet, and a few that were."""

    def __init__(self) -> None:
        self._calls: dict[Coroutine[Any, Any, Any] | Started, str] = {}
        self._prune_at = 64

    def expect(self, call: Coroutine[Any, Any, Any] | Started, name: str) -> None:
        """Remember a call that has to be awaited; ``name`` is for messages."""
        if len(self._calls) >= self._prune_at:
            self._calls = {c: name for c, name in self._calls.items() if _is_forgotten(c)}
            self._prune_at = 2 * len(self._calls) + 64
        self._calls[call] = name

    def check(self) -> None:
        """Raise `UsageError` if one of them was not awaited."""
        forgotten = [name for call, name in self._calls.items() if _is_forgotten(call)]
        if forgotten:
            raise UsageError(
                f"{', '.join(forgotten)}: called but never awaited when the workflow returned, so "
                "nobody knows whether it ran. Await the call, or the future that .submit(...) "
                "returned; in a def workflow, call an async step as step.submit(...).result()"
            )

    def close(self) -> None:
        """Close the coroutines that never ran."""
        for call in self._calls:
            if isinstance(call, CoroutineType) and _is_forgotten(call):
                call.close()
        self._calls.clear()


def _is_forgotten(call: Coroutine[Any, Any, Any] | Started) -> bool:
    if isinstance(call, CoroutineType):
        return not (call.cr_suspended or call.cr_running or call.cr_frame is None)
    return not call.is_awaited  # type: ignore[union-attr] # no coroutine: it is Started
