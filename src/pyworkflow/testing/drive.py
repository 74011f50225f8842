"""Run an execution in memory to its end: suspend, let time jump, invoke again, as Lambda does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyworkflow._engine.turn import Suspended
from pyworkflow.errors import DeadlockError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyworkflow._engine.records import Update
    from pyworkflow._engine.turn import End
    from pyworkflow._runtime.clock import VirtualClock
    from pyworkflow._runtime.runner import Runner
    from pyworkflow.services.base import Committed, Page
    from pyworkflow.services.memory import MemoryService


class SimulatedCrashError(Exception):
    """The process 'died' right after a checkpoint."""


class CrashingService:
    """A memory service that simulates a crash after certain checkpoints.

    ``crash_after`` holds the numbers of those checkpoints, counted from 1 over the execution. The
    one that ends it is followed by nothing that a crash could interrupt.
    """

    def __init__(self, service: MemoryService, crash_after: Sequence[int]) -> None:
        self._service = service
        self._crash_after = set(crash_after)
        self.commits = 0

    async def load(self, execution_id: str, token: str, marker: str) -> Page:
        """Return a page of the history."""
        return await self._service.load(execution_id, token, marker)

    async def commit(self, execution_id: str, token: str, updates: Sequence[Update]) -> Committed:
        """Apply a checkpoint, and crash if its number says so."""
        return self.commit_now(execution_id, token, updates)

    def commit_now(self, execution_id: str, token: str, updates: Sequence[Update]) -> Committed:
        """Do at once what `commit` does."""
        answer = self._service.commit_now(execution_id, token, updates)
        self.commits += 1
        if self.commits in self._crash_after and answer.token is not None:
            raise SimulatedCrashError
        return answer


class Driver:
    """Invokes an execution until it ends."""

    def __init__(
        self,
        service: MemoryService,
        runner: Runner,
        clock: VirtualClock,
        max_invocations: int,
        on_invocation: Callable[[], None],
    ) -> None:
        self._service = service
        self._runner = runner
        self._clock = clock
        self._max_invocations = max_invocations
        self._on_invocation = on_invocation

    async def run_to_end(self, execution_id: str) -> End:
        """Return how the execution ended: `Succeeded`, `Failed` or `Broken`."""
        for _ in range(self._max_invocations):
            self._on_invocation()
            try:
                end = await self._runner.run_and_record(self._service.claim(execution_id))
            except SimulatedCrashError:
                continue
            if not isinstance(end, Suspended):
                return end
            self._let_time_pass(execution_id)
        raise UsageError(
            f"the workflow did not end within {self._max_invocations} invocations; if it really "
            "needs more, say MockDurableContext(max_invocations=...)"
        )

    def _let_time_pass(self, execution_id: str) -> None:
        due_ms = self._service.next_due(execution_id)
        if due_ms is None:
            raise DeadlockError(self._report(execution_id))
        self._clock.advance_to(due_ms)

    def _report(self, execution_id: str) -> str:
        open_ = [op for op in self._service.operations(execution_id)[1:] if not op.ended]
        lines = [f"  {op.type} {op.name or ''}: {op.status}" for op in open_]
        return "\n".join(["the workflow can't go on, for nothing is due. It waits for", *lines])
