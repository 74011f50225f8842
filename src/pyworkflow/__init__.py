"""Plain Python functions that survive crashes, restarts and month-long waits.

`workflow` and `step` make functions durable; `sleep` waits; the rest are options and errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyworkflow._api.batch import BatchResult
from pyworkflow._api.context import WorkflowContext
from pyworkflow._api.current_context import current_context
from pyworkflow._api.current_step import CurrentStep, current_step
from pyworkflow._api.sleep import sleep
from pyworkflow._api.step import Step, step
from pyworkflow._api.step_future import StepFuture
from pyworkflow._api.sync_context import SyncWorkflowContext
from pyworkflow._api.workflow import Workflow, workflow
from pyworkflow.errors import (
    BatchError,
    CallbackError,
    DeadlockError,
    FatalError,
    InputError,
    NonDeterminismError,
    PyWorkflowError,
    RetryableError,
    SerializationError,
    StepCancelledError,
    StepError,
    StepInterruptedError,
    StepTimeoutError,
    UsageError,
)
from pyworkflow.retry import Retry

if TYPE_CHECKING:
    from pyworkflow._local.async_client import AsyncClient
    from pyworkflow._local.client import Client
    from pyworkflow._local.run import run

__all__ = [
    "AsyncClient",
    "BatchError",
    "BatchResult",
    "CallbackError",
    "Client",
    "CurrentStep",
    "DeadlockError",
    "FatalError",
    "InputError",
    "NonDeterminismError",
    "PyWorkflowError",
    "Retry",
    "RetryableError",
    "SerializationError",
    "Step",
    "StepCancelledError",
    "StepError",
    "StepFuture",
    "StepInterruptedError",
    "StepTimeoutError",
    "SyncWorkflowContext",
    "UsageError",
    "Workflow",
    "WorkflowContext",
    "current_context",
    "current_step",
    "run",
    "sleep",
    "step",
    "workflow",
]

_LATE = frozenset({"AsyncClient", "Client", "run"})
"""Imported when they are asked for: a Lambda function does without them."""


def __getattr__(name: str) -> object:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pyworkflow._local import async_client, client, run

    return {
        "AsyncClient": async_client.AsyncClient,
        "Client": client.Client,
        "run": run.run,
    }[name]
