"""Scheduling that memory and SQLite share: when an execution is due, and what a failure delays."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from pyworkflow._protocol.records import Action, Operation, OperationType, Status

if TYPE_CHECKING:
    import logging
    from collections.abc import Sequence

    from pyworkflow._protocol.records import ErrorRecord, Update
    from pyworkflow.services._execution_state import ExecutionState

_LONGEST_BACKOFF_MS = 300_000
_BEGINNINGS = {OperationType.STEP, OperationType.CONTEXT}


class Scheduled:
    """An execution's state plus its schedule. A new instance is due now and has no owner."""

    __slots__ = (
        "failed_invocations",
        "is_over",
        "losses",
        "not_before_ms",
        "owner",
        "problem",
        "state",
        "wake_ms",
    )

    def __init__(self, state: ExecutionState) -> None:
        self.state = state
        self.owner: str | None = None
        """The worker that has leased it."""
        self.wake_ms: int | None = None
        """When it is due, as it was last scheduled; `None`: when an outside event occurs."""
        self.not_before_ms: int | None = state.root.start_ms
        """If set, it is due exactly then: at its start, and after a problem."""
        self.failed_invocations = 0
        """Number of invocations in a row that ended in a problem."""
        self.losses = 0
        """Number of processes in a row that died, or lost the lease, while they ran it."""
        self.problem: ErrorRecord | None = None
        self.is_over = False
        """Whether its end was carried to the execution that invoked it."""

    def next_wake(self, now_ms: int) -> int | None:
        """Return when a worker has to continue it; `None` if nobody has to."""
        state = self.state
        if self.owner is not None or not state.is_running:
            return None
        if self.not_before_ms is not None:
            return self.not_before_ms
        return now_ms if state.unread else state.next_due()

    def free(self, due_ms: int | None = None) -> None:
        """Take it from its owner, whose token is void from now on."""
        self.owner = None
        self.not_before_ms = due_ms
        self.state.tokens += 1
        self.state.token = None

    def postpone(self, problem: ErrorRecord, due_ms: int) -> None:
        """Take it from its owner because of ``problem``, to be due at ``due_ms``."""
        self.failed_invocations += 1
        self.problem = problem
        self.free(due_ms)

    def recovers_by(self, updates: Sequence[Update]) -> bool:
        """Return whether ``updates`` show that its problem is over."""
        return bool(updates) and (not self.losses or any(map(is_progress, updates)))


def log_lost_lease(logger: logging.Logger, level: int, state: ExecutionState, reason: str) -> None:
    """Log that a worker lost an execution, with the steps whose results are lost."""
    begun = [
        operation.name or operation.id
        for operation in state.operations.values()
        if operation.type is OperationType.STEP and operation.status is Status.STARTED
    ]
    logger.log(
        level,
        "execution %r of %r: %s; others go on with it. What that worker has not recorded is lost: "
        "%s",
        state.root.name,
        state.workflow_name,
        reason,
        f"what these steps return: {', '.join(begun)}" if begun else "no step was recorded to run",
    )


def new_root(now_ms: int, name: str | None, input_payload: str) -> Operation:
    """Return the EXECUTION operation of a new execution, whose default name is its id."""
    # The time comes first, so that ids sort by age; the rest can't be guessed.
    execution_id = f"{now_ms:012x}{secrets.token_hex(10)}"
    return Operation(
        id=execution_id,
        type=OperationType.EXECUTION,
        status=Status.STARTED,
        start_ms=now_ms,
        name=name or execution_id,
        payload=input_payload,
    )


def backoff_ms(failures: int) -> int:
    """Return the delay after ``failures`` in a row: 1 s, 2 s, 4 s, ... 5 min."""
    return min(1000 << min(failures - 1, 20), _LONGEST_BACKOFF_MS) if failures > 0 else 0


def is_progress(update: Update) -> bool:
    """Return whether ``update`` proves progress: no crash loop can record it in each round."""
    # A step's START proves nothing: its body may be what kills the process.
    return update.action is not Action.START or update.type not in _BEGINNINGS
