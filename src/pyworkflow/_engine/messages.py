"""What goes into the engine and what comes out of it: facts, and the `Turn` that answers them."""

from __future__ import annotations

from typing import Any

import msgspec

from pyworkflow._engine.ops.step import StepCall
from pyworkflow._protocol.records import ErrorRecord, Operation, Update

# -- facts ---------------------------------------------------------------------------------------


class StepReturned(msgspec.Struct, frozen=True, eq=False, gc=False):
    """An attempt of a step returned; ``value`` is ``payload`` decoded to the step's result type.

    ``end_ms`` is when, by the runner's clock.
    """

    id: str
    attempt: int
    payload: str
    value: Any
    end_ms: int | None = None


class StepRaised(msgspec.Struct, frozen=True, eq=False):
    """An attempt of a step raised ``error``."""

    id: str
    attempt: int
    error: BaseException
    end_ms: int | None = None


class Committed(msgspec.Struct, frozen=True, eq=False, gc=False):
    """The batch in flight, if any, is durable; these operations changed since the last one."""

    operations: tuple[Operation, ...]


class LagElapsed(msgspec.Struct, frozen=True, eq=False):
    """What may lag has lagged long enough: write it."""


class Refreshing(msgspec.Struct, frozen=True, eq=False):
    """An empty checkpoint is on its way, to learn what has changed: `Committed` will follow."""


class LastCall(msgspec.Struct, frozen=True, eq=False):
    """The time of this invocation is nearly over: no further attempt may begin."""


Fact = StepReturned | StepRaised | Committed | LagElapsed | Refreshing | LastCall

# -- ends ----------------------------------------------------------------------------------------


class Suspended(msgspec.Struct, frozen=True, eq=False):
    """Only outside events can make progress."""


class OutOfTime(msgspec.Struct, frozen=True, eq=False):
    """Steps wait for a later invocation, for the time of this one is over.

    ``due_ms`` is when the service invokes again by itself, `None` if nobody knows.
    """

    due_ms: int | None = None


class Succeeded(msgspec.Struct, frozen=True, eq=False):
    """The workflow returned; ``value`` is ``payload`` decoded to its result type."""

    payload: str
    value: Any


class Failed(msgspec.Struct, frozen=True, eq=False):
    """The workflow raised ``error``, recorded as ``record``."""

    record: ErrorRecord
    error: BaseException


class Broken(msgspec.Struct, frozen=True, eq=False):
    """History and code disagree, or an operation gave up this invocation.

    Nothing more may be written; the execution stays as it is.
    """

    error: Exception


End = Suspended | OutOfTime | Succeeded | Failed | Broken


class Turn(msgspec.Struct, frozen=True, eq=False):
    """What is to be done after the code ran as far as it goes.

    Run the attempts in ``launch``; cancel the bodies in ``cancel`` (operation ids); write ``write``
    as one checkpoint and answer `Committed`; if ``lags``, answer `LagElapsed` within 100 ms; at
    ``next_due_ms`` ask the service what has changed; ``end`` is set when the run is over.
    """

    launch: tuple[StepCall, ...] = ()
    cancel: tuple[str, ...] = ()
    write: tuple[Update, ...] = ()
    lags: bool = False
    next_due_ms: int | None = None
    end: End | None = None
