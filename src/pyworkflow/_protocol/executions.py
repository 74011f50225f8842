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
"""How long a lease lasts; holders renew it every third of that."""


class Invocation(msgspec.Struct, frozen=True, kw_only=True):
    """An activation of an execution, as a runner receives it.

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


class Committed(msgspec.Struct, frozen=True, gc=False):
    """The answer to a checkpoint: it is durable, and these operations changed since the last one.

    ``token`` is `None` when the execution is over or its token was revoked: write no more.
    ``marker`` names the next page of operations, `None` on the last.
    """

    token: str | None
    operations: tuple[Operation, ...]
    marker: str | None = None


T_co = TypeVar("T_co", covariant=True)


class Paged(tuple[T_co, ...]):  # noqa: SLOT001 - a tuple can have no slots beside its items
    """A page of a long list: the tuple of what is on it.

    ``marker`` names the next page, to be passed as ``after``; it is `None` on the last one.
    """

    marker: str | None

    def __new__(cls, items: Iterable[T_co] = (), marker: str | None = None) -> Self:
        """Return the page of ``items``."""
        page = super().__new__(cls, items)
        page.marker = marker
        return page


class Markers:
    """The markers of a list read page by page, each to be followed once.

    A service that returned one again would be read without end.
    """

    def __init__(self, source: object) -> None:
        self._source = source
        self._followed: set[str] = set()

    def follow(self, marker: str) -> str:
        """Return ``marker``. Raises `ServiceError` if a page before had it."""
        if marker in self._followed:
            raise ServiceError(
                f"Expected each page of {self._source!r} to have a marker of its own, found "
                f"{marker!r} again after {len(self._followed)} pages: the service does not go on "
                "from a marker, and reading would never end. This is a defect of the service"
            )
        self._followed.add(marker)
        return marker


class ExecutionStatus(StrEnum):
    """Where an execution stands; all but RUNNING are final."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    STOPPED = "STOPPED"


class ExecutionSummary(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An execution as a whole. Times are milliseconds since the epoch, payloads JSON text.

    In a list without payloads ``input_payload`` is empty, which no JSON is, and ``result`` `None`.
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
    """When a service that schedules looks at it next; `None` when only an outside event can."""
    problem: ErrorRecord | None = None
    """Why it does not go on: its process died, its worker is frozen, or its code does not fit."""
    failed_invocations: int = 0
    """How many invocations in a row ended in a problem; reset when one records anything."""

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
    """Which executions a list has: those that match every filter; `None` matches all.

    ``name_prefix`` and ``id_prefix`` are how a name or an id begins. ``started_from_ms`` is the
    first millisecond of the start, ``started_before_ms`` the first one after it. ``has_problem``
    asks whether `ExecutionSummary.problem` is set.
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
