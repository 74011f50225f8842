"""A bounded cache of recent executions, which saves reading them from the file again.

It serves executions that ended recently, which never change and whose starter usually waits in this
process, and executions that were started recently, which usually begin at once in this process. The
oldest entry is dropped when the cache is full, and long executions are not cached.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")

MAX_ENTRIES = 1000
"""Maximum number of entries."""
MAX_CHARACTERS = 4000
"""Maximum number of characters of an execution's input and result together."""


class BoundedCache(Generic[T]):
    """Values by the ids of executions; changed only on the writer's thread."""

    def __init__(self) -> None:
        self._kept: dict[str, T] = {}

    def keep(self, execution_id: str, what: T, length: int) -> None:
        """Cache ``what``, which has ``length`` characters, unless that is too long."""
        if length > MAX_CHARACTERS:
            return
        self._kept[execution_id] = what
        if len(self._kept) > MAX_ENTRIES:
            del self._kept[next(iter(self._kept))]

    def find(self, execution_id: str) -> T | None:
        """Return the value of an execution, or `None`; on any thread."""
        return self._kept.get(execution_id)

    def take(self, execution_id: str) -> T | None:
        """Remove and return the value of an execution, or `None`."""
        return self._kept.pop(execution_id, None)

    def forget(self) -> None:
        """Drop all entries."""
        self._kept.clear()
