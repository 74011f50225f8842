"""Run an execution in memory to its end: suspend, let time jump, invoke again, as Lambda does."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from pyworkflow._engine.messages import Suspended
from pyworkflow.errors import DeadlockError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyworkflow._engine.messages import End
    from pyworkflow._protocol.executions import Committed, Invocation, Page
    from pyworkflow._protocol.records import Update
    from pyworkflow._runtime.clock import VirtualClock
    from pyworkflow._runtime.runner import Runner
    from pyworkflow.services.memory import ImmediateMemoryService
    from pyworkflow.services.port import ImmediateHistory
    from pyworkflow.testing._outside_world import OutsideWorld


class SimulatedCrashError(Exception):
    """The process 'died' right before or right after a checkpoint."""


class CrashingService:
    """A memory service that simulates a crash at certain checkpoints.

    ``crash_after`` and ``crash_before`` are the numbers of those checkpoints, counted from 1 over
    the execution as they are sent; one that was crashed before never arrives, and has its number
    all the same. The one that ends the execution is followed by nothing that a crash could
    interrupt.
    """

    def __init__(
        self,
        service: ImmediateHistory,
        crash_after: Sequence[int],
        crash_before: Sequence[int] = (),
    ) -> None:
        self._service = service
        self._crash_after = set(crash_after)
        self._crash_before = set(crash_before)
        self.commits = 0
        self.crashes = 0

    async def load(self, execution_id: str, token: str, marker: str) -> Page:
        """Return a page of the history."""
        return await self._service.load(execution_id, token, marker)

    async def commit(self, execution_id: str, token: str, updates: Sequence[Update]) -> Committed:
        """Apply a checkpoint, and crash if its number says so."""
        return self.commit_now(execution_id, token, updates)

    def commit_now(self, execution_id: str, token: str, updates: Sequence[Update]) -> Committed:
        """Do at once what `commit` does."""
        self.commits += 1
        if self.commits in self._crash_before:
            self._crash()
        answer = self._service.commit_now(execution_id, token, updates)
        if self.commits in self._crash_after and answer.token is not None:
            self._crash()
        return answer

    def _crash(self) -> NoReturn:
        self.crashes += 1
        raise SimulatedCrashError


class InvocationLoop:
    """Invokes an execution until it ends."""

    def __init__(
        self,
        service: ImmediateMemoryService,
        runner_for: Callable[[Invocation], Runner],
        clock: VirtualClock,
        max_invocations: int,
        on_invocation: Callable[[], None],
        world: OutsideWorld | None = None,
    ) -> None:
        self._service = service
        self._world = world
        self._runner_for = runner_for
        self._clock = clock
        self._max_invocations = max_invocations
        self._on_invocation = on_invocation

    async def run_to_end(self, execution_id: str) -> End:
        """Return how the execution ended: `Succeeded`, `Failed` or `Broken`."""
        for _ in range(self._max_invocations):
            self._on_invocation()
            try:
                runner = self._runner_for(self._service.claim(execution_id))
                end = await runner.run_and_record()
            except SimulatedCrashError:
                if self._world is not None:
                    self._world.apply_due()  # before timers that are due later
                continue
            if not isinstance(end, Suspended):
                return end
            await self._let_time_pass(execution_id)
        raise UsageError(
            f"the workflow did not end within {self._max_invocations} invocations; if it really "
            "needs more, say MockDurableContext(max_invocations=...)"
        )

    async def _let_time_pass(self, execution_id: str) -> None:
        world = self._world
        if world is not None:
            await world.settle()
        due_ms = (world or self._service).next_due(execution_id)
        if due_ms is None:
            raise DeadlockError(self._report(execution_id))
        self._clock.advance_to(due_ms)
        if world is not None:
            world.apply_due()

    def _report(self, execution_id: str) -> str:
        open_ = [op for op in self._service.operations(execution_id)[1:] if not op.ended]
        world = self._world
        hints = [world.hint(op) if world is not None else "" for op in open_]
        lines = [
            f"  {op.type} {op.name or ''}: {op.status}{hint}"
            for op, hint in zip(open_, hints, strict=True)
        ]
        if world is not None and world.unused:
            lines.append(f"Planned, but no callback has that name: {', '.join(world.unused)}")
        return "\n".join(["the workflow can't go on, for nothing is due. It waits for", *lines])
