"""`@aws_workflow_handler`: a workflow as the entry point of a Lambda function.

Inside an execution the decorated workflow is what it was: a child context. Outside it is called by
Lambda with ``(event, lambda_context)``.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from pyworkflow._api.workflow import Workflow
from pyworkflow._engine.scope import current_execution
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")


class WorkflowHandler(Generic[P, R]):
    """A workflow that Lambda can call."""

    def __init__(self, workflow: Workflow[P, R]) -> None:
        functools.update_wrapper(self, workflow)
        self.workflow = workflow

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run as a child context inside an execution; answer Lambda outside of one."""
        if current_execution() is not None:
            return self.workflow(*args, **kwargs)
        raise UsageError(
            f"{self.workflow.name!r} was called outside of a workflow. In a test, call what "
            "pyworkflow.aws.testing.create_test_handler returns."
        )

    def __repr__(self) -> str:
        return f"<Lambda handler of {self.workflow!r}>"


def aws_workflow_handler(workflow: Workflow[P, R] | Callable[P, R]) -> WorkflowHandler[P, R]:
    """Make a workflow the entry point of a Lambda function. Put it above `@workflow`.

    Raises `UsageError` if ``workflow`` has no `@workflow`.
    """
    if not isinstance(workflow, Workflow):
        raise UsageError(
            f"@aws_workflow_handler takes a function with @workflow, not {workflow!r}; put "
            "@workflow between them"
        )
    return WorkflowHandler(workflow)
