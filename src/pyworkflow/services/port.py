"""The ports to a service: who keeps the executions, and what each of its users needs of it.

* `History`: what one run of the engine needs. Lambda implements it inside a function.
* `Queue`: what a worker needs, to find executions that are due and to keep others from them.
* `Executions`: what clients, the command line, a dashboard and an endpoint need.

`Service` is all three, as `pyworkflow.services.open` returns it. Every implementation passes the
exam in `pyworkflow.testing.conformance`, which covers each method named here.

The protocol of `History` is that of AWS Lambda durable functions. A checkpoint is atomic; each one
consumes its token and returns the next, so of two processes that drive one execution only one can
write. The answer holds every operation that changed since that token was issued, the service's own
changes (due timers, due retries, completed callbacks) included.

Units: names that end in ``_ms`` are whole milliseconds since the epoch, names that end in
``_seconds`` whole seconds. Payloads are JSON text, callback results raw text, sizes UTF-8 bytes.

Errors: every method raises `ServiceUnavailableError` when the service can't be reached or is
locked, `StorageError` when what it keeps can't be used, `DamagedExecutionError` when one execution
can't be read, and `ServiceError` after `Service.close`. Methods name the others themselves. An
error means that nothing was changed, unless it is a `ServiceUnavailableError`.

Threads: the loop that opens a service may call every method. An implementation says so where it
takes more; memory and SQLite take calls on any loop of any thread, which a worker on this machine
needs for its heartbeat.

Room for what operating executions adds. Each of these becomes a method of `Executions`, with a
`Capability` where a service may lack it, or an option with a default, so that no caller changes:

* to cancel, pause, resume and delete an execution, and to send it a message: methods that take an
  execution's id, like `Executions.stop`;
* a list of workers, in pages: what `Queue.report` and the leases record;
* an order for lists, and histories from their end: options beside ``limit``;
* metadata of a start and the seed of a rerun: options of `Executions.start`;
* a start that its own worker leases at once: an ``owner`` option of `Executions.start`, for a
  service that is a `Queue`, too.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

from pyworkflow.errors import UsageError

LIST_LIMIT = 50
"""The most executions on a page, unless more are asked for."""
PAGE_LIMIT = 1000
"""The most operations or events on a page, unless more are asked for."""

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
    """An operation that not every service has; `Executions.capabilities` says which it has."""

    BACKUP = "back up its executions"
    RELEASE = "release an execution from its worker"


def require(service: Executions, capability: Capability, remedy: str) -> None:
    """Raise `UsageError` for a service without ``capability``; ``remedy`` says what to do."""
    if capability not in service.capabilities:
        raise UsageError(f"Expected a service that can {capability}, found {service!r}; {remedy}")


class History(Protocol):
    """What one run needs: the rest of its history, and a place for what happens next."""

    async def load(self, execution_id: str, token: str, marker: str) -> Page:
        """Return the page of the history that ``marker`` names.

        Raises `ExecutionNotFoundError`; `StaleTokenError` when ``token`` is not the newest;
        `ServiceError` for a marker that did not come with it.
        """
        ...

    def commit(
        self, execution_id: str, token: str, updates: Sequence[Update]
    ) -> Awaitable[Committed]:
        """Apply ``updates`` as a whole, durably, and return the next token and what changed.

        Without updates it refreshes. Raises `ExecutionNotFoundError`; `StaleTokenError` when the
        token was used or revoked; `InvalidUpdateError` when an update is not a legal move, after
        which the token is still good.
        """
        ...


@runtime_checkable
class ImmediateHistory(History, Protocol):
    """A `History` in this process, whose checkpoints need no waiting."""

    def commit_now(self, execution_id: str, token: str, updates: Sequence[Update]) -> Committed:
        """Do what `commit` does, without waiting."""
        ...


class Queue(Protocol):
    """What a worker needs: executions that are due, and leases on them.

    A lease belongs to an *owner*: one worker of one process. It is a promise to go on with the
    execution. It does not keep two processes from writing: the token does. Leases last `LEASE_MS`
    of the machine's time, whatever time the executions live in. An execution whose lease runs out
    without `release` lost its process: it becomes due again after a delay, as a *suspect*, since
    it may be what ended the process.
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

        Each begins a new invocation, and its older tokens are void. At most ``suspects`` of them
        are suspects (`None`: any number). With ``keep``, leases of ``owner`` that run out last
        until `retire` while this process is known to live, since a body may be running; `hand_back`
        gives up those that have none. Executions whose timeout has passed end here.
        """
        ...

    async def renew(self, owner: str, execution_ids: Collection[str]) -> None:
        """Extend the leases of ``owner`` on these executions to `LEASE_MS` from now.

        Leases that it has lost are skipped. Its other leases run out: a claim whose answer was lost
        must not keep an execution from everybody.
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
        """Give up the lease: the execution is due when something happens, or now if it has.

        With ``is_unfinished`` it is due now: steps are waiting that have no record yet. With a
        ``problem`` it is due after a delay that doubles with each one: 1 s to 5 min. A stale
        ``token`` is ignored: another owner has the execution. Raises `ExecutionNotFoundError`.
        """
        ...

    async def leased_by(self, owner: str, *, late: bool = False) -> Sequence[tuple[str, int]]:
        """Return what ``owner`` has leased: ids, each with the number of tokens issued so far.

        With ``late``, only leases that have run out.
        """
        ...

    async def hand_back(self, owner: str, leased: Collection[tuple[str, int]]) -> None:
        """Make these leases of ``owner``, as `leased_by` returned them, due for others now.

        Those for which a token was issued since are skipped: they are being run.
        """
        ...

    async def report(self, owner: str, report: ErrorRecord | None) -> None:
        """Record why ``owner`` does not go on (`None`: it does).

        The report is the ``problem`` of every execution that it has leased.
        """
        ...

    async def retire(self, owner: str) -> None:
        """Forget an owner that claims nothing more; leases that it still has run out by time."""
        ...

    # -- when to look ----------------------------------------------------------------------------

    async def next_due(
        self, workflow_names: Collection[str] | None = None, *, suspects: bool = True
    ) -> int | None:
        """Return when a worker of those workflows (`None`: of all) has to look next, or `None`.

        That is when the first of their executions without an owner is due, or when any running
        execution exceeds its timeout. `None` means: after the next change. Without ``suspects``,
        suspects don't count. Leases don't count either: workers look for those that ran out
        whenever they renew their own.
        """
        ...

    async def next_deadline(self) -> int | None:
        """Return when the first running execution exceeds its timeout; `None` if none has one."""
        ...

    async def unserved(self, workflow_names: Collection[str]) -> Sequence[ExecutionSummary]:
        """Return, of each workflow but these, the execution that has been due the longest, if any.

        None of them has an owner. A worker of that workflow may well claim it next.
        """
        ...

    async def changed(self, owner: str, execution_ids: Collection[str]) -> Sequence[str]:
        """Return those of the executions leased by ``owner`` at which it has to look.

        They changed from outside and no commit has read that yet, or they are over (one that
        exceeds its timeout ends here), or another owner has the lease. Asking keeps the leases:
        those that ran out and that nobody took are renewed.
        """
        ...

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Call ``on_change``, from any thread, when there may be work, news or an end.

        It is called after a start, a change from outside, a release and the end of an execution,
        not after each checkpoint, and never before the change can be read. Any change by another
        process counts. Return a function that ends the subscription.
        """
        ...


class Executions(Protocol):
    """What clients, the command line, a dashboard and an endpoint need."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Which of the optional operations this service has; the others raise `UsageError`."""
        ...

    async def start(
        self,
        workflow_name: str,
        input_payload: str,
        *,
        execution_name: str | None = None,
        timeout_seconds: int | None = None,
    ) -> str:
        """Start an execution and return its id; it is durable then, and due.

        Names are per workflow; without one the id is the name. Starting a name again with the same
        input returns the execution that has it, running or over. ``timeout_seconds`` from now the
        execution ends as TIMED_OUT. Raises `ExecutionAlreadyStartedError` when the name stands for
        another input, `ExecutionNameError` for a malformed one, `SerializationError` when the input
        is too large.
        """
        ...

    async def stop(self, execution_id: str, error: ErrorRecord) -> ExecutionSummary:
        """End an execution as STOPPED; one that is over stays as it is.

        Raises `ExecutionNotFoundError`.
        """
        ...

    async def revoke(self, execution_id: str) -> ExecutionSummary:
        """Take an execution from its owner, make it due for others now, and return it.

        Raises `ExecutionNotFoundError`, `ServiceError` when nobody has leased it. Needs
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

    # Lists are read in pages, so that none is long: ``limit`` is the most that a page has, and
    # ``after`` the ``marker`` of the page before. A marker that no page had is a `ServiceError`.

    async def list(
        self,
        *,
        limit: int = LIST_LIMIT,
        after: str | None = None,
        payloads: bool = False,
        **filters: Unpack[Filters],
    ) -> Paged[ExecutionSummary]:
        """Return the executions that match every filter of `Filters`, the newest first.

        They have their input and result only with ``payloads``. An execution that can't be read is
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

        Never before the change can be read. Return a function that ends the subscription.
        """
        ...

    # -- the service itself ----------------------------------------------------------------------

    async def backup(
        self, destination: str, on_progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Copy everything, in one state, into a new file, while everything goes on.

        ``on_progress`` is called on any thread with the number of bytes copied and the total.
        Raises `UsageError` if something is at ``destination``. Needs `Capability.BACKUP`.
        """
        ...

    async def close(self) -> None:
        """Finish what is being written, and let go of what the service has open."""
        ...


class Service(History, Queue, Executions, Protocol):
    """All three ports: executions on this machine, which workers here may run."""
