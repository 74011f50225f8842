"""The port to a service: who keeps the history of an execution.

The protocol is that of AWS Lambda durable functions. A checkpoint is atomic; each one consumes its
token and returns the next, so of two processes that drive one execution only one can write. The
answer holds every operation that changed since that token was issued, the service's own changes
(due timers, due retries, completed callbacks) included.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol, runtime_checkable

import msgspec

from pyworkflow._engine.records import ErrorRecord, Operation, Update


class Invocation(msgspec.Struct, frozen=True, kw_only=True):
    """One activation of an execution: what a runner is given to begin with.

    ``operations`` is the first page of the history (the EXECUTION operation is first); ``marker``
    names the next page, `None` on the last. ``max_operations`` is how many operations the service
    allows an execution, `None`: any number.
    """

    execution_id: str
    execution_name: str
    workflow_name: str
    token: str
    operations: tuple[Operation, ...] = ()
    marker: str | None = None
    max_operations: int | None = None


class Page(msgspec.Struct, frozen=True):
    """A page of operations; ``marker`` names the next page, `None` on the last."""

    operations: tuple[Operation, ...]
    marker: str | None = None


class Committed(msgspec.Struct, frozen=True):
    """The answer to a checkpoint.

    ``token`` is `None` when the execution is over or its token was revoked: write no more.
    """

    token: str | None
    operations: tuple[Operation, ...]
    marker: str | None = None


class ExecutionStatus(StrEnum):
    """Where an execution stands; all but RUNNING are final."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    STOPPED = "STOPPED"


class ExecutionSummary(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An execution as a whole. Times are milliseconds since the epoch, payloads JSON text."""

    id: str
    name: str
    workflow_name: str
    status: ExecutionStatus
    start_ms: int
    end_ms: int | None = None
    input_payload: str
    result: str | None = None
    error: ErrorRecord | None = None


class Service(Protocol):
    """What the runner needs of any service."""

    async def load(self, execution_id: str, token: str, marker: str) -> Page:
        """Return the page of the history that ``marker`` names."""
        ...

    async def commit(self, execution_id: str, token: str, updates: Sequence[Update]) -> Committed:
        """Apply ``updates`` as a whole, durably, and return the next token and what changed.

        An empty ``updates`` refreshes. Raises `StaleTokenError` when the token was used already,
        `InvalidUpdateError` when an update is not a legal move; nothing was written then.
        """
        ...


@runtime_checkable
class ImmediateService(Service, Protocol):
    """A service in this process, whose checkpoints need no waiting."""

    def commit_now(self, execution_id: str, token: str, updates: Sequence[Update]) -> Committed:
        """Do at once what `commit` does."""
        ...
