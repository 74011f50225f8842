"""`durable_execution`: a function written for AWS's SDK, run by PyWorkflow's engine.

Like the SDK's own, it is the entry point of a Lambda function, and it answers Lambda as the SDK
does. It wraps a workflow that the rest of PyWorkflow accepts: the test handler, a worker.
"""

from __future__ import annotations

import copy
import functools
import inspect
import json
import logging
from typing import TYPE_CHECKING, Any, overload

import aws_durable_execution_sdk_python as sdk
from aws_durable_execution_sdk_python import execution as sdk_execution
from aws_durable_execution_sdk_python.exceptions import BotoClientError
from aws_durable_execution_sdk_python.lambda_service import LambdaClient, OperationUpdate

from pyworkflow._api.input_binding import InputBinder
from pyworkflow._api.workflow import Workflow
from pyworkflow._engine.current import current_execution
from pyworkflow._engine.messages import Failed
from pyworkflow._protocol.wire import error_to_wire
from pyworkflow.aws._injected import InjectedService
from pyworkflow.aws.handler import WorkflowHandler
from pyworkflow.aws.sdk.context import DurableContext
from pyworkflow.aws.sdk.errors import ends_invocation, record_of
from pyworkflow.aws.sdk.serdes import JsonEncoding
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyworkflow._engine.execution import Execution
    from pyworkflow._engine.messages import End
    from pyworkflow.services.port import History

    Function = Callable[[Any, Any], Any]

logger = logging.getLogger("pyworkflow.aws")


class WholeInput(InputBinder):
    """Passes any input as plain JSON; no input is an empty object."""

    takes_context = False
    context_name = ""

    def __init__(self) -> None:
        pass

    def bind(
        self, payload: str | None, *, was_accepted: bool = False
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return the input as the only argument."""
        return [json.loads(payload) if payload and payload.strip() else {}], {}


class DurableWorkflow(Workflow[..., Any]):
    """A function for the SDK as a workflow: it receives its input, plain JSON, and a context."""

    result_type = JsonEncoding()
    binder = WholeInput()

    def __init__(self, function: Function) -> None:
        super().__init__(_as_function(function), _name_of(function))
        self._lambda_context: Any = None

    def invoked_with(self, lambda_context: Any) -> DurableWorkflow:
        """Return this workflow for one invocation."""
        invoked = copy.copy(self)
        invoked._lambda_context = lambda_context
        return invoked

    def bind(
        self, payload: str | None, execution: Execution, *, was_accepted: bool = False
    ) -> Callable[[], Any]:
        """Return the call of the function with a recorded input."""
        (event,), _ = self.binder.bind(payload)

        def run() -> Any:
            context = DurableContext(
                execution,
                execution.loop.namespace(),
                self._lambda_context,
                is_replaying=execution.journal.is_replaying,
            )
            return self._function(event, context)

        return run


class DurableFunction(WorkflowHandler[..., Any]):
    """A function for the SDK that Lambda can call."""

    def __init__(self, function: Function, boto3_client: Any = None) -> None:
        self._durable = DurableWorkflow(function)
        super().__init__(self._durable)
        self._boto3_client = boto3_client

    def __call__(self, event: Any, context: Any = None) -> Any:
        """Run one invocation and return the answer for Lambda."""
        if current_execution() is not None:
            raise UsageError(
                f"durable function {self.workflow.name!r} was called by the code of another one. "
                "Use context.invoke(...), or move the shared code into a plain function"
            )
        return super().__call__(event, context)

    # -- one invocation --------------------------------------------------------------------------

    def _service(self) -> History:
        if self._boto3_client is None:
            return super()._service()
        return InjectedService(LambdaClient(self._boto3_client), OperationUpdate.from_dict)

    def _workflow_for(self, context: Any) -> DurableWorkflow:
        return self._durable.invoked_with(context)

    def _run(self, *of_invocation: Any) -> End:
        try:
            return super()._run(*of_invocation)
        except BotoClientError as error:
            if error.is_retryable():
                raise
            return Failed(record_of(error), error)

    def _answer(self, end: End) -> dict[str, Any]:
        if not isinstance(end, Failed):
            return super()._answer(end)
        if ends_invocation(end.error):
            raise end.error
        return {"Status": "FAILED", "Error": error_to_wire(record_of(end.error))}


@overload
def durable_execution(
    func: Function, *, boto3_client: Any = None, plugins: Sequence[Any] | None = None
) -> DurableFunction: ...


@overload
def durable_execution(
    func: None = None, *, boto3_client: Any = None, plugins: Sequence[Any] | None = None
) -> Callable[[Function], DurableFunction]: ...


def durable_execution(
    func: Function | None = None,
    *,
    boto3_client: Any = None,
    plugins: Sequence[Any] | None = None,
) -> Any:
    """Make ``func(event, context)`` a durable function; use it bare or with options.

    Args:
        func: a function written for AWS's SDK.
        boto3_client: a boto3 Lambda client to checkpoint with. Default: PyWorkflow's own client.
        plugins: the SDK's instrumentation plugins. They are not run; a warning is logged.
    """
    if func is None:
        return functools.partial(durable_execution, boto3_client=boto3_client, plugins=plugins)
    if plugins:
        logger.warning("%s: plugins of AWS's SDK are not run by PyWorkflow", _name_of(func))
    return DurableFunction(func, boto3_client)


def install() -> None:
    """Replace ``durable_execution`` of AWS's SDK by PyWorkflow's, for modules imported from now on.

    A module that has already imported the name keeps the SDK's own. Idempotent.
    """
    sdk.durable_execution = sdk_execution.durable_execution = durable_execution  # type: ignore[assignment]


def _name_of(function: Function) -> str:
    return getattr(function, "__name__", None) or type(function).__name__


def _as_function(function: Function) -> Function:
    """Return ``function`` as a plain function, which has a signature and a name."""
    if inspect.isfunction(function):
        return function

    def call(event: Any, context: Any) -> Any:
        return function(event, context)

    return functools.update_wrapper(call, function)
