"""How the conformance suite drives a service: a fresh world a test, and one execution in it.

Scheduling methods may be plain or `async`: `settled` makes the two alike.
"""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pyworkflow._engine.records import ErrorRecord, Operation, Status, Update
from pyworkflow.services.base import (
    Committed,
    ExecutionStatus,
    ExecutionSummary,
    Invocation,
    Service,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from pyworkflow.services.events import HistoryEvent

_T = TypeVar("_T")


class SchedulingService(Service, Protocol):
    """A service that starts executions and lets their timers fire by itself."""

    def start(
        self, workflow_name: str, input_payload: str, *, execution_name: str | None = None
    ) -> str | Awaitable[str]:
        """Start an execution and return its id."""
        ...

    def claim(self, execution_id: str) -> Invocation | Awaitable[Invocation]:
        """Begin an invocation."""
        ...

    def next_due(self) -> int | Awaitable[int | None] | None:
        """Return when the next timer is due."""
        ...

    def complete_callback(self, callback_id: str, payload: str | None) -> str | Awaitable[str]:
        """Let a callback succeed."""
        ...

    def fail_callback(self, callback_id: str, error: ErrorRecord) -> str | Awaitable[str]:
        """Let a callback fail."""
        ...

    def heartbeat_callback(self, callback_id: str) -> str | Awaitable[str]:
        """Restart a callback's heartbeat timeout."""
        ...

    def complete_invoke(
        self,
        execution_id: str,
        operation_id: str,
        payload: str | None = None,
        *,
        status: Status = Status.SUCCEEDED,
        error: ErrorRecord | None = None,
    ) -> str | Awaitable[str]:
        """End a chained invoke."""
        ...

    def stop(
        self, execution_id: str, error: ErrorRecord
    ) -> ExecutionSummary | Awaitable[ExecutionSummary]:
        """End an execution from outside."""
        ...

    def get(self, execution_id: str) -> ExecutionSummary | Awaitable[ExecutionSummary]:
        """Return how an execution stands."""
        ...

    def list(
        self, *, workflow_name: str | None = None, status: ExecutionStatus | None = None
    ) -> Sequence[ExecutionSummary] | Awaitable[Sequence[ExecutionSummary]]:
        """Return the executions of one workflow or in one status, the newest first."""
        ...

    def operations(self, execution_id: str) -> Sequence[Operation] | Awaitable[Sequence[Operation]]:
        """Return every operation in the order of its start."""
        ...

    def history(
        self, execution_id: str
    ) -> Sequence[HistoryEvent] | Awaitable[Sequence[HistoryEvent]]:
        """Return what happened."""
        ...


@dataclass(frozen=True, slots=True)
class World:
    """A fresh service; ``advance`` moves its clock by milliseconds, ``close`` disposes of it."""

    service: SchedulingService
    advance: Callable[[int], None]
    close: Callable[[], object] = lambda: None


async def settled(value: _T | Awaitable[_T]) -> _T:
    """Return what a plain or an `async` method returns."""
    return await value if inspect.isawaitable(value) else value


class Driver:
    """One execution as a runner drives it: the newest token is kept."""

    def __init__(self, world: World) -> None:
        self.service = world.service
        self.advance = world.advance
        self.execution_id = ""
        self.token = ""

    async def begin(self, input_payload: str = '"in"', name: str | None = None) -> Invocation:
        """Start an execution and claim it."""
        started = self.service.start("greet", input_payload, execution_name=name)
        self.execution_id = await settled(started)
        return await self.claim()

    async def claim(self) -> Invocation:
        """Begin an invocation and keep its token."""
        invocation = await settled(self.service.claim(self.execution_id))
        self.token = invocation.token
        return invocation

    async def send(self, *updates: Update) -> Committed:
        """Commit with the newest token and keep the next one."""
        committed = await self.service.commit(self.execution_id, self.token, updates)
        self.token = committed.token or self.token
        return committed

    async def commit(self, *updates: Update) -> dict[str, Operation]:
        """Commit and return what changed, by id, in the order of the answer."""
        changes = (await self.send(*updates)).operations
        by_id = {operation.id: operation for operation in changes}
        assert len(by_id) == len(changes), "each changed operation is told once"
        return by_id

    async def stored(self) -> dict[str, Operation]:
        """Return all operations by id, but for the EXECUTION operation."""
        operations = await settled(self.service.operations(self.execution_id))
        return {operation.id: operation for operation in operations[1:]}

    async def event_types(self) -> tuple[str, ...]:
        """Return the types of the history's events, after a check of their numbers."""
        events = await settled(self.service.history(self.execution_id))
        assert [event.id for event in events] == list(range(1, len(events) + 1))
        return tuple(event.type for event in events)


class _Suite(Protocol):
    page_size: int


def scenario(
    test: Callable[[Any, Driver], Coroutine[Any, Any, None]],
) -> Callable[[Any, Callable[[int], World]], None]:
    """Make a plain test of a coroutine function that takes the suite and a `Driver`."""

    def run(self: _Suite, factory: Callable[[int], World]) -> None:
        async def play() -> None:
            world = factory(self.page_size)
            try:
                await test(self, Driver(world))
            finally:
                await settled(world.close())

        asyncio.run(play())

    # Not functools.wraps: pytest reads the fixtures from this signature, not from the test's.
    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run
