"""The last executions of a kind, kept in memory so that nobody reads them from the file again.

Those that ended of late: what is over never changes, and whoever started one mostly waits for its
end where it ran. Those that were started of late: mostly they begin at once, where they were
started. Only so many are kept, and short ones: it is a help, not a store.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")

MAX_ENTRIES = 1000
"""How many of a kind are kept."""
MAX_CHARACTERS = 4000
"""How many characters the input and the result of one may have together."""


class BoundedCache(Generic[T]):
    """What is kept of executions, by their ids; changed on the writer's thread alone."""

    def __init__(self) -> None:
        self._kept: dict[str, T] = {}

    def keep(self, execution_id: str, what: T, length: int) -> None:
        """Keep ``what``, which is that long, for as long as there is room."""
        if length > MAX_CHARACTERS:
            return
        self._kept[execution_id] = what
        if len(self._kept) > MAX_ENTRIES:
            del self._kept[next(iter(self._kept))]

    def find(self, execution_id: str) -> T | None:
        """Return what is kept of an execution; on any thread."""
        return self._kept.get(execution_id)

    def take(self, execution_id: str) -> T | None:
        """Return what is kept of an execution, and keep it no longer."""
        return self._kept.pop(execution_id, None)

    def forget(self) -> None:
        """Keep nothing any more."""
        self._kept.clear()
