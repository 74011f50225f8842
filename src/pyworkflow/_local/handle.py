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
    """An execution: ``id``, its ``name``, the ``workflow_name``. A client makes it.

    Its methods raise `ExecutionNotFoundError` if the service has no such execution any more.
    """

    def result(self, timeout: Duration | None = None) -> R_co:
        """Wait for the end of the execution and return its result.

        It has the workflow's result type where the workflow is known to the client, else it is
        plain JSON. Raises the workflow's own error (`ExecutionFailedError` where its class is not
        known here), `ExecutionStoppedError`, `ExecutionTimedOutError`; `TimeoutError` after
        ``timeout``, a duration of the machine's time: the execution goes on; and `DeadlockError`
        in a step, if too many steps of this process wait for executions.
        """
        return self._wait_for_result(timeout)

    def status(self) -> ExecutionStatus:
        """Return where the execution stands."""
        return self._client.call(lambda: self._handle.status())

    def summary(self) -> ExecutionSummary:
        """Return the execution as a whole: status, times, input, result or error, problems."""
        return self._client.call(lambda: self._handle.summary())

    def operations(self) -> Sequence[Operation]:
        """Return the durable operations in the order of their start, the EXECUTION one first."""
        return self._client.call(lambda: self._handle.operations())

    def history(self) -> Sequence[HistoryEvent]:
        """Return what happened, in order, as AWS records it."""
        return self._client.call(lambda: self._handle.history())

    def stop(self, reason: str = "stopped by a client") -> ExecutionSummary:
        """End the execution as STOPPED, and return it; one that is over stays as it is.

        What runs of it is cancelled. No ``finally`` or ``except`` of the workflow may issue
        anything any more, so compensate from outside.
        """
        return self._client.call(lambda: self._handle.stop(reason))
