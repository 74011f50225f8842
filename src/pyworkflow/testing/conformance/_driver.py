"""How the exam drives a service: a fresh service for each test, and one execution in it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pyworkflow._protocol.executions import Committed, Invocation
from pyworkflow._protocol.records import ErrorRecord, Operation, Status, Update
from pyworkflow.services.port import Service

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine


class ExamService(Service, Protocol):
    """A service as the exam takes it: all three ports, and two methods beyond them."""

    async def claim(self, execution_id: str) -> Invocation:
        """Begin an invocation without a lease."""
        ...

    async def complete_invoke(
        self,
        execution_id: str,
        operation_id: str,
        payload: str | None = None,
        *,
        status: Status = Status.SUCCEEDED,
        error: ErrorRecord | None = None,
    ) -> str:
        """End a chained invoke before the invoked execution ends."""
        ...


@dataclass(frozen=True, slots=True)
class ServiceUnderTest:
    """A fresh service; ``advance`` moves its clock by milliseconds, ``close`` disposes of it."""

    service: ExamService
    advance: Callable[[int], None]
    close: Callable[[], Awaitable[None]]


class LeasedExecution:
    """An execution that an owner has leased: the newest token is kept."""

    def __init__(self, service: ExamService, invocation: Invocation) -> None:
        self.service = service
        self.invocation = invocation
        self.execution_id = invocation.execution_id
        self.token = invocation.token

    async def commit(self, *updates: Update) -> dict[str, Operation]:
        """Commit with the newest token and return what changed, by id."""
        committed = await self.service.commit(self.execution_id, self.token, updates)
        self.token = committed.token or self.token
        return {operation.id: operation for operation in committed.operations}

    async def release(self, **options: Any) -> None:
        """Release it with the newest token."""
        await self.service.release(self.execution_id, self.token, **options)


class Driver:
    """An execution as a runner drives it: the newest token is kept."""

    def __init__(self, subject: ServiceUnderTest) -> None:
        self.service = subject.service
        self.advance = subject.advance
        self.execution_id = ""
        self.token = ""

    async def begin(self, input_payload: str = '"in"', name: str | None = None) -> Invocation:
        """Start an execution and claim it."""
        started = self.service.start("greet", input_payload, execution_name=name)
        self.execution_id = await started
        return await self.claim()

    async def claim(self) -> Invocation:
        """Begin an invocation and keep its token."""
        invocation = await self.service.claim(self.execution_id)
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
        assert len(by_id) == len(changes), "each changed operation is reported once"
        return by_id

    # -- as workers do -------------------------------------------------------------------------

    async def lease(self, owner: str, workflow: str = "greet") -> list[Invocation]:
        """Claim all that is due of a workflow."""
        return [*await self.service.claim_due(owner, [workflow], 100)]

    async def take(self, owner: str, workflow: str = "greet") -> LeasedExecution:
        """Claim the execution that is due the longest."""
        (invocation,) = await self.service.claim_due(owner, [workflow], 1)
        return LeasedExecution(self.service, invocation)

    async def start_leased(self, owner: str, workflow: str = "greet") -> LeasedExecution:
        """Start an execution and claim it, where no other is due."""
        started_id = await self.service.start(workflow, "1")
        holder = await self.take(owner, workflow)
        assert holder.execution_id == started_id
        return holder

    # -- what is stored ------------------------------------------------------------------------

    async def stored(self) -> dict[str, Operation]:
        """Return all operations by id, but for the EXECUTION operation."""
        operations = await self.service.operations(self.execution_id)
        return {operation.id: operation for operation in operations[1:]}

    async def event_types(self) -> tuple[str, ...]:
        """Return the types of the history's events, after a check of their numbers."""
        events = await self.service.history(self.execution_id)
        assert [event.id for event in events] == list(range(1, len(events) + 1))
        return tuple(event.type for event in events)


class _Suite(Protocol):
    page_size: int


def scenario(
    test: Callable[[Any, Driver], Coroutine[Any, Any, None]],
) -> Callable[[Any, Callable[[int], ServiceUnderTest]], None]:
    """Make a plain test of a coroutine function that takes the suite and a `Driver`."""

    def run(self: _Suite, factory: Callable[[int], ServiceUnderTest]) -> None:
        async def play() -> None:
            subject = factory(self.page_size)
            try:
                await test(self, Driver(subject))
            finally:
                await subject.close()

        asyncio.run(play())

    # Not functools.wraps: pytest reads the fixtures from this signature, not from the test's.
    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run
