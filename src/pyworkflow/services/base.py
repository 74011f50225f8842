"""The port to a service: who keeps the history of an execution.

The protocol is that of AWS Lambda durable functions. A checkpoint is atomic; each one consumes its
token and returns the next, so of two processes that drive one execution only one can write. The
answer holds every operation that changed since that token was issued, the service's own changes
(due timers, due retries, completed callbacks) included.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

from pyworkflow._engine.records import ErrorRecord, Operation, Update

if TYPE_CHECKING:
    from pyworkflow.services.events import HistoryEvent

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


class Service(Protocol):
    """What the runner needs of any service."""

    async def load(self, execution_id: str, token: str, marker: str) -> Page:
        """Return the page of the history that ``marker`` names."""
        ...

    def commit(
        self, execution_id: str, token: str, updates: Sequence[Update]
    ) -> Awaitable[Committed]:
        """Apply ``updates`` as a whole, durably, and return the next token and what changed.

        An empty ``updates`` refreshes. Raises `StaleTokenError` when the token was used already,
        `InvalidUpdateError` when an update is not a legal move; nothing was written then.
        """
        ...


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


@runtime_checkable
class ImmediateService(Service, Protocol):
    """A service in this process, whose checkpoints need no waiting."""

    def commit_now(self, execution_id: str, token: str, updates: Sequence[Update]) -> Committed:
        """Do at once what `commit` does."""
        ...


class SchedulingService(Service, Protocol):
    """A service that keeps executions and says which of them are due, for workers.

    A lease belongs to an *owner*: one worker of one process. It is a promise to go on with the
    execution, not what keeps two from writing; the token does that. Leases run out by the machine's
    time, however virtual the time of the executions is. An execution whose lease ran out without
    `release` is due at once: its process died in the midst of it.

    Every method may be called on any loop, of any thread.
    """

    async def start(
        self,
        workflow_name: str,
        input_payload: str,
        *,
        execution_name: str | None = None,
        timeout_seconds: int | None = None,
    ) -> str:
        """Start an execution and return its id; one with this workflow, name and input is returned.

        Without a name its id is its name. Raises `ExecutionAlreadyStartedError` when the name is
        taken by another input, `SerializationError` when the input is too large.
        """
        ...

    async def claim_due(
        self,
        owner: str,
        workflow_names: Collection[str],
        limit: int,
        *,
        suspects: int | None = None,
        keep: bool = False,
    ) -> Sequence[Invocation]:
        """Lease up to ``limit`` due executions of those workflows and begin their invocations.

        Of those that lost their process, ``suspects`` are taken at most (`None`: any number). With
        ``keep``, leases of ``owner`` that run out are kept while this process is known to live,
        until `retire`: what it claimed may have a body running. `hand_back` is for what has none.
        """
        ...

    async def renew(self, owner: str, execution_ids: Collection[str]) -> None:
        """Prolong the leases of ``owner`` on these executions, to `LEASE_MS` from now.

        Those that it holds no longer are passed over. The others of its leases run out: a claim
        whose answer was lost must not keep an execution from everybody.
        """
        ...

    async def release(
        self,
        execution_id: str,
        token: str,
        *,
        problem: ErrorRecord | None = None,
        is_unfinished: bool = False,
    ) -> None:
        """Give up the lease: it is due again once anything happens, or at once if that did.

        With ``is_unfinished`` it is due at once: steps wait that have no record yet. With a
        ``problem`` it is due later, the longer the more often: 1 s to 5 min. A stale ``token`` is
        ignored, for another owner has it then.
        """
        ...

    async def held_by(self, owner: str, *, late: bool = False) -> Sequence[tuple[str, int]]:
        """Return what ``owner`` has leased: ids, each with the number of tokens issued by now.

        With ``late``, only that of which the lease ran out.
        """
        ...

    async def hand_back(self, owner: str, leased: Collection[tuple[str, int]]) -> None:
        """Let others go on at once with these of what `held_by` returned.

        Those for which a token was issued since are passed over: they go on.
        """
        ...

    async def report(self, owner: str, report: ErrorRecord | None) -> None:
        """Say why ``owner`` does not go on; it is the problem of what it has leased."""
        ...

    async def retire(self, owner: str) -> None:
        """Forget an owner, which claims nothing more; leases that it still has run out by time."""
        ...

    async def revoke(self, execution_id: str) -> ExecutionSummary:
        """Take an execution from its owner, for others to go on with at once, and return it.

        Raises `ExecutionNotFoundError`, `ServiceError` when nobody has leased it.
        """
        ...

    async def next_due(
        self, workflow_names: Collection[str] | None = None, *, suspects: bool = True
    ) -> int | None:
        """Return when a worker of those workflows (all) has to look next; `None`: after a change.

        Without ``suspects``, executions that lost their process are passed over.
        That is when the first of their executions that nobody holds is due, or when one that
        somebody holds is over its time. (Leases are no part of it: workers look for those that ran
        out whenever they renew their own.)
        """
        ...

    async def next_deadline(self) -> int | None:
        """Return when the first running execution is over its time; `None` if none has a limit."""
        ...

    async def left_due(self, workflow_names: Collection[str]) -> Sequence[ExecutionSummary]:
        """Return, of each workflow but these, the execution that has been due the longest, if any.

        Nobody holds it. Between two looks it may well be claimed by a worker of that workflow.
        """
        ...

    async def news(self, owner: str, execution_ids: Collection[str]) -> Sequence[str]:
        """Return those of the executions, held by ``owner``, whose holder has to look.

        They changed from outside, and no commit has read that yet; or they are over (one whose time
        is over by now ends here); or another owner has the lease.
        Whoever asks holds them still: of leases that ran out, those that nobody took go on.
        """
        ...

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Call ``on_change``, from any thread, when there may be work or news, or an end.

        It is called after a start, a change from outside, a release and the end of an execution,
        not after each checkpoint; never before the change can be read. Changes by other processes
        on the same file are noticed, too, whatever they are. Returns how to end it.
        """
        ...

    async def stop(self, execution_id: str, error: ErrorRecord) -> ExecutionSummary:
        """End an execution from outside as STOPPED; one that is over already stays as it is."""
        ...

    async def complete_callback(self, callback_id: str, payload: str | None) -> str:
        """Let a callback succeed with the raw text ``payload``; return the execution's id.

        Raises `CallbackNotFoundError`, `CallbackAlreadyCompletedError`, `ExecutionEndedError`, and
        `SerializationError` when ``payload`` is too large.
        """
        ...

    async def fail_callback(self, callback_id: str, error: ErrorRecord) -> str:
        """Let a callback fail; return the execution's id. Raises as `complete_callback`."""
        ...

    async def heartbeat_callback(self, callback_id: str) -> str:
        """Restart a callback's heartbeat timeout; return the execution's id. Raises as above."""
        ...

    async def get(self, execution_id: str) -> ExecutionSummary:
        """Return how an execution stands. Raises `ExecutionNotFoundError`."""
        ...

    async def list(
        self,
        *,
        workflow_name: str | None = None,
        status: ExecutionStatus | None = None,
        execution_name: str | None = None,
        limit: int | None = None,
    ) -> Sequence[ExecutionSummary]:
        """Return the executions, the newest first."""
        ...

    async def operations(self, execution_id: str) -> Sequence[Operation]:
        """Return every operation in the order of its start, the EXECUTION operation first."""
        ...

    async def history(self, execution_id: str) -> Sequence[HistoryEvent]:
        """Return what happened, in order of change."""
        ...

    async def backup(
        self, destination: str, on_progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Copy everything, of one state, into a file of its own, while everything goes on.

        ``on_progress`` is given, on any thread, how many bytes were copied, and how many there are.
        Raises `UsageError` if something is at ``destination`` already.
        """
        ...

    async def close(self) -> None:
        """Finish what is being written, and let go of the file."""
        ...
