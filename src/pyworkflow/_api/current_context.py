"""`current_context`: the ``ctx`` of the running workflow, anywhere in its code."""

from __future__ import annotations

import asyncio
from typing import TypeVar, overload

from pyworkflow._api.base_context import BaseContext
from pyworkflow._api.context import WorkflowContext
from pyworkflow._api.sync_context import SyncWorkflowContext
from pyworkflow._engine.current import require_execution
from pyworkflow.errors import UsageError

C = TypeVar("C", bound=BaseContext)


@overload
def current_context() -> WorkflowContext: ...


@overload
def current_context(kind: type[C]) -> C: ...


def current_context(kind: type[BaseContext] = BaseContext) -> BaseContext:
    """Return the ``ctx`` of the running workflow, of the kind that fits the running code.

    In ``async def`` code it is a `WorkflowContext`. In a ``def`` workflow, child context or branch,
    and in the functions these call, it is a `SyncWorkflowContext`, whose methods block. Call
    ``current_context(SyncWorkflowContext)`` there: type checkers can't infer the kind.

    Raises `UsageError` outside workflow code, and if the ctx is not of this ``kind``.
    """
    execution = require_execution("pyworkflow.current_context()")
    blocks = getattr(asyncio.current_task(), "blocks", False)
    found = SyncWorkflowContext(execution) if blocks else WorkflowContext(execution)
    if isinstance(found, kind):
        return found
    raise UsageError(
        f"current_context({kind.__name__}) was called in code whose ctx is a "
        f"{type(found).__name__}: a SyncWorkflowContext belongs to a `def` workflow, child context "
        "or branch and what that calls, a WorkflowContext to `async def` code"
    )
