"""`BaseContext`: the part that both kinds of ``ctx`` share.

Time and chance replay unchanged and cost no operation: `now` is the time of the last delivered
event; `uuid4` and `random` are seeded by the execution and the task.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pyworkflow._api.names import check_key
from pyworkflow._api.saga import Saga
from pyworkflow._api.sleep import seconds_until, start_wait
from pyworkflow._engine.current import current_execution, outside_error, running_step
from pyworkflow._engine.ops.patch import PatchOp
from pyworkflow.duration import parse_duration
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from datetime import datetime
    from random import Random

    from pyworkflow._engine.execution import Execution
    from pyworkflow.duration import Duration

_logger = logging.getLogger("pyworkflow.workflow")


class WorkflowLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger that is silent during replay and while the run is disposed of."""

    def __init__(self, execution: Execution) -> None:
        super().__init__(_logger, {})
        self._execution = execution

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name is logging's
        """Whether a record of ``level`` would be logged now."""
        execution = self._execution
        if execution.is_closing or execution.journal.is_replaying:
            return False
        return super().isEnabledFor(level)

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the execution to the record."""
        execution = self._execution
        ours = {"execution_id": execution.id, "execution_name": execution.name}
        kwargs["extra"] = {**ours, **(kwargs.get("extra") or {})}
        return msg, kwargs


class BaseContext:
    """Base of `WorkflowContext` and `SyncWorkflowContext`."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._logger = WorkflowLogger(execution)

    # -- the execution ---------------------------------------------------------------------------

    @property
    def execution_id(self) -> str:
        """The service's id of this execution; on Lambda its ARN."""
        return self._execution.id

    @property
    def execution_name(self) -> str:
        """The name given when this execution was started."""
        return self._execution.name

    @property
    def is_replaying(self) -> bool:
        """Whether the code has yet to consume recorded history."""
        return self._execution.journal.is_replaying

    @property
    def is_closing(self) -> bool:
        """Whether this run is being disposed of: ``finally`` blocks run, nothing is recorded."""
        return self._execution.is_closing

    @property
    def logger(self) -> WorkflowLogger:
        """The logger ``pyworkflow.workflow``; silent on replay, so each message appears once."""
        return self._logger

    # -- time and chance -------------------------------------------------------------------------

    def now(self) -> datetime:
        """Return the time (UTC) of the last event that the workflow has seen."""
        running = current_execution()
        if running is not None:
            self._check_owner(running, "ctx.now()")
        elif running_step.get() is None:  # a step may read it: it does not change meanwhile
            raise self._elsewhere("ctx.now()")
        return self._execution.now()

    def uuid4(self) -> UUID:
        """Return a random UUID that is the same on each replay."""
        return UUID(int=self._chance("uuid4").getrandbits(128), version=4)

    @property
    def random(self) -> Random:
        """A generator for this task, seeded by the execution: the same on each replay."""
        return self._chance("random")

    def _chance(self, purpose: str) -> Random:
        execution = self._running(f"ctx.{purpose}")
        return execution.loop.namespace().chance(execution.id, purpose)

    # -- operations ------------------------------------------------------------------------------

    def patched(self, patch_id: str) -> bool:
        """Whether this execution follows the code after the patch ``patch_id``.

        True, and recorded, for new executions; False for one that passed this place before the
        patch existed. Keep the old code in the other branch until those have ended. Repeated calls
        in the same workflow or child context return the same answer.
        """
        execution = self._running("ctx.patched()")
        decisions = execution.loop.namespace().scope.patches
        if check_key(patch_id, "ctx.patched()") in decisions:
            return decisions[patch_id]
        op = PatchOp(execution, patch_id)
        if not execution.journal.knows(op.id) and execution.journal.has_unconsumed_in(
            op.scope.operation_id
        ):
            decisions[patch_id] = False
            return False
        # Before it is durable: an operation of a task that reads it is recorded after it.
        decisions[patch_id] = True
        execution.issue(op)
        return bool(execution.wait(op))

    def saga(self) -> Saga:
        """Return a saga: use it in ``async with`` or ``with``, and `Saga.add` compensations."""
        return Saga(self._running("ctx.saga()"))

    def _sleep(self, duration: Duration, name: str | None, key: str | None) -> None:
        execution = self._running("ctx.sleep()")
        op = start_wait(execution, parse_duration(duration), name, key)
        if op is not None:
            execution.wait(op)

    def _sleep_until(self, when: datetime, name: str | None, key: str | None) -> None:
        execution = self._running("ctx.sleep_until()")
        op = start_wait(execution, seconds_until(execution, when), name, key)
        if op is not None:
            execution.wait(op)

    def _running(self, what: str) -> Execution:
        running = current_execution()
        if running is None:
            raise self._elsewhere(what)
        self._check_owner(running, what)
        return running

    def _elsewhere(self, what: str) -> UsageError:
        """Return the error of a call made outside workflow code."""
        if running_step.get() is not None:
            return outside_error(what)
        name = self._execution.name
        if self._execution.is_closing:
            return UsageError(
                f"{what} was called outside of a running workflow: this ctx belongs to a run of "
                f"execution {name!r} that is over, since the workflow has suspended or ended. Use "
                "the ctx that the workflow is called with, during that call alone"
            )
        return UsageError(
            f"{what} was called outside of a running workflow: this ctx of execution {name!r} was "
            f"used in {_whereabouts()}, which the workflow does not run. Use it in the workflow's "
            "own code and in the asyncio tasks that this creates; do what needs other tasks or "
            "threads in a @step"
        )

    def _check_owner(self, running: Execution, what: str) -> None:
        if running is not self._execution:
            raise UsageError(
                f"{what}: this ctx belongs to another run, of execution {self._execution.name!r}; "
                f"the running code is one of execution {running.name!r}. Use the ctx that the "
                "workflow was called with, and keep none from one run for another"
            )


def _whereabouts() -> str:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs here
        return f"the thread {threading.current_thread().name!r}"
    return "a callback of another loop" if task is None else f"the task {task.get_name()!r}"
