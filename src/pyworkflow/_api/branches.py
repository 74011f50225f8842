"""The branches of a fan-out: which one begins when, and when the fan-out is over.

A branch's id is its place, from 0, below the fan-out. Branches begin in that order, as many at once
as there are slots; one that waits keeps its slot. Ends reach the workflow one at a time. After
each, one more branch is counted and the policy is asked, so a replay over the same ends decides the
same. Where a decision is recorded, only the branches that had ended run again, and the fan-out is
over when the last of them ends.

A branch that still runs then is cancelled by the child context around it. `ctx.parallel` and
`ctx.map`, and those of AWS's SDK, add what a branch is, the policy, and the form of the outcome.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pyworkflow._api.child import run_issued
from pyworkflow._engine.current import require_execution
from pyworkflow._engine.ops.fan_out import FAILED, NOT_STARTED, STARTED, SUCCEEDED
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from pyworkflow._engine.ops.child import ChildOp

Reason = TypeVar("Reason")


class Branches(ABC, Generic[Reason]):
    """The branches of one fan-out while it runs, by their places.

    Without ``slots`` all of them run at once. ``statuses`` has a letter of `Decision` for each.
    """

    def __init__(self, op: ChildOp, names: Sequence[str], slots: int | None) -> None:
        self._execution = require_execution("a fan-out")
        self._names = names
        self._slots = slots or len(names)
        self._waiting = deque(range(len(names)))
        self._recorded: tuple[int, Reason] | None = None
        self._over: asyncio.Future[Reason] = op.execution.loop.create_future()
        self.op = op
        self.statuses = [NOT_STARTED] * len(names)
        self.succeeded = 0
        self.failed = 0

    def follow(self, ended: Collection[int], reason: Reason) -> None:
        """Obey a recorded decision: run those that had ``ended``, then be over for ``reason``."""
        self._waiting = deque(ended)
        self._recorded = len(ended), reason

    def begin(self) -> asyncio.Future[Reason]:
        """Start the first branches; return the future that says why the fan-out is over."""
        self._go_on()
        return self._over

    # -- what each kind of fan-out adds ----------------------------------------------------------

    @abstractmethod
    def decide(self) -> Reason | None:
        """Return why the fan-out is over, `None` while it goes on; errors raised here end it."""

    @abstractmethod
    def branch(self, index: int) -> tuple[ChildOp, Callable[[], Awaitable[Any]]]:
        """Return a new branch: its operation, and the code to run if no outcome is recorded."""

    def start(self, index: int) -> None:
        """Start a branch as a child context, and `watch` its end."""
        execution, around = self._execution, self.op.namespace
        around.go_to(index)
        op, code = self.branch(index)
        self.watch(index, op.future)
        execution.issue(op)
        if op.ended or execution.is_halted:
            return

        async def run() -> None:
            with contextlib.suppress(Exception):  # `_on_end` has it from the operation's future
                await run_issued(execution, op, code)

        execution.loop.make_task(run(), around, index + 1, f"branch {self._names[index]}")

    def on_end(self, index: int, future: asyncio.Future[Any]) -> None:
        """Note the outcome of a branch, before the policy is asked."""

    def passes_through(self, error: BaseException) -> bool:
        """Whether ``error``, raised by a branch, ends the fan-out and is raised by it unchanged."""
        return False

    # -- which begins when -----------------------------------------------------------------------

    def watch(self, index: int, future: asyncio.Future[Any]) -> None:
        """Count the branch when ``future`` is done."""
        future.add_done_callback(partial(self._on_end, index))

    def _go_on(self) -> None:
        """End the fan-out if it is over, else start branches while there are slots."""
        try:
            reason = self.decide() if self._recorded is None else self._recorded_reason()
            if reason is not None:
                self._over.set_result(reason)
                return
            while self._waiting and self._slots and not self._execution.is_halted:
                index = self._waiting.popleft()
                self.statuses[index] = STARTED
                self._slots -= 1
                self.start(index)
        except Exception as error:  # of the code's own policy, for example
            self._over.set_exception(error)

    def _recorded_reason(self) -> Reason | None:
        assert self._recorded is not None
        total, reason = self._recorded
        return reason if self.succeeded + self.failed == total else None

    def _on_end(self, index: int, future: asyncio.Future[Any]) -> None:
        error = self._cancellation(index) if future.cancelled() else future.exception()
        if self._over.done():
            return
        if error is not None and (future.cancelled() or self.passes_through(error)):
            self._over.set_exception(error)
            return
        if error is None:
            self.statuses[index] = SUCCEEDED
            self.succeeded += 1
        else:
            self.statuses[index] = FAILED
            self.failed += 1
        self.on_end(index, future)
        self._slots += 1
        self._go_on()

    def _cancellation(self, index: int) -> UsageError:
        return UsageError(
            f"branch {self._names[index]!r} was cancelled by the workflow's own code while its "
            "outcome was being recorded. To end a branch early, let its code return"
        )
