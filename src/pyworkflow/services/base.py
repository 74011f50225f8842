"""The records that pass through the ports of a service; the ports themselves are in `port`."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from pyworkflow._engine.records import ErrorRecord, Operation

LEASE_MS = 10_000
"""How long a lease lasts; holders renew it every third of that."""


class Invocation(msgspec.Struct, frozen=True, kw_only=True):
    """One activation of an execution: what a runner is given to begin with.

    ``operations`` is the first page of the history (the EXECUTION operation is first); ``marker``
    names the next page, `None` on the last. ``max_operations`` is how many operations the service
    allows an execution, ``max_payload_bytes`` how large the payload of one may be, and
    ``max_result_bytes`` how large the result of the execution itself, in UTF-8; `None`: any.
    ``losses`` is how many processes in a row died, or left it, while they ran it.
    """

    execution_id: str
    execution_name: str
    workflow_name: str
    token: str
    operations: tuple[Operation, ...] = ()
    marker: str | None = None
    max_operations: int | None = None
    max_payload_bytes: int | None = None
    max_result_bytes: int | None = None
    losses: int = 0


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
    wake_ms: int | None = None
    """When a service that schedules looks at it next; `None` when only an outside event can."""
    problem: ErrorRecord | None = None
    """Why it does not go on: its process died, its worker is frozen, or its code does not fit."""
    troubles: int = 0
    """How many invocations in a row ended in a problem; reset when one records anything."""


class InvokedNames:
    """The names of the executions that one execution invokes: no two are equal."""

    def __init__(self, parent_name: str) -> None:
        self._parent_name = parent_name
        self._counts: dict[str, int] = {}
        """Each name that is taken, with how often it was asked for."""

    def take(self, operation_id: str, operation_name: str | None) -> str:
        """Return the name of the execution that the next invoke starts; ask in order of start."""
        # A dot is in no name that a caller may choose, so it takes none from anybody.
        first = name = f"{self._parent_name}.{operation_name or operation_id[:8]}"
        while name in self._counts:
            self._counts[first] = count = self._counts[first] + 1
            name = f"{first}.{count}"
        self._counts[name] = 1
        return name
