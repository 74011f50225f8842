"""The engine's input and output: facts, and the `Turn` that answers them."""

from __future__ import annotations

from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from pyworkflow._protocol.executions import Committed
from pyworkflow._protocol.records import ErrorRecord, Update

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyworkflow.retry import Retry

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


class LagElapsed(msgspec.Struct, frozen=True, eq=False):
    """The lagging updates have waited long enough: write them."""


class Refreshing(msgspec.Struct, frozen=True, eq=False):
    """An empty checkpoint is on its way, to learn what has changed: `Committed` will follow."""


class LastCall(msgspec.Struct, frozen=True, eq=False):
    """The time of this invocation is nearly over: start no further attempt."""


Fact = StepReturned | StepRaised | Committed | LagElapsed | Refreshing | LastCall

# -- attempts ------------------------------------------------------------------------------------


class AttemptSettings(Protocol):
    """How the attempts of a step are run."""

    @property
    def name(self) -> str: ...
    @property
    def key(self) -> str | None: ...
    @property
    def retry(self) -> Retry: ...
    @property
    def timeout_seconds(self) -> float | None: ...
    @property
    def at_most_once(self) -> bool: ...
    @property
    def inline(self) -> bool: ...
    @property
    def is_async(self) -> bool: ...
    @property
    def result_type(self) -> object: ...


class StepCall(msgspec.Struct, eq=False):
    """An attempt of a step, for the runtime to run; it sets ``begin_ms`` at the beginning."""

    id: str
    name: str
    attempt: int
    settings: AttemptSettings
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    context: Context = msgspec.field(default_factory=copy_context)
    """That of the code that called the step. Each attempt runs in a `body_context` of it."""
    begin_ms: int | None = None

    def __str__(self) -> str:
        return f"the result of step {self.name!r}"


# -- ends ----------------------------------------------------------------------------------------


class Suspended(msgspec.Struct, frozen=True, eq=False):
    """Only outside events can make progress."""


class OutOfTime(msgspec.Struct, frozen=True, eq=False):
    """Steps wait for a later invocation, for the time of this one is over.

    ``due_ms`` is when the service invokes again by itself, `None` if that is unknown.
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
    """The work to do after the code has run until it is idle.

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
