"""Scopes: the root of a workflow and its child contexts, which end when their code returns.

`IssuedOperation` is an operation as its scope and the engine's books see it. It
leaves out the operation's own dependencies, so the modules that store operations import none of
the modules that create them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from pyworkflow._engine.loop.unawaited import Calls
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    import asyncio

    from pyworkflow._protocol.records import Operation, OperationType


class IssuedOperation(Protocol):
    """An operation that the code has issued, as its scope and the engine's books see it."""

    id: str
    name: str | None
    number: int
    scope: Scope
    abandoned: bool
    ended: bool
    is_pending: bool

    @property
    def type(self) -> OperationType: ...
    @property
    def subtype(self) -> str: ...
    @property
    def position(self) -> str: ...

    def awaits(self) -> str:
        """Say in a few words what is waited for."""
        ...

    def on_change(self, record: Operation) -> None:
        """Take a new state that is not an end."""
        ...

    def deliver(self, record: Operation) -> None:
        """Give the recorded end to the workflow."""
        ...

    def abandon(self) -> None:
        """Stop what can be stopped: the workflow was cancelled here, or has returned."""
        ...


class Scope:
    """The root, or a child context: it ends when its code returns. ``calls`` are its code's.

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
        self.tasks: list[asyncio.Task[Any]] = []
        self.live: dict[IssuedOperation, None] = {}
        self.is_over = False
        self.patches: dict[str, bool] = {}
        self._keys: set[str] = set()
        self._prune_at = 64

    def take_key(self, key: str) -> str:
        """Return the path of the operation with this key; a second use of a key is an error."""
        if key in self._keys:
            raise UsageError(
                f"the key {key!r} is used twice in this {self}; a key names one operation: "
                "make it unique, for example by adding the item's id to it"
            )
        self._keys.add(key)
        prefix = "" if self.operation_id is None else f"{self.operation_id}-"
        return f"{prefix}key-{key}"

    def add_task(self, task: asyncio.Task[Any]) -> None:
        """Keep ``task``, so that no garbage collection decides when its frames unwind."""
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
