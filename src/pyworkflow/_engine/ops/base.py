"""The base of every durable operation.

An operation is a small machine. `start` is called when nothing is recorded for it, `replay` when
something is; afterwards `on_change` brings each new state that the service reports, `deliver` its
end, at the operation's turn, and `abandon` says that the workflow no longer waits for it.

`Host` is the execution as its operations see it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from msgspec.structs import replace

from pyworkflow._engine.ids import hash_path
from pyworkflow._engine.mismatch import lost_class_error
from pyworkflow._protocol.limits import check_size, fits
from pyworkflow._protocol.records import (
    Action,
    ErrorRecord,
    Operation,
    OperationType,
    Update,
)
from pyworkflow._values.exception_classes import NOWHERE
from pyworkflow._values.exception_rebuilding import LostClassError
from pyworkflow.errors import SerializationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyworkflow._engine.attempts import Attempts
    from pyworkflow._engine.journal import Journal
    from pyworkflow._engine.loop.event_loop import WorkflowLoop
    from pyworkflow._engine.loop.greenlets import Greenlets
    from pyworkflow._engine.outbox import Outbox, QueuedUpdate
    from pyworkflow._engine.pending import PendingOperations
    from pyworkflow._engine.scopes import IssuedOperation, Scope
    from pyworkflow._protocol.limits import Limits
    from pyworkflow._values.exception_classes import Home
    from pyworkflow._values.exception_rebuilding import Fallback
    from pyworkflow._values.exceptions import KnownErrors
    from pyworkflow.errors import NonDeterminismError


class Host(Protocol):
    """The execution, as its operations see it."""

    id: str
    loop: WorkflowLoop
    journal: Journal
    outbox: Outbox
    attempts: Attempts
    pending: PendingOperations
    greenlets: Greenlets
    limits: Limits
    known_errors: KnownErrors
    now_ms: int
    clock_ms: int | None
    is_closing: bool

    def admit(self, what: str) -> None:
        """Raise unless a durable operation may happen here and now."""
        ...

    def abandon(self, op: IssuedOperation) -> None:
        """Give up ``op``: the workflow no longer waits for it."""
        ...

    def abandon_if_cancelled(self, op: Op) -> None:
        """Abandon ``op`` if it was its own future that was cancelled."""
        ...

    def give_decoded(self, op: Op, payload: str | None, result_type: object) -> None:
        """Complete ``op`` with a recorded result; one that no longer fits stops the run."""
        ...

    def break_with(self, error: NonDeterminismError) -> None:
        """Stop the run where it is: history and code disagree."""
        ...


class Op:
    """A durable operation that the running code has issued.

    ``path`` is its position for messages, ``number`` the order of issue in this run.
    """

    type: ClassVar[OperationType]
    subtype: str

    __slots__ = (
        "abandoned",
        "ended",
        "execution",
        "future",
        "id",
        "is_pending",
        "name",
        "number",
        "path",
        "scope",
    )

    def __init__(self, execution: Host, name: str | None, key: str | None = None) -> None:
        loop = execution.loop
        namespace = loop.namespace()
        scope = namespace.scope
        if execution.is_closing or namespace.detached or scope.is_over:
            execution.admit("a durable operation")
        self.execution = execution
        self.name = name
        self.scope: Scope = scope
        if key is None:
            self.path = path = namespace.take_path()
            self.id = hash_path(path)
        else:
            self.path = f"key {key!r}"
            self.id = hash_path(scope.take_key(key))
        self.number = 0
        self.abandoned = False
        self.ended = False
        self.is_pending = False
        self.future: asyncio.Future[Any] = asyncio.Future(loop=loop)

    def start(self) -> None:
        """Begin: nothing is recorded."""
        raise NotImplementedError

    def replay(self, record: Operation) -> None:
        """Go on from what is recorded and has not ended."""
        raise NotImplementedError

    def replay_end(self, record: Operation) -> None:
        """Wait for the turn of the end that was recorded already."""
        self.execution.journal.queue_end(self, record, is_replay=True)

    def on_change(self, record: Operation) -> None:
        """Take a new state that is not an end."""

    def deliver(self, record: Operation) -> None:
        """Give the recorded end to the workflow."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Stop what can be stopped: the workflow was cancelled here, or has returned."""

    async def outcome(self) -> Any:
        """Await the end; give the value or raise the error, as `Execution.wait` does."""
        try:
            return await self.future
        except asyncio.CancelledError:
            self.execution.abandon_if_cancelled(self)
            raise

    @property
    def home(self) -> Home:
        """The globals of the function whose errors this operation gives."""
        return NOWHERE

    def recorded_error(self, error: BaseException) -> ErrorRecord:
        """Return what is recorded for an error that this operation's function raised."""
        return self.execution.known_errors.record(error, self.home)

    def give_error(self, record: ErrorRecord | None, fallback: Fallback) -> None:
        """Complete this operation with the exception that ``record`` describes."""
        error = self.rebuilt(record or ErrorRecord(), fallback, self.home)
        if error is not None:
            self.future.set_exception(error)

    def rebuilt(self, record: ErrorRecord, fallback: Fallback, home: Home) -> Exception | None:
        """Return the exception that ``record`` describes; a class that is lost stops the run."""
        try:
            return self.execution.known_errors.rebuild(record, fallback, home)
        except LostClassError as lost:
            self.execution.break_with(lost_class_error(self, lost))
            return None

    @property
    def position(self) -> str:
        """Where in the code the operation stands, for messages."""
        return self.path if self.path.startswith("key") else f"position {self.path}"

    def __str__(self) -> str:
        return f"the recorded result of {self.awaits()}"

    def asked(self) -> Mapping[str, Any]:
        """Return what the code asked for, by name, beyond the operation's identity.

        A replay must ask for the same. Not all of it is recorded, so tests compare it.
        """
        return {}

    def awaits(self) -> str:
        """Say in a few words what is waited for."""
        return f"{self.subtype} {self.name!r}" if self.name else str(self.subtype)

    def refusal(self, payload: str | None, what: str) -> SerializationError | None:
        """Return why the service does not store ``payload``, `None` if it does.

        ``what`` of this operation it is: ``"result"``.
        """
        most = self.execution.limits.max_payload_bytes
        if fits(payload, most):
            return None
        try:
            check_size(payload, most, f"the {what} of {self.awaits()}")
        except SerializationError as error:
            return error
        return None

    def update(
        self,
        action: Action,
        payload: str | None = None,
        error: ErrorRecord | None = None,
        **details: Any,
    ) -> Update:
        """Return an update of this operation; ``details`` are what only its kind has."""
        update = Update(
            id=self.id,
            type=self.type,
            action=action,
            parent_id=self.scope.operation_id,
            name=self.name,
            subtype=self.subtype,
            payload=payload,
            error=error,
        )
        return replace(update, **details) if details else update

    def write(
        self,
        action: Action,
        *,
        payload: str | None = None,
        error: ErrorRecord | None = None,
        urgent: bool = False,
        patient: bool = False,
        **details: Any,
    ) -> QueuedUpdate:
        """Queue an update of this operation; see `update`."""
        update = self.update(action, payload, error, **details)
        return self.execution.outbox.put(update, urgent, patient)
