# Generated from async_handle.py: change that file, then run `make generate`.
"""`Handle`: one execution, as a client sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pyworkflow._local.blocking import BlockingHandle
from pyworkflow._protocol.executions import ExecutionStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyworkflow._protocol.executions import ExecutionSummary
    from pyworkflow._protocol.records import Operation
    from pyworkflow.duration import Duration
    from pyworkflow.services.history import HistoryEvent

R_co = TypeVar("R_co", covariant=True)


class Handle(BlockingHandle[R_co]):
    """An execution, with its ``id``, ``name`` and ``workflow_name``. Clients return it.

    Its methods raise `ExecutionNotFoundError` if the execution no longer exists.
    """

    def result(self, timeout: Duration | None = None) -> R_co:
        """Wait for the end of the execution and return its result.

        It has the workflow's result type if the client knows the workflow, else it is plain JSON.

        Raises the workflow's own error (`ExecutionFailedError` if its class is not known here),
        `ExecutionStoppedError` or `ExecutionTimedOutError`; `TimeoutError` after ``timeout``, a
        duration in real time, while the execution goes on; and, in a step, `DeadlockError` if too
        many steps of this process wait for executions.
        """
        return self._wait_for_result(timeout)

    def status(self) -> ExecutionStatus:
        """Return the execution's status."""
        return self._client.call(lambda: self._handle.status())

    def summary(self) -> ExecutionSummary:
        """Return the execution as a whole: status, times, input, result or error, problems."""
        return self._client.call(lambda: self._handle.summary())

    def operations(self) -> Sequence[Operation]:
        """Return the durable operations in the order of their starts, EXECUTION first."""
        return self._client.call(lambda: self._handle.operations())

    def history(self) -> Sequence[HistoryEvent]:
        """Return the events in order, as AWS records them."""
        return self._client.call(lambda: self._handle.history())

    def stop(self, reason: str = "stopped by a client") -> ExecutionSummary:
        """End the execution as STOPPED and return its summary; a finished one stays as it is.

        Running steps are cancelled. The workflow's ``finally`` and ``except`` blocks can issue no
        more operations, so compensate from outside.
        """
        return self._client.call(lambda: self._handle.stop(reason))
