"""The checkpoints of an execution: one at a time, each with the token of the one before."""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import TYPE_CHECKING, TypeVar, cast

from pyworkflow._protocol.executions import Committed, Markers
from pyworkflow._protocol.records import Action
from pyworkflow.errors import ServiceBusyError, ServiceUnavailableError
from pyworkflow.services.port import ImmediateHistory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from pyworkflow._protocol.executions import Invocation
    from pyworkflow._protocol.records import Operation, Update
    from pyworkflow.services.port import History

T = TypeVar("T")

logger = logging.getLogger("pyworkflow.worker")

PAUSE_SECONDS = 0.1
"""Pause before a busy service, which has already waited itself, is asked again."""


class CheckpointChain:
    """Sends checkpoints and keeps the chain of tokens.

    ``is_revoked`` is true once the service returned no further token: the execution is over, or
    another process or the service's quota took it. Sent updates are durable; drop the rest.
    """

    def __init__(self, service: History, invocation: Invocation) -> None:
        self._service = service
        at_once = _is_immediate(type(service))
        self._immediate = cast("ImmediateHistory", service) if at_once else None
        self._execution_id = invocation.execution_id
        self._token: str | None = invocation.token
        self._sending: asyncio.Future[Any] | None = None
        self._updates: tuple[Update, ...] = ()
        self._is_closing = False
        self._on_done: Callable[[Committed | BaseException], None]

    @property
    def token(self) -> str | None:
        """The last token; `None` once nothing more may be written."""
        return self._token

    @property
    def is_revoked(self) -> bool:
        """Whether nothing more may be written."""
        return self._token is None

    @property
    def unrecorded(self) -> tuple[str, ...]:
        """The names of operations whose outcomes were sent but not acknowledged."""
        sent = self._updates
        return tuple(each.name or each.id for each in sent if each.action is not Action.START)

    @property
    def is_writing(self) -> bool:
        """Whether a checkpoint is in flight."""
        return self._sending is not None

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

        Otherwise ``on_done`` is called with the answer or error, from a plain callback. If the
        service itself cancels the checkpoint, that is a `ServiceUnavailableError`.
        """
        if self._immediate is not None:
            try:
                answer = self._immediate.commit_now(
                    self._execution_id, self._checked_token(), updates
                )
            except asyncio.CancelledError as error:
                raise _unanswered() from error
            return self._take(answer, on_done)

        self._on_done = on_done
        self._updates = updates
        sending = self._service.commit(self._execution_id, self._checked_token(), updates)
        self._follow(sending, self._on_answer)
        return None

    def _take(
        self, answer: Committed, on_done: Callable[[Committed | BaseException], None]
    ) -> Committed | None:
        """Return a complete answer; pass one with more pages to ``on_done`` once they are read."""
        self._token, self._updates = answer.token, ()
        if answer.marker is None or answer.token is None:
            return answer
        self._on_done = on_done
        self._follow(self._whole(answer), self._on_whole)
        return None

    def _follow(self, sending: Awaitable[T], on_sent: Callable[[asyncio.Future[T]], None]) -> None:
        # Mostly a future already; looking here is faster than asking asyncio.
        future: asyncio.Future[T] = (
            sending if isinstance(sending, asyncio.Future) else asyncio.ensure_future(sending)
        )
        future.add_done_callback(on_sent)
        self._sending = future

    def _on_answer(self, sent: asyncio.Future[Committed]) -> None:
        self._sending = None
        if sent.cancelled():
            self._report_cancelled()
            return
        error = sent.exception()
        if isinstance(error, ServiceBusyError) and not self._is_closing:
            self._follow(self._send_once_free(error, is_last=False), self._on_answer)
            return
        outcome = self._take(sent.result(), self._on_done) if error is None else error
        if outcome is not None:
            self._on_done(outcome)

    async def _send_once_free(self, error: ServiceBusyError, *, is_last: bool) -> Committed:
        """Send the checkpoint until it is accepted: the result of a body must not be lost."""
        while True:
            logger.warning("execution %r waits to be recorded: %s", self._execution_id, error)
            await asyncio.sleep(PAUSE_SECONDS)
            try:
                return await self._service.commit(
                    self._execution_id, self._checked_token(), self._updates
                )
            except ServiceBusyError as again:
                error = again
                if self._is_closing and not is_last:
                    raise

    def _on_whole(self, sent: asyncio.Future[Committed]) -> None:
        self._sending = None
        if sent.cancelled():
            self._report_cancelled()
        else:
            self._on_done(sent.exception() or sent.result())

    def _report_cancelled(self) -> None:
        # At the end of a run it may be cancelled together with all tasks of the loop.
        if not self._is_closing:
            self._on_done(_unanswered())

    async def commit(self, updates: tuple[Update, ...]) -> Committed:
        """Send a checkpoint and return its answer."""
        self._updates = updates
        try:
            answer = await self._service.commit(self._execution_id, self._checked_token(), updates)
        except ServiceBusyError as error:
            answer = await self._send_once_free(error, is_last=True)
        self._token, self._updates = answer.token, ()
        return await self._whole(answer)

    async def _whole(self, answer: Committed) -> Committed:
        if answer.marker is None or answer.token is None:
            return answer
        operations = list(answer.operations)
        await self._add_pages(operations, answer.marker)
        return Committed(answer.token, tuple(operations))

    def _checked_token(self) -> str:
        assert self._token is not None, "nothing is written after the last token"
        return self._token

    async def close(self, seconds: float | None = None) -> None:
        """Wait for the checkpoint in flight, which may be durable already.

        After ``seconds`` it is cancelled; the next invocation shows whether it was recorded.
        """
        self._is_closing = True
        until = None if seconds is None else asyncio.get_running_loop().time() + seconds
        while (sending := self._sending) is not None:
            if until is not None:
                seconds = max(0.0, until - asyncio.get_running_loop().time())
            _, late = await asyncio.wait([sending], timeout=seconds)
            if late:
                sending.cancel()
                self._sending = None

    async def _add_pages(self, operations: list[Operation], marker: str | None) -> None:
        if not marker:
            return
        markers = Markers(self._execution_id)
        while marker:
            token = self._checked_token()
            page = await self._service.load(self._execution_id, token, markers.follow(marker))
            operations.extend(page.operations)
            marker = page.marker


def _unanswered() -> ServiceUnavailableError:
    return ServiceUnavailableError(
        "expected an answer or an error to a checkpoint, but the service cancelled it; the next "
        "invocation shows whether it was recorded, and goes on from there"
    )


@functools.cache
def _is_immediate(kind: type[History]) -> bool:
    # Cached: comparing a class with a protocol takes as long as a step.
    return issubclass(kind, ImmediateHistory)
