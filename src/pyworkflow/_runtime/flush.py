"""The one writer of an execution: one checkpoint at a time, each with the last one's token."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pyworkflow._engine.turn import Committed
from pyworkflow.services.base import ImmediateService

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from pyworkflow._engine.records import Operation, Update
    from pyworkflow.services.base import Committed as Answer
    from pyworkflow.services.base import Invocation, Service


class Writer:
    """Sends checkpoints and keeps the chain of tokens.

    ``is_revoked`` once the service gave no further token: the execution is over, or another process
    or the service's own quota took it; what was sent is durable, the rest must be dropped.
    """

    def __init__(self, service: Service, invocation: Invocation) -> None:
        self._service = service
        self._immediate = service if isinstance(service, ImmediateService) else None
        self._execution_id = invocation.execution_id
        self._token: str | None = invocation.token
        self._task: asyncio.Task[Committed] | None = None

    @property
    def token(self) -> str | None:
        """The last token; `None` once nothing more may be written."""
        return self._token

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
    ) -> Committed | None:
        """Send a checkpoint; return its answer if the service has it at once.

        Otherwise ``on_done`` is called with the answer or error, from a plain callback.
        """
        if self._immediate is None:
            self._follow(self.commit(updates), on_done)
            return None
        answer = self._immediate.commit_now(self._execution_id, self._checked_token(), updates)
        if answer.marker is not None:
            self._follow(self._take(answer), on_done)
            return None
        self._token = answer.token
        return Committed(answer.operations)

    async def commit(self, updates: tuple[Update, ...]) -> Committed:
        """Send a checkpoint and return its answer."""
        return await self._take(
            await self._service.commit(self._execution_id, self._checked_token(), updates)
        )

    def _follow(
        self,
        sending: Coroutine[Any, Any, Committed],
        on_done: Callable[[Committed | BaseException], None],
    ) -> None:
        def done(task: asyncio.Task[Committed]) -> None:
            self._task = None
            if not task.cancelled():
                on_done(task.exception() or task.result())

        self._task = asyncio.get_running_loop().create_task(sending)
        self._task.add_done_callback(done)

    async def _take(self, answer: Answer) -> Committed:
        self._token = answer.token
        operations = list(answer.operations)
        if answer.token is not None:
            await self._add_pages(operations, answer.marker)
        return Committed(tuple(operations))

    def _checked_token(self) -> str:
        assert self._token is not None, "nothing is written after the last token"
        return self._token

    async def close(self) -> None:
        """See the checkpoint in flight to its end: it may be durable already."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _add_pages(self, operations: list[Operation], marker: str | None) -> None:
        while marker:
            page = await self._service.load(self._execution_id, self._checked_token(), marker)
            operations.extend(page.operations)
            marker = page.marker
