"""Calls that code made and has to await before it ends: a workflow, or that of a child context.

A coroutine that nobody awaits never runs, and a step that was started and forgotten is cancelled
when the code returns: both would be work that silently did not happen.

Each child context has calls of its own. A replay does not run its code once it is over, so what the
code forgot has to be a part of its outcome, and no matter of the code around it. Nor does a replay
see what that code awaited: a step that was started outside and is over may have been.
"""

from __future__ import annotations

from collections.abc import Coroutine
from types import CoroutineType
from typing import Any, Protocol

from pyworkflow.errors import UsageError

_OF_CHILDREN = ". What the code of a child context awaits, it has to call itself: a replay skips it"


class Started(Protocol):
    """A call that was started at once; ``is_awaited`` once its outcome was requested."""

    is_awaited: bool

    def done(self) -> bool:
        """Whether it is over."""
        ...


class Calls:
    """The calls of one scope that were not awaited yet, and a few that were."""

    def __init__(self) -> None:
        self.waiting: dict[object, tuple[Coroutine[Any, Any, Any] | Started, str]] = {}
        """Each call and its name for messages, under the call itself, or under the number that was
        taken for it: a coroutine that was given a number takes itself out when it begins."""
        self.had_children = False
        """Whether a child context in here is over."""
        self._number = 0
        self._prune_at = 64

    def expect(self, call: Coroutine[Any, Any, Any] | Started, name: str) -> None:
        """Remember a call that has to be awaited; ``name`` is for messages."""
        if len(self.waiting) >= self._prune_at:
            self._prune()
        self.waiting[call] = call, name

    def take_number(self) -> int:
        """Return the number under which a coroutine is `waiting` until it begins."""
        if len(self.waiting) >= self._prune_at:
            self._prune()
        self._number = number = self._number + 1
        return number

    def _prune(self) -> None:
        """Forget what was awaited, and what was closed before it began."""
        self.waiting = {
            key: entry for key, entry in self.waiting.items() if _is_forgotten(entry[0])
        }
        self._prune_at = 4 * len(self.waiting) + 64

    def check(self, whose: object) -> None:
        """Raise `UsageError` if one of them was not awaited; ``whose`` they are is for messages."""
        forgotten = [
            name
            for call, name in self.waiting.values()
            if _is_forgotten(call) and not self._may_be_awaited(call)
        ]
        if forgotten:
            raise UsageError(
                f"{', '.join(forgotten)}: called but never awaited when the {whose} returned, so "
                "it may not have run. Await the call, or the future that .submit(...) "
                "returned; in a def workflow, call an async step as step.submit(...).result(), and "
                f"sleep with ctx.sleep(...){_OF_CHILDREN if self.had_children else ''}"
            )

    def _may_be_awaited(self, call: Coroutine[Any, Any, Any] | Started) -> bool:
        """Whether the code of a child context may have awaited it, in this run or before."""
        return self.had_children and not isinstance(call, Coroutine) and call.done()

    def close(self) -> None:
        """Close the coroutines that never ran."""
        for call, _ in self.waiting.values():
            if isinstance(call, CoroutineType) and _is_forgotten(call):
                call.close()
        self.waiting.clear()


def _is_forgotten(call: Coroutine[Any, Any, Any] | Started) -> bool:
    if isinstance(call, CoroutineType):
        return not (call.cr_suspended or call.cr_running or call.cr_frame is None)
    return not call.is_awaited  # type: ignore[union-attr] # no coroutine: it is Started
