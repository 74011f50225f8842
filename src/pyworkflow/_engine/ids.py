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
from typing import TYPE_CHECKING, Any

from pyworkflow._engine.loop.unawaited import Calls
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from pyworkflow._engine.loop.tasks import Task
    from pyworkflow._engine.ops.base import Op


@lru_cache(maxsize=4096)
def hash_path(path: str) -> str:
    """Return the operation id of a path: 64 hexadecimal digits.

    Remembered, for the first paths are the same in every execution.
    """
    return blake2b(path.encode()).hexdigest()[:64]


class Scope:
    """One child context, or the root: what ends when its code returns. ``calls`` are its code's.

    ``operation_id`` is the context operation's id, `None` at the root, as is ``outer``, the scope
    around. ``tasks`` are the asyncio tasks that were created in it, in order, ``live`` its
    operations that have not ended, ``patches`` the decisions of `ctx.patched`. Once it ``is_over``,
    nothing durable happens in it. It ``is_disturbed`` if code outside cancelled a task inside.
    """

    __slots__ = (
        "_keys",
        "_prune_at",
        "calls",
        "is_disturbed",
        "is_over",
        "live",
        "operation_id",
        "outer",
        "patches",
        "tasks",
    )

    def __init__(self, operation_id: str | None, outer: Scope | None = None) -> None:
        self.operation_id = operation_id
        self.outer = outer
        self.calls = Calls()
        self.is_disturbed = False
        self.tasks: list[Task[Any]] = []
        self.live: dict[Op, None] = {}
        self.is_over = False
        self.patches: dict[str, bool] = {}
        self._keys: set[str] = set()
        self._prune_at = 64

    def take_key(self, key: str) -> str:
        """Return the id of the operation with this key; a second use of one key is an error."""
        if key in self._keys:
            raise UsageError(
                f"the key {key!r} is used twice in this {self}; a key names one operation: "
                "make it unique, for example by adding the item's id to it"
            )
        self._keys.add(key)
        prefix = "" if self.operation_id is None else f"{self.operation_id}-"
        return hash_path(f"{prefix}key-{key}")

    def add_task(self, task: Task[Any]) -> None:
        """Hold ``task``, so that no garbage collection decides when its frames unwind."""
        if len(self.tasks) >= self._prune_at:
            self.tasks = [task for task in self.tasks if not task.done()]
            self._prune_at = 2 * len(self.tasks) + 64
        self.tasks.append(task)

    def disturb(self, by: Scope | None) -> None:
        """A task in here is cancelled by code of ``by`` (`None`: unknown): mark all between."""
        around = set()
        while by is not None:
            around.add(by)
            by = by.outer
        scope: Scope | None = self
        while scope is not None and scope not in around:
            scope.is_disturbed = True
            scope = scope.outer

    def leave_child(self) -> None:
        """A child context in here is over; a replay does not run its code."""
        scope: Scope | None = self
        while scope is not None:
            scope.calls.had_children = True
            scope = scope.outer

    def __str__(self) -> str:
        return "workflow" if self.operation_id is None else "child context"


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
        """Let `take_path` take this number next: branches count from 0, by their place."""
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
