"""Rules of scheduling that every service of ours shares: new executions, delays, progress."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from pyworkflow._protocol.records import Action, Operation, OperationType, Status

if TYPE_CHECKING:
    from pyworkflow._protocol.records import Update

_LONGEST_BACKOFF_MS = 300_000
_BEGINNINGS = {OperationType.STEP, OperationType.CONTEXT}


def new_root(now_ms: int, name: str | None, input_payload: str) -> Operation:
    """Return the EXECUTION operation of a new execution, which is called by its id by default."""
    # The time first, so that ids sort by age; the rest can't be guessed.
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
    """Return the delay after that many problems in a row: 1 s, 2 s, 4 s, ... 5 min."""
    return min(1000 << min(failures - 1, 20), _LONGEST_BACKOFF_MS) if failures > 0 else 0


def is_progress(update: Update) -> bool:
    """Return whether an execution that dies again and again can't record this each time."""
    # That a step began says nothing: its body may be what ends the process.
    return update.action is not Action.START or update.type not in _BEGINNINGS
