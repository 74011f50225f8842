"""The records that pass through the ports of a service; the ports themselves are in `port`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from enum import StrEnum
from typing import Self, TypedDict, TypeVar

import msgspec

from pyworkflow._protocol.records import ErrorRecord, Operation
from pyworkflow.errors import ServiceError

LEASE_MS = 10_000
"""How long a lease lasts; owners renew it after every third of that."""


class Invocation(msgspec.Struct, frozen=True, kw_only=True):
    """An activation of an execution, from which a runner begins.

    ``operations`` is the first page of the history (the EXECUTION operation is first); ``marker``
    names the next page, `None` on the last. ``max_operations`` limits the operations of the
    execution, ``max_payload_bytes`` the payload of an operation, and ``max_result_bytes`` the
    result of the execution itself, in bytes of UTF-8; `None`: no limit. ``losses`` is the number of
    processes in a row that died, or lost the lease, while they ran the execution.
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


class Committed(msgspec.Struct, frozen=True, gc=False):
    """The result of a checkpoint: the next token and the operations that changed.

    ``token`` is `None` when the execution is over or its token was revoked; then no further
    checkpoint is accepted.
    """

    token: str | None
    operations: tuple[Operation, ...]
    marker: str | None = None


T_co = TypeVar("T_co", covariant=True)


class Paged(tuple[T_co, ...]):  # noqa: SLOT001 - a tuple can have no slots beside its items
    """A page of a long list, as a tuple of its items.

    ``marker`` names the next page and is passed as ``after``; it is `None` on the last page.
    """

    marker: str | None

    def __new__(cls, items: Iterable[T_co] = (), marker: str | None = None) -> Self:
        """Return the page of ``items``."""
        page = super().__new__(cls, items)
        page.marker = marker
        return page


class Markers:
    """The markers of a list that is read page by page; each may be followed once.

    If a service returned a marker twice, reading would never end.
    """

    def __init__(self, source: object) -> None:
        self._source = source
        self._followed: set[str] = set()

    def follow(self, marker: str) -> str:
        """Return ``marker``. Raises `ServiceError` if a previous page had it."""
        if marker in self._followed:
            raise ServiceError(
                f"Expected each page of {self._source!r} to have a marker of its own, found "
                f"{marker!r} again after {len(self._followed)} pages: the service does not go on "
                "from a marker, and reading would never end. This is a defect of the service"
            )
        self._followed.add(marker)
        return marker


class ExecutionStatus(StrEnum):
    """The status of an execution; all except RUNNING are final."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    STOPPED = "STOPPED"


class ExecutionSummary(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An execution as a whole. Times are milliseconds since the epoch, payloads JSON text.

    In a list without payloads ``input_payload`` is empty, which JSON never is, and ``result`` is
    `None`.
    """

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
    """When it is due; `None` while it runs or awaits an external event, and when it is over."""
    problem: ErrorRecord | None = None
    """Why it makes no progress: its process died, its worker is frozen, its code does not fit."""
    failed_invocations: int = 0
    """Number of invocations in a row that ended in a problem; reset when one records anything."""

    @property
    def troubles(self) -> int:
        """Deprecated: the former name of ``failed_invocations``."""
        warnings.warn(
            "ExecutionSummary.troubles is deprecated; use failed_invocations",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.failed_invocations


class Filters(TypedDict, total=False):
    """The filters of a list, which contains the executions that match all; `None` matches any.

    ``name_prefix`` and ``id_prefix`` match the beginning of a name or an id. An execution was
    started at ``started_from_ms`` or later, and before ``started_before_ms``. ``has_problem``
    matches whether `ExecutionSummary.problem` is set.
    """

    workflow_name: str | None
    status: ExecutionStatus | None
    execution_name: str | None
    name_prefix: str | None
    id_prefix: str | None
    started_from_ms: int | None
    started_before_ms: int | None
    has_problem: bool | None


class InvokedNames:
    """The names of the executions that an execution invokes; all are different."""

    def __init__(self, parent_name: str) -> None:
        self._parent_name = parent_name
        self._counts: dict[str, int] = {}
        """The names in use, each with the number of requests for it."""

    def take(self, operation_id: str, operation_name: str | None) -> str:
        """Return the name of the execution that the next invoke starts; call in order of start."""
        # Callers can't choose a name with a dot, so this never conflicts with theirs.
        first = name = f"{self._parent_name}.{operation_name or operation_id[:8]}"
        while name in self._counts:
            self._counts[first] = count = self._counts[first] + 1
            name = f"{first}.{count}"
        self._counts[name] = 1
        return name
