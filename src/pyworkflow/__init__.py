"""Plain Python functions that survive crashes, restarts and month-long waits.

`workflow` and `step` make functions durable; `sleep` waits; the rest are options and errors.
"""

from __future__ import annotations

from pyworkflow._api.attempt import CurrentStep, current_step
from pyworkflow._api.batch import BatchResult
from pyworkflow._api.context import SyncWorkflowContext, WorkflowContext, current_context
from pyworkflow._api.futures import StepFuture
from pyworkflow._api.sleep import sleep
from pyworkflow._api.step import Step, step
from pyworkflow._api.workflow import Workflow, workflow
from pyworkflow.errors import (
    BatchError,
    CallbackError,
    DeadlockError,
    DurationError,
    FatalError,
    InputError,
    NonDeterminismError,
    PyWorkflowError,
    ReplayHazardError,
    RetryableError,
    SerializationError,
    StepCancelledError,
    StepError,
    StepInterruptedError,
    StepTimeoutError,
    UsageError,
)
from pyworkflow.retry import Retry

__all__ = [
    "BatchError",
    "BatchResult",
    "CallbackError",
    "CurrentStep",
    "DeadlockError",
    "DurationError",
    "FatalError",
    "InputError",
    "NonDeterminismError",
    "PyWorkflowError",
    "ReplayHazardError",
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
    "sleep",
    "step",
    "workflow",
]
