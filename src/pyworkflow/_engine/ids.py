"""Identity is position, per task.

An operation's id is the hash of a path: ``N`` at the root, ``<prefix>-N`` elsewhere, where N counts
from 1 within a *namespace*. The root task, each child context and each asyncio task that user code
creates own a namespace; a task's prefix is the path of the one number that it took from the
namespace in which it was created. So an id depends on what a task did before, never on which of two
tasks was faster. A *keyed* operation takes no number: its id hashes the nearest child context and
its key, so it survives insertion and reordering of its neighbours.

The hash and the form of the path are those of AWS's own SDK, for one console to show both.
"""

from __future__ import annotations

import random
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyworkflow._engine.scopes import Scope


@lru_cache(maxsize=4096)
def hash_path(path: str) -> str:
    """Return the operation id of a path: 64 hexadecimal digits.

    Remembered, for the first paths are the same in every execution.
    """
    return blake2b(path.encode()).hexdigest()[:64]


class Namespace:
    """The prefix from which a task's operation ids count, and its seeded chance.

    ``number`` is the number that was taken last. ``detached`` marks the one in which nothing
    durable may happen: finalisers of async generators.
    """

    __slots__ = ("_chance", "_hashes", "detached", "number", "prefix", "scope")

    def __init__(self, prefix: str, scope: Scope, *, detached: bool = False) -> None:
        self.prefix = prefix
        self.scope = scope
        self.number = 0
        self.detached = detached
        self._hashes = 0
        self._chance: dict[str, random.Random] | None = None

    def next_path(self) -> str:
        """Return the path that `take_path` will return next."""
        number, prefix = self.number + 1, self.prefix
        return f"{prefix}-{number}" if prefix else f"{number}"

    def take_path(self) -> str:
        """Take the next number; return its path."""
        self.number = number = self.number + 1
        prefix = self.prefix
        return f"{prefix}-{number}" if prefix else f"{number}"

    def go_to(self, number: int) -> None:
        """Make `take_path` take this number next: branches count from 0, by their place."""
        self.number = number - 1

    def take_hash(self) -> int:
        """Return a number for a future's hash: the same one in each replay."""
        self._hashes += 1
        return self._hashes

    def chance(self, execution_id: str, purpose: str) -> random.Random:
        """Return the generator of this namespace for ``purpose``, seeded by the execution."""
        chance = self._chance = self._chance or {}
        generator = chance.get(purpose)
        if generator is None:
            seed = f"{execution_id}/{self.prefix}/{purpose}"
            generator = chance[purpose] = random.Random(seed)  # noqa: S311 - replayable
        return generator
