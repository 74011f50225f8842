"""The words of the protocol as frozen records: what engine and service say to each other.

They mirror the wire (`Operation`, `OperationUpdate`, `ErrorObject` of AWS Lambda durable functions)
with the nested detail objects laid flat, times as whole milliseconds since the epoch, and one field
of our own: `Operation.sequence`. Payloads are JSON text. Records are data: no behaviour lives here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, TypeAlias, TypeVar

import msgspec

E = TypeVar("E", bound=type[StrEnum])

LAST_MS = 253_402_300_799_999
"""The end of the year 9999, the last that Python's dates know."""
LAST_COUNT = (1 << 53) - 1
"""The last integer before which every other one is exact in JSON."""

Milliseconds: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=LAST_MS)]
"""A time. The limits of these two count where a record is decoded: what is beyond is damage."""
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=LAST_COUNT)]


def _plain(words: E) -> E:
    """Make the members as cheap as the strings that they are.

    Python 3.11 looks a member up through a descriptor (0.25 µs) and hashes it in Python code; both
    happen a dozen times in each step.
    """
    for word in words:
        type.__setattr__(words, word.name, word)
    type.__setattr__(words, "__hash__", str.__hash__)
    return words


@_plain
class OperationType(StrEnum):
    EXECUTION = "EXECUTION"
    CONTEXT = "CONTEXT"
    STEP = "STEP"
    WAIT = "WAIT"
    CALLBACK = "CALLBACK"
    CHAINED_INVOKE = "CHAINED_INVOKE"


@_plain
class SubType(StrEnum):
    STEP = "Step"
    WAIT = "Wait"
    CALLBACK = "Callback"
    RUN_IN_CHILD_CONTEXT = "RunInChildContext"
    MAP = "Map"
    MAP_ITERATION = "MapIteration"
    PARALLEL = "Parallel"
    PARALLEL_BRANCH = "ParallelBranch"
    WAIT_FOR_CALLBACK = "WaitForCallback"
    WAIT_FOR_CONDITION = "WaitForCondition"
    CHAINED_INVOKE = "ChainedInvoke"


@_plain
class Action(StrEnum):
    START = "START"
    SUCCEED = "SUCCEED"
    FAIL = "FAIL"
    RETRY = "RETRY"
    CANCEL = "CANCEL"


@_plain
class Status(StrEnum):
    STARTED = "STARTED"
    PENDING = "PENDING"
    READY = "READY"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"
    STOPPED = "STOPPED"


ENDED = frozenset(
    {Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.TIMED_OUT, Status.STOPPED}
)


class ErrorRecord(
    msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True, gc=False
):
    """An error as it is recorded. ``data`` is JSON text; ``stack_trace`` is innermost last."""

    message: str = ""
    type: str = ""
    data: str | None = None
    stack_trace: tuple[str, ...] = ()


class Operation(
    msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True, kw_only=True, gc=False
):
    """A durable operation as the service keeps it.

    ``sequence`` is the execution-wide number of this operation's end, counted by services of ours;
    `None` while it runs, and always on Lambda. ``ended_attempts`` counts those of a step (on the
    wire and in files it is ``attempt``); ``attempt_start_ms`` is when an attempt after the first
    began, or may begin: services of ours alone know it. ``payload`` is the result of an ended
    operation, the state of a pending wait-for-condition, and the input of the EXECUTION operation.
    """

    id: str
    type: OperationType
    status: Status
    start_ms: Milliseconds
    end_ms: Milliseconds | None = None
    parent_id: str | None = None
    name: str | None = None
    subtype: str | None = None
    sequence: Count | None = None
    ended_attempts: Count = msgspec.field(default=0, name="attempt")
    next_attempt_ms: Milliseconds | None = None
    scheduled_end_ms: Milliseconds | None = None
    payload: str | None = None
    error: ErrorRecord | None = None
    replay_children: bool = False
    callback_id: str | None = None
    attempt_start_ms: int | None = None

    @property
    def attempt(self) -> int:
        """The number of a step's attempt, from 1; 0 for operations of other types.

        It is the attempt that runs or is due. While the delay of a retry passes (PENDING), and once
        the step is over, it is the attempt that ended last.
        """
        is_next = self.status is Status.STARTED or self.status is Status.READY
        return self.ended_attempts + (is_next and self.type is OperationType.STEP)

    @property
    def ended(self) -> bool:
        """Whether this operation has reached a final status."""
        return self.status in ENDED


class Update(
    msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True, kw_only=True, gc=False
):
    """A move of an operation, sent to the service in a checkpoint."""

    id: str
    type: OperationType
    action: Action
    parent_id: str | None = None
    name: str | None = None
    subtype: str | None = None
    payload: str | None = None
    error: ErrorRecord | None = None
    delay_seconds: int | None = None
    """RETRY: until the next attempt."""
    wait_seconds: int | None = None
    """WAIT START."""
    replay_children: bool = False
    """CONTEXT SUCCEED."""
    timeout_seconds: int | None = None
    """CALLBACK START; 0 or None means no timeout."""
    heartbeat_timeout_seconds: int | None = None
    """CALLBACK START; 0 or None means no timeout."""
    function_name: str | None = None
    """CHAINED_INVOKE START."""
    tenant_id: str | None = None
    """CHAINED_INVOKE START."""
    begin_ms: int | None = None
    """STEP, CONTEXT: when the body began; `None` if unknown. Services of ours alone read it."""
    end_ms: int | None = None
    """STEP SUCCEED, FAIL, RETRY: when the body ended; as above."""
