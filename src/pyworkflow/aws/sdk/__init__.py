"""Functions written for AWS's durable execution SDK, on PyWorkflow's engine."""

from __future__ import annotations

from pyworkflow.aws.sdk.context import DurableContext
from pyworkflow.aws.sdk.execution import durable_execution, install

__all__ = ["DurableContext", "durable_execution", "install"]
