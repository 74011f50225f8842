"""`@aws_workflow_handler`: a workflow as the entry point of a Lambda function.

Inside an execution the decorated workflow is what it was: a child context. Outside it is called by
Lambda with ``(event, lambda_context)``, once an invocation. It replays the history and goes on,
until the workflow suspends or ends, and reports which to Lambda.

Everything else is raised, and Lambda invokes the function again: history and code that disagree
(deploy code that fits, and the execution goes on), and steps that wait for more time. Nothing
recorded is lost.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from pyworkflow._api.workflow import EntryPoint, Workflow
from pyworkflow._engine.current import current_execution
from pyworkflow._engine.messages import Failed, Succeeded
from pyworkflow._runtime.clock import SystemClock
from pyworkflow._runtime.deadline import Deadline
from pyworkflow._runtime.forks import PerProcess
from pyworkflow._runtime.host_loop import run_on_kept_loop
from pyworkflow._runtime.runner import Runner
from pyworkflow._values.exceptions import KnownErrors, record_error
from pyworkflow.aws._answer import answer, must_record
from pyworkflow.aws._injected import is_injected, take_injected
from pyworkflow.aws._logging import log_fields
from pyworkflow.errors import ServiceError, UsageError
from pyworkflow.services import awslambda
from pyworkflow.services.awslambda import INVOCATION_KEYS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyworkflow._engine.messages import End
    from pyworkflow._protocol.executions import Invocation
    from pyworkflow._runtime.clock import Clock
    from pyworkflow.services.port import History

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger("pyworkflow.aws")


class WorkflowHandler(EntryPoint[P, R]):
    """A workflow that Lambda can call."""

    def __init__(self, workflow: Workflow[P, R], *, log_payloads: bool = False) -> None:
        functools.update_wrapper(self, workflow)
        self.workflow = workflow
        self._log_payloads = log_payloads
        self._clock: Clock = SystemClock()
        if "AWS_LAMBDA_RUNTIME_API" in os.environ:
            lambda_service()  # while Lambda initialises, not while somebody waits

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run as a child context inside an execution; answer Lambda outside of one."""
        if current_execution() is not None:
            return self.workflow(*args, **kwargs)
        event, context = (*args, None, None)[:2]
        invocation, service = self._take(event)
        fields = {
            "execution_id": invocation.execution_id,
            "execution_name": invocation.execution_name,
            "aws_request_id": getattr(context, "aws_request_id", ""),
        }
        with log_fields(fields):
            workflow, deadline = self._workflow_for(context), self._deadline(context)
            end = self._run(workflow, invocation, service, deadline)
            self._log(end)
            return self._answer(end)

    def __repr__(self) -> str:
        return f"<Lambda handler of {self.workflow!r}>"

    # -- one invocation --------------------------------------------------------------------------

    def _take(self, event: Any) -> tuple[Invocation, History]:
        if is_injected(event):
            return take_injected(event)
        if not isinstance(event, Mapping) or not event.keys() >= set(INVOCATION_KEYS):
            raise UsageError(
                f"{self.workflow.name!r} was called outside of a workflow with an event that is "
                f"not an invocation of a durable function: {_describe(event)} instead of an object "
                f"with "
                f"{' and '.join(sorted(INVOCATION_KEYS))}. On Lambda: a function is durable only "
                "if it was created so (--durable-config), and must be invoked by version, alias or "
                "$LATEST (--function-name NAME:live). In a test, call what "
                "pyworkflow.aws.testing.create_test_handler returns."
            )
        return awslambda.invocation_from_event(event), self._service()

    def _service(self) -> History:
        return lambda_service()

    def _workflow_for(self, context: Any) -> Workflow[P, R]:
        """Return what runs in an invocation with this Lambda context."""
        return self.workflow

    def _deadline(self, context: Any) -> Deadline | None:
        remaining = getattr(context, "get_remaining_time_in_millis", None)
        return None if remaining is None else Deadline.after(self._clock.now_ms(), remaining())

    def _run(
        self,
        workflow: Workflow[P, R],
        invocation: Invocation,
        service: History,
        deadline: Deadline | None,
    ) -> End:
        if self._log_payloads and len(invocation.operations) == 1:  # the first invocation
            logger.info("input: %s", invocation.operations[0].payload)

        async def run() -> End:
            runner = Runner(invocation, service, workflow, self._clock, self._known_errors)
            return await runner.run_and_record(deadline, must_record=must_record)

        try:
            return run_on_kept_loop(
                run,
                None if deadline is None else lambda: deadline.seconds_left(self._clock.now_ms()),
            )
        except ServiceError as error:
            if not error.is_final:
                raise
            return Failed(record_error(error), error)

    def _answer(self, end: End) -> dict[str, Any]:
        return answer(end, self._clock.now_ms())

    def _log(self, end: End) -> None:
        if isinstance(end, Failed):
            logger.error("%r failed", self.workflow.name, exc_info=end.error)
        elif isinstance(end, Succeeded) and self._log_payloads:
            logger.info("result: %s", end.payload)

    @functools.cached_property
    def _known_errors(self) -> KnownErrors:
        """The classes that can be raised again: those loaded when the first invocation begins."""
        return KnownErrors.snapshot()


def _describe(event: Any) -> str:
    if isinstance(event, Mapping):
        return f"an object with the keys {', '.join(map(repr, event)) or '(none)'}"
    return f"a {type(event).__name__}"


def lambda_service() -> History:
    """Return the process's service; its connections and credentials live on."""
    return services.value()


def _make_service() -> History:
    return awslambda.LambdaService.from_environment(SystemClock().now_ms)


services = PerProcess(lambda: functools.cache(_make_service))
"""Makes the process's service at the first call: its threads are not in a forked process."""


@overload
def aws_workflow_handler(workflow: Workflow[P, R] | Callable[P, R], /) -> WorkflowHandler[P, R]: ...


@overload
def aws_workflow_handler(
    *, log_payloads: bool = False
) -> Callable[[Workflow[P, R] | Callable[P, R]], WorkflowHandler[P, R]]: ...


def aws_workflow_handler(workflow: Any = None, /, *, log_payloads: bool = False) -> Any:
    """Make a workflow the entry point of a Lambda function. Put it above `@workflow`.

    Use it bare or with options.

    Args:
        workflow: what `@workflow` returned.
        log_payloads: log the input and the result (level INFO, logger ``pyworkflow.aws``). Not by
            default: they may contain data that does not belong in logs.

    Raises:
        UsageError: ``workflow`` has no `@workflow`.
    """

    def decorate(workflow: Any) -> WorkflowHandler[Any, Any]:
        if not isinstance(workflow, Workflow):
            raise UsageError(
                f"@aws_workflow_handler takes a function with @workflow, not {workflow!r}; put "
                "@workflow between them"
            )
        return WorkflowHandler(workflow, log_payloads=log_payloads)

    return decorate if workflow is None else decorate(workflow)
