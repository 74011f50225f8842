"""The three ports of a service, which keeps executions: one port for each kind of user.

* `History` serves a run of the engine. Lambda implements it inside a function.
* `Queue` serves a worker: it finds due executions and leases them.
* `Executions` serves clients, the command line, a dashboard and an endpoint.

`Service` is all three, as `pyworkflow.services.open` returns it. Every implementation passes the
exam in `pyworkflow.testing.conformance`, which covers each method named here.

The protocol of `History` is that of AWS Lambda durable functions. A checkpoint is atomic; each one
consumes its token and returns the next, so of two processes that drive one execution only one can
write. The answer holds every operation that changed since that token was issued, the service's own
changes (due timers, due retries, completed callbacks) included.

Units: names that end in ``_ms`` are whole milliseconds since the epoch, names that end in
``_seconds`` whole seconds. Payloads are JSON text, callback results raw text, sizes UTF-8 bytes.

Errors: every method raises `ServiceUnavailableError` when the service can't be reached or is
locked, `StorageError` when its storage can't be used, `DamagedExecutionError` when an execution
can't be read, and `ServiceError` after `Executions.close`. Each method documents its other errors.
An error means that nothing was changed; after a `ServiceUnavailableError` that is unknown.

Threads: every method may be called on the loop that opened the service. Memory and SQLite accept
calls on any loop of any thread, which a worker on this machine needs for its heartbeat thread.

Extensions: each of these fits in as a method of `Executions`, with a `Capability` where a service
may lack it, or as an option with a default, so that no caller changes:

* cancelling, pausing, resuming and deleting an execution, and sending it a message: methods that
  take an execution's id, like `Executions.stop`;
* listing workers, in pages, from the leases and from `Queue.report`;
* ordering lists, and reading histories from their end: options beside ``limit``;
* metadata of a start, and the seed of a rerun: options of `Executions.start`;
* a start that is leased at once: an ``owner`` option of `Executions.start`, for a service that is
  also a `Queue`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

from pyworkflow.errors import UsageError

LIST_LIMIT = 50
"""Default number of executions per page."""
PAGE_LIMIT = 1000
"""Default number of operations or events per page."""

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence
    from typing import Unpack

    from pyworkflow._protocol.executions import (
        Committed,
        ExecutionSummary,
        Filters,
        Invocation,
        Page,
        Paged,
    )
    from pyworkflow._protocol.records import ErrorRecord, Operation, Update
    from pyworkflow.services.history import HistoryEvent

Durability: TypeAlias = Literal["full", "normal"]
"""``full``: on the disk when it returns. ``normal``: a power cut may take the last moments."""


class Capability(StrEnum):
    """An optional method of `Executions`; ``Executions.capabilities`` lists the supported ones."""

    BACKUP = "back up its executions"
    RELEASE = "release an execution from its worker"


def require(service: Executions, capability: Capability, remedy: str) -> None:
    """Raise `UsageError` if ``service`` lacks ``capability``; ``remedy`` ends the message."""
    if capability not in service.capabilities:
        raise UsageError(f"Expected a service that can {capability}, found {service!r}; {remedy}")


class History(Protocol):
    """The port of a run: it reads its history and records what happens next."""

    async def load(self, execution_id: str, token: str, marker: str) -> Page:
        """Return the page of the history that ``marker`` names.

        Raises `ExecutionNotFoundError`; `StaleTokenError` when ``token`` is not the newest;
        `ServiceError` for a marker that was not issued with ``token``.
        """
        ...

    def commit(
        self, execution_id: str, token: str, updates: Sequence[Update]
    ) -> Awaitable[Committed]:
        """Apply ``updates`` atomically and durably; return the next token and what changed.

        Without updates it only returns what changed. Raises `ExecutionNotFoundError`;
        `StaleTokenError` when the token was used or revoked; `InvalidUpdateError` when an update is
        not a legal move, after which the token is still valid.
        """
        ...


@runtime_checkable
class ImmediateHistory(History, Protocol):
    """A `History` in memory, whose checkpoints complete without waiting."""

    def commit_now(self, execution_id: str, token: str, updates: Sequence[Update]) -> Committed:
        """Do as `commit` does, and return the result directly."""
        ...


class Queue(Protocol):
    """The port of a worker: executions that are due, and leases on them.

    A lease belongs to an *owner*: one worker of one process. It is a promise to run the execution.
    It does not prevent two processes from writing; the token does. Leases last `LEASE_MS` of the
    machine's time, even if the executions have a clock of their own. An execution whose lease runs
    out without `release` lost its process. It becomes due again after a delay, as a *suspect*,
    since it may have killed the process.
    """

    # -- leases ----------------------------------------------------------------------------------

    async def claim_due(
        self,
        owner: str,
        workflow_names: Collection[str],
        limit: int,
        *,
        suspects: int | None = None,
        keep: bool = False,
    ) -> Sequence[Invocation]:
        """Lease up to ``limit`` due executions of those workflows, the longest due first.

        Each begins a new invocation, and its older tokens become void. At most ``suspects`` of them
        are suspects (`None`: no limit). With ``keep``, leases of ``owner`` outlast `LEASE_MS` until
        `retire`, while this process is known to be alive, since a step may be running; `hand_back`
        gives up leases without a running step. Executions whose timeout has passed end here.
        """
        ...

    async def renew(self, owner: str, execution_ids: Collection[str]) -> None:
        """Extend the leases of ``owner`` on these executions to `LEASE_MS` from now.

        Leases that it has lost are skipped. Its other leases run out: a claim whose result was lost
        must not block an execution.
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
        """Give up the lease; the execution is due at its next timer or unread change.

        With ``is_unfinished`` it is due now: it has steps to run that are not recorded yet. With a
        ``problem`` it is due after a delay that doubles with each problem in a row, from 1 s to
        5 min. A stale ``token`` is ignored: another owner has the execution. Raises
        `ExecutionNotFoundError`.
        """
        ...

    async def leased_by(self, owner: str, *, late: bool = False) -> Sequence[tuple[str, int]]:
        """Return the executions that ``owner`` has leased: ids, each with its number of tokens.

        That number counts the tokens issued so far. With ``late``, return only leases that have
        run out.
        """
        ...

    async def hand_back(self, owner: str, leased: Collection[tuple[str, int]]) -> None:
        """Give up these leases of ``owner``, as `leased_by` returned them; others may claim now.

        Executions for which a token was issued since are skipped: they are running.
        """
        ...

    async def report(self, owner: str, report: ErrorRecord | None) -> None:
        """Record why ``owner`` makes no progress; `None` clears the report.

        The report is shown as the ``problem`` of every execution that ``owner`` has leased.
        """
        ...

    async def retire(self, owner: str) -> None:
        """Forget an owner that stops claiming; its remaining leases run out after `LEASE_MS`."""
        ...

    # -- when to look ----------------------------------------------------------------------------

    async def next_due(
        self, workflow_names: Collection[str] | None = None, *, suspects: bool = True
    ) -> int | None:
        """Return when a worker of those workflows (`None`: all) has to claim next.

        That is when the first of their executions without an owner is due, or when any running
        execution exceeds its timeout; in milliseconds since the epoch. `None` means that only a
        change can make anything due. Without ``suspects``, suspects don't count. Leases don't count
        either: workers claim those that ran out whenever they renew their own.
        """
        ...

    async def next_deadline(self) -> int | None:
        """Return when the first running execution exceeds its timeout, `None` if none has one."""
        ...

    async def unserved(self, workflow_names: Collection[str]) -> Sequence[ExecutionSummary]:
        """Return the execution that has been due the longest, for each workflow except these.

        Only executions without an owner count; a worker of that workflow may claim them any time.
        """
        ...

    async def changed(self, owner: str, execution_ids: Collection[str]) -> Sequence[str]:
        """Return the ids, among those leased by ``owner``, of executions that changed.

        They changed from outside and no commit has read that yet, or they are over (an execution
        that exceeds its timeout ends here), or another owner has the lease. The call keeps the
        leases: those that ran out and that no other owner took are renewed.
        """
        ...

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Call ``on_change``, from any thread, when an execution may be due, changed or over.

        It is called after a start, a change from outside, a release and the end of an execution,
        but not after each checkpoint, and never before the change can be read. Any change by
        another process counts. Return a function that ends the subscription.
        """
        ...


class Executions(Protocol):
    """The port of clients, the command line, a dashboard and an endpoint."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The optional methods that this service supports; the others raise `UsageError`."""
        ...

    async def start(
        self,
        workflow_name: str,
        input_payload: str,
        *,
        execution_name: str | None = None,
        timeout_seconds: int | None = None,
    ) -> str:
        """Start an execution, which is durable and due on return, and return its id.

        Names are unique per workflow; the default is the id. Starting a name again with the same
        input returns the id of the existing execution, running or over. The execution ends as
        TIMED_OUT ``timeout_seconds`` from now. Raises `ExecutionAlreadyStartedError` when the name
        is taken by another input, `ExecutionNameError` for a malformed name, `SerializationError`
        when the input is too large.
        """
        ...

    async def stop(self, execution_id: str, error: ErrorRecord) -> ExecutionSummary:
        """End an execution as STOPPED, unless it is already over, and return it.

        Raises `ExecutionNotFoundError`.
        """
        ...

    async def revoke(self, execution_id: str) -> ExecutionSummary:
        """Take an execution from its owner, so that others may claim it now, and return it.

        Raises `ExecutionNotFoundError`, `ServiceError` when it is not leased. Needs
        `Capability.RELEASE`.
        """
        ...

    # -- callbacks -------------------------------------------------------------------------------

    async def complete_callback(self, callback_id: str, payload: str | None) -> str:
        """Complete a callback with the raw text ``payload``; return the execution's id.

        Raises `CallbackNotFoundError`, `CallbackAlreadyCompletedError`, `ExecutionEndedError`, and
        `SerializationError` when ``payload`` is too large.
        """
        ...

    async def fail_callback(self, callback_id: str, error: ErrorRecord) -> str:
        """Fail a callback; return the execution's id. Raises as `complete_callback`."""
        ...

    async def heartbeat_callback(self, callback_id: str) -> str:
        """Restart a callback's heartbeat timeout; return the execution's id. Raises as above."""
        ...

    # -- reading ---------------------------------------------------------------------------------

    async def get(self, execution_id: str) -> ExecutionSummary:
        """Return an execution's status, times and payloads. Raises `ExecutionNotFoundError`."""
        ...

    # Lists are read in pages, so that no read is long: ``limit`` is the maximum size of a page, and
    # ``after`` is the ``marker`` of the previous page. An invalid marker raises `ServiceError`.

    async def list(
        self,
        *,
        limit: int = LIST_LIMIT,
        after: str | None = None,
        payloads: bool = False,
        **filters: Unpack[Filters],
    ) -> Paged[ExecutionSummary]:
        """Return the executions that match every filter of `Filters`, the newest first.

        Only with ``payloads`` do they include input and result. An execution that can't be read is
        listed with that problem.
        """
        ...

    async def operations(
        self, execution_id: str, *, limit: int = PAGE_LIMIT, after: str | None = None
    ) -> Paged[Operation]:
        """Return operations in the order of their start, the EXECUTION operation first.

        Raises `ExecutionNotFoundError`.
        """
        ...

    async def history(
        self, execution_id: str, *, limit: int = PAGE_LIMIT, after: str | None = None
    ) -> Paged[HistoryEvent]:
        """Return what happened, in order of change. Raises `ExecutionNotFoundError`."""
        ...

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Call ``on_change``, from any thread, when an execution may have changed or ended.

        It is never called before the change can be read. Return a function that ends the
        subscription.
        """
        ...

    # -- the service itself ----------------------------------------------------------------------

    async def backup(
        self, destination: str, on_progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Copy all executions, as of one moment, into a new file, without stopping any of them.

        ``on_progress`` is called on any thread with the number of bytes copied and the total.
        Raises `UsageError` if ``destination`` exists. Needs `Capability.BACKUP`.
        """
        ...

    async def close(self) -> None:
        """Finish pending writes and release the service's resources."""
        ...


class Service(History, Queue, Executions, Protocol):
    """All three ports: a service on this machine, for clients and workers alike."""
