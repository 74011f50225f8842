"""`AsyncHandle`: one execution, as a client sees it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from pyworkflow._local.waits import waiting_for
from pyworkflow._protocol.executions import ExecutionStatus, Markers
from pyworkflow._protocol.records import ErrorRecord
from pyworkflow._values import codec
from pyworkflow._values.exception_rebuilding import stand_in
from pyworkflow._values.exceptions import KnownErrors, record_report
from pyworkflow.duration import format_duration, parse_duration
from pyworkflow.errors import ExecutionFailedError, ExecutionStoppedError, ExecutionTimedOutError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyworkflow._local.completion import Completions
    from pyworkflow._protocol.executions import ExecutionSummary, Paged
    from pyworkflow._protocol.records import Operation
    from pyworkflow.duration import Duration
    from pyworkflow.services.history import HistoryEvent
    from pyworkflow.services.port import Executions

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Identity(NamedTuple):
    """The id and names of an execution."""

    id: str
    name: str
    workflow_name: str

    @classmethod
    def of(cls, summary: ExecutionSummary) -> Identity:
        """Return the identity of the summary's execution."""
        return cls(summary.id, summary.name, summary.workflow_name)


class AsyncHandle(Generic[R_co]):
    """An execution, with its ``id``, ``name`` and ``workflow_name``. Clients return it.

    Its methods raise `ExecutionNotFoundError` if the execution no longer exists.
    """

    def __init__(
        self,
        service: Executions,
        completions: Completions,
        identity: Identity,
        result_type: object = Any,
    ) -> None:
        self._service = service
        self._completions = completions
        self._result_type = result_type
        self.id, self.name, self.workflow_name = identity

    def __repr__(self) -> str:
        return f"<execution {self.name!r} of workflow {self.workflow_name!r}>"

    async def result(self, timeout: Duration | None = None) -> R_co:
        """Wait for the end of the execution and return its result.

        It has the workflow's result type if the client knows the workflow, else it is plain JSON.

        Raises the workflow's own error (`ExecutionFailedError` if its class is not known here),
        `ExecutionStoppedError` or `ExecutionTimedOutError`; `TimeoutError` after ``timeout``, a
        duration in real time, while the execution goes on; and, in a step, `DeadlockError` if too
        many steps of this process wait for executions.
        """
        with waiting_for(self):
            return await self.wait_for_result(timeout)

    async def wait_for_result(self, timeout: Duration | None) -> R_co:
        """Wait like `result`, for a caller that has already lent its thread and slot."""
        if timeout is None:
            summary = await self._completions.wait(self.id)
        else:
            summary = await self._wait(parse_duration(timeout))
        return _result_of(summary, self._result_type)  # type: ignore[no-any-return]

    async def _wait(self, seconds: float) -> ExecutionSummary:
        try:
            async with asyncio.timeout(seconds) as scope:
                return await self._completions.wait(self.id)
        except TimeoutError:
            if not scope.expired():
                raise
            raise TimeoutError(
                f"{self!r} did not end within {format_duration(seconds)}; it goes on, so ask "
                "again later"
            ) from None

    async def status(self) -> ExecutionStatus:
        """Return the execution's status."""
        return (await self.summary()).status

    async def summary(self) -> ExecutionSummary:
        """Return the execution as a whole: status, times, input, result or error, problems."""
        return await self._service.get(self.id)

    async def operations(self) -> Sequence[Operation]:
        """Return the durable operations in the order of their starts, EXECUTION first."""
        return await _whole(self._service.operations, self.id)

    async def history(self) -> Sequence[HistoryEvent]:
        """Return the events in order, as AWS records them."""
        return await _whole(self._service.history, self.id)

    async def stop(self, reason: str = "stopped by a client") -> ExecutionSummary:
        """End the execution as STOPPED and return its summary; a finished one stays as it is.

        Running steps are cancelled. The workflow's ``finally`` and ``except`` blocks can issue no
        more operations, so compensate from outside.
        """
        return await self._service.stop(self.id, record_report(reason, "Execution.Stopped"))


def id_of(execution: str | Identified) -> str:
    """Return the id of a handle; an id or a name stays as it is."""
    return execution if isinstance(execution, str) else execution.id


class Identified(Protocol):
    """A handle of either kind."""

    id: str


class _Read(Protocol[T_co]):
    """A method that returns parts of an execution in pages."""

    async def __call__(self, execution_id: str, *, after: str | None) -> Paged[T_co]: ...


async def _whole(read: _Read[T], execution_id: str) -> tuple[T, ...]:
    """Return all pages, each read separately, so that nothing waits behind a long read."""
    found: list[T] = []
    after = None
    markers = Markers(execution_id)
    while True:
        page = await read(execution_id, after=after)
        found += page
        if page.marker is None:
            return tuple(found)
        after = markers.follow(page.marker)


def _result_of(summary: ExecutionSummary, result_type: object) -> Any:
    """Return the result of a finished execution as ``result_type``, or raise its error."""
    what = f"{summary.workflow_name!r} ({summary.name})"
    match summary.status:
        case ExecutionStatus.SUCCEEDED:
            return codec.decode(summary.result, result_type, what=f"the result of {what}")
        case ExecutionStatus.STOPPED:
            raise stand_in(_error_of(summary, f"{what} was stopped"), ExecutionStoppedError)
        case ExecutionStatus.TIMED_OUT:
            raise stand_in(_error_of(summary, f"{what} timed out"), ExecutionTimedOutError)
        case _:
            record = _error_of(summary, f"{what} failed")
            # Nothing is replayed here, so any class loaded by now may be the error's own.
            raise KnownErrors.snapshot().rebuild_for_client(record, ExecutionFailedError)


def _error_of(summary: ExecutionSummary, otherwise: str) -> ErrorRecord:
    return summary.error or ErrorRecord(otherwise)
