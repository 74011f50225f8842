"""The context of AWS's SDK on PyWorkflow's engine: the same methods, which block only their task.

Each context counts ids in its own namespace, whichever code uses it: that of a child, a branch or a
virtual context. As with the SDK, each knows by itself whether it is replaying: it starts with the
state of its creator, and stops replaying at the first operation that has no record.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from aws_durable_execution_sdk_python import types
from aws_durable_execution_sdk_python.concurrency.models import envelope_summary_generator
from aws_durable_execution_sdk_python.config import (
    CallbackConfig,
    ChildConfig,
    InvokeConfig,
    MapConfig,
    ParallelBranch,
    ParallelConfig,
    StepConfig,
)
from aws_durable_execution_sdk_python.context import DurableContext as OriginalContext
from aws_durable_execution_sdk_python.context import ExecutionContext
from aws_durable_execution_sdk_python.exceptions import (
    CallbackError,
    CallbackSubmitterError,
    ChildContextError,
    StepError,
    ValidationError,
)
from aws_durable_execution_sdk_python.logger import Logger, LogInfo
from aws_durable_execution_sdk_python.operation.callback import wait_for_callback_handler
from aws_durable_execution_sdk_python.types import StepContext, WaitForConditionCheckContext

from pyworkflow._api.child import run_child_blocking
from pyworkflow._engine.current import require_execution
from pyworkflow._engine.ids import Namespace, hash_path
from pyworkflow._engine.loop.tasks import Task, current_task
from pyworkflow._engine.ops.wait import WaitOp
from pyworkflow._protocol.records import OperationType, SubType
from pyworkflow.aws.sdk.callbacks import Callback, SdkCallbackOp, SdkInvokeOp
from pyworkflow.aws.sdk.condition import SdkConditionOp
from pyworkflow.aws.sdk.contexts import SdkChildOp, run_virtual
from pyworkflow.aws.sdk.fan_out import Branch, SdkBranches, SdkFanOutOp
from pyworkflow.aws.sdk.steps import SdkStepOp, carried
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from aws_durable_execution_sdk_python.config import Duration, WaitForCallbackConfig
    from aws_durable_execution_sdk_python.types import LoggerInterface, WaitForCallbackContext
    from aws_durable_execution_sdk_python.waits import WaitForConditionConfig

    from pyworkflow._api.current_step import CurrentStep
    from pyworkflow._engine.execution import Execution
    from pyworkflow._engine.ops.base import Op

Made = TypeVar("Made", bound="Op")
T = TypeVar("T")
U = TypeVar("U")


class DurableContext(types.DurableContext):
    """The context of a function that was written for AWS's SDK, which documents each method."""

    def __init__(
        self,
        execution: Execution,
        namespace: Namespace,
        lambda_context: Any,
        *,
        is_replaying: bool,
        logger: Logger | None = None,
    ) -> None:
        self.lambda_context = lambda_context
        self.execution_context = ExecutionContext(execution.id)
        self._execution = execution
        self._namespace = namespace
        self._is_replaying = is_replaying
        self._parent_id = namespace.scope.operation_id
        if logger is None:
            self.set_logger(logging.getLogger())
        else:
            self.logger = logger.with_log_info(self._log_info()).with_is_replaying(
                self.is_replaying
            )

    def within(self, namespace: Namespace, *, is_new: bool = False) -> DurableContext:
        """Return the context of code below this one."""
        return DurableContext(
            self._execution,
            namespace,
            self.lambda_context,
            is_replaying=self._is_replaying and not is_new,
            logger=self.logger,
        )

    # -- logs and replay -------------------------------------------------------------------------

    def set_logger(self, new_logger: LoggerInterface) -> None:
        """Log through ``new_logger`` from here on; contexts made later inherit it."""
        self.logger = Logger.from_log_info(new_logger, self._log_info(), self.is_replaying)

    def _log_info(self, op: Op | None = None, attempt: int | None = None) -> LogInfo:
        state: Any = self.execution_context  # the logger reads only the ARN of the SDK's state
        if op is None:
            return LogInfo(state, self._parent_id)
        return LogInfo(state, op.scope.operation_id, op.id, op.name, attempt)

    def is_replaying(self) -> bool:
        """Whether recorded operations are still ahead of the code of this context."""
        return self._is_replaying

    @contextmanager
    def _replaying_over(self, operation_id: str) -> Iterator[None]:
        """Update whether this context is replaying, before and after an operation."""
        if not self._is_replaying:
            yield
            return
        record = self._execution.journal.record_of(operation_id)
        goes_on = record is not None and not record.ended
        if record is None or (goes_on and record.type is OperationType.STEP):
            self._is_replaying = goes_on = False
        try:
            yield
        finally:
            following = hash_path(self._namespace.next_path())
            if goes_on or self._execution.journal.record_of(following) is None:
                self._is_replaying = False

    # -- operations ------------------------------------------------------------------------------

    def step(
        self,
        func: Callable[[StepContext], T],
        name: str | None = None,
        config: StepConfig | None = None,
    ) -> T:
        """Run ``func`` in a thread and record its result. Raises `StepError`."""

        def body(step: CurrentStep) -> T:
            return func(StepContext(self._logger_of(op, step.attempt), step.attempt))

        name = _name(name, func)
        op = self._make(SdkStepOp, name, config or StepConfig(), carried(body))
        return self._do(op)  # type: ignore[no-any-return]

    def wait(self, duration: Duration, name: str | None = None) -> None:
        """Wait for ``duration``, at least a second."""
        if duration.to_seconds() < 1:
            raise ValidationError("duration must be at least 1 second")
        self._do(self._make(WaitOp, duration.to_seconds(), name or None))

    def create_callback(
        self, name: str | None = None, config: CallbackConfig | None = None
    ) -> Callback:
        """Create a callback. Its errors surface where its result is awaited."""
        config = config or CallbackConfig()
        op = self._make(SdkCallbackOp, name or None, config)
        return Callback(op, self._do(op), config)

    def wait_for_callback(
        self,
        submitter: Callable[[str, WaitForCallbackContext], None],
        name: str | None = None,
        config: WaitForCallbackConfig | None = None,
    ) -> Any:
        """Create a callback, run ``submitter`` with its id as a step, wait for the result.

        Raises `CallbackError` and what is below it.
        """
        name = _name(name, submitter)
        op = self._make(SdkChildOp, name, SubType.WAIT_FOR_CALLBACK)
        try:
            return self._run_child(
                op, lambda child: wait_for_callback_handler(child, submitter, name, config)
            )
        except ChildContextError as error:
            inner = error.__cause__
            if isinstance(inner, CallbackError):
                raise inner  # noqa: B904 - it is the cause
            if isinstance(inner, StepError):
                raise CallbackSubmitterError(
                    inner.message or "Callback submitter failed",
                    data=inner.data,
                    stack_trace=inner.stack_trace,
                ) from inner
            raise

    def invoke(
        self,
        function_name: str,
        payload: Any,
        name: str | None = None,
        config: InvokeConfig[Any, Any] | None = None,
    ) -> Any:
        """Invoke another durable function and wait for its result. Raises `InvokeError`."""
        config = config or InvokeConfig()
        return self._do(self._make(SdkInvokeOp, name or None, function_name, payload, config))

    def wait_for_condition(
        self,
        check: Callable[[T, WaitForConditionCheckContext], T],
        config: WaitForConditionConfig[T],
        name: str | None = None,
    ) -> T:
        """Poll ``check`` until the strategy ends the wait; return the last state.

        Raises `WaitForConditionError`.
        """
        if check is None or config is None:
            missing = "check" if check is None else "config"
            raise ValidationError(f"`{missing}` is required for wait_for_condition")

        def poll(state: T, step: CurrentStep) -> T:
            logger = self._logger_of(op, step.attempt)
            return check(state, WaitForConditionCheckContext(logger, step.attempt))

        op = self._make(SdkConditionOp, name or None, config, poll)
        return self._do(op)  # type: ignore[no-any-return]

    # -- contexts --------------------------------------------------------------------------------

    def run_in_child_context(
        self,
        func: Callable[[Any], T],
        name: str | None = None,
        config: ChildConfig[T] | None = None,
    ) -> T:
        """Run ``func`` with a context of its own and record its result.

        Raises `ChildContextError`.
        """
        config = config or ChildConfig()
        if config.is_virtual:
            return self._run_virtual(func, config)
        op = self._make(
            SdkChildOp,
            _name(name, func),
            config.sub_type or SubType.RUN_IN_CHILD_CONTEXT,
            config.serdes,
            config.summary_generator,
        )
        return self._run_child(op, func)  # type: ignore[no-any-return]

    def map(
        self,
        inputs: Sequence[U],
        func: Callable[[Any, U, int, Sequence[U]], T],
        name: str | None = None,
        config: MapConfig[Any] | None = None,
    ) -> Any:
        """Run ``func`` for each of ``inputs`` concurrently; return the SDK's `BatchResult`."""
        if config is not None:  # else they may have no length
            config.completion_config._validate_for_total(len(inputs))
        config = config or MapConfig()
        namer = config.item_namer

        def branches() -> list[Branch]:
            return [
                _branch(
                    partial(_call_with, func, item, i, inputs),
                    None if namer is None else namer(item, i),
                    f"map-item-{i}",
                )
                for i, item in enumerate(inputs)
            ]

        kinds = SubType.MAP, SubType.MAP_ITERATION, "MapResult"
        return self._fan_out(branches, _name(name, func), config, kinds)

    def parallel(
        self,
        functions: Sequence[Callable[[Any], T] | ParallelBranch[T]],
        name: str | None = None,
        config: ParallelConfig | None = None,
    ) -> Any:
        """Run ``functions`` concurrently; return the SDK's `BatchResult`."""
        if config is not None:
            config.completion_config._validate_for_total(len(functions))
        config = config or ParallelConfig()

        def branches() -> list[Branch]:
            return [
                _branch(
                    function,
                    function.name if isinstance(function, ParallelBranch) else None,
                    f"parallel-branch-{i}",
                )
                for i, function in enumerate(functions)
            ]

        kinds = SubType.PARALLEL, SubType.PARALLEL_BRANCH, "ParallelResult"
        return self._fan_out(branches, name or None, config, kinds)

    def _fan_out(
        self,
        branches: Callable[[], list[Branch]],
        name: str | None,
        config: MapConfig[Any] | ParallelConfig,
        kinds: tuple[str, str, str],
    ) -> Any:
        subtype, branch_subtype, result_kind = kinds
        summary = envelope_summary_generator(result_kind, config.summary_generator)
        op = self._make(SdkFanOutOp, name, subtype, config.serdes, summary)
        return self._run_child(
            op, lambda child: SdkBranches(child, op, branches(), config, branch_subtype).run()
        )

    def _run_virtual(self, func: Callable[[Any], T], config: ChildConfig[T]) -> T:
        execution = self._execution
        execution.admit("a virtual context")
        context_id = hash_path(self._namespace.take_path())
        namespace = Namespace(context_id, self._namespace.scope)
        with self._replaying_over(context_id):
            child = self.within(namespace)
            return run_virtual(  # type: ignore[no-any-return]
                execution, lambda: func(child), context_id, config.serdes
            )

    # -- how operations run ----------------------------------------------------------------------

    def _make(self, kind: Callable[..., Made], *args: Any) -> Made:
        """Return a new operation of this context, whichever context the calling code runs in."""
        execution = require_execution("A method of the durable context")
        task = current_task(execution.loop)
        if execution is not self._execution or not isinstance(task, Task):
            raise UsageError(
                "a method of a durable context was called by code outside its function: call it "
                "from the function that received the context, or from code that this calls"
            )
        around, task.namespace = task.namespace, self._namespace
        try:
            return kind(execution, *args)
        finally:
            task.namespace = around

    def _do(self, op: Op) -> Any:
        with self._replaying_over(op.id):
            self._execution.issue(op)
            return self._execution.wait(op)

    def _run_child(self, op: SdkChildOp, func: Callable[[Any], Any]) -> Any:
        with self._replaying_over(op.id):
            child = self.within(op.namespace)
            return run_child_blocking(self._execution, op, partial(func, child))

    def _logger_of(self, op: Op, attempt: int) -> Logger:
        return self.logger.with_log_info(self._log_info(op, attempt))


OriginalContext.register(DurableContext)


def _name(name: str | None, func: Callable[..., Any]) -> str | None:
    """Return the name of an operation: the given one, or the one that a decorator noted."""
    return name or getattr(func, "_original_name", None) or None


def _branch(code: Callable[[Any], Any], given: str | None, usual: str) -> Branch:
    return Branch(code, usual if given is None else given, given)


def _call_with(func: Callable[..., T], item: U, index: int, items: Sequence[U], child: Any) -> T:
    return func(child, item, index, items)
