"""The one writer of an execution: at most one checkpoint is in flight, each with the last's token."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pyworkflow._engine.turn import Committed

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyworkflow._engine.records import Operation, Update
    from pyworkflow.services.base import Invocation, Service


class Writer:
    """Sends checkpoints and keeps the chain of tokens.

    ``is_revoked`` once the service gave no further token: the execution is over, or another process
    or the service's own quota took it; what was sent is durable, the rest must be dropped.
    """

    def __init__(self, service: Service, invocation: Invocation) -> None:
        self._service = service
        self._execution_id = invocation.execution_id
        self._token: str | None = invocation.token
        self._task: asyncio.Task[Committed] | None = None

    @property
    def is_revoked(self) -> bool:
        """Whether nothing more may be written."""
        return self._token is None

    @property
    def is_writing(self) -> bool:
        """Whether a checkpoint is in flight."""
        return self._task is not None

    async def load(self, invocation: Invocation) -> list[Operation]:
        """Return the whole history: the invocation's page and all that follow."""
        operations = list(invocation.operations)
        await self._add_pages(operations, invocation.marker)
        return operations

    def write(
        self,
        updates: tuple[Update, ...],
        on_done: Callable[[Committed | BaseException], None],
    ) -> None:
        """Send a checkpoint; call ``on_done`` from a plain callback with its answer or error."""

        def done(task: asyncio.Task[Committed]) -> None:
            self._task = None
            if not task.cancelled():
                on_done(task.exception() or task.result())

        self._task = asyncio.get_running_loop().create_task(self.commit(updates))
        self._task.add_done_callback(done)

    async def commit(self, updates: tuple[Update, ...]) -> Committed:
        """Send a checkpoint and return its answer."""
        assert self._token is not None
        answer = await self._service.commit(self._execution_id, self._token, updates)
        self._token = answer.token
        operations = list(answer.operations)
        if answer.token is not None:
            await self._add_pages(operations, answer.marker)
        return Committed(tuple(operations))

    async def close(self) -> None:
        """See the checkpoint in flight to its end: it may be durable already."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _add_pages(self, operations: list[Operation], marker: str | None) -> None:
        while marker:
            assert self._token is not None
            page = await self._service.load(self._execution_id, self._token, marker)
            operations.extend(page.operations)
            marker = page.marker
