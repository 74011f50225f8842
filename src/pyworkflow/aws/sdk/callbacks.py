"""Callbacks and chained invokes as AWS's SDK has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_durable_execution_sdk_python.exceptions import (
    CallbackExternalError,
    CallbackTimeoutError,
    InvokeError,
    SerDesError,
)
from aws_durable_execution_sdk_python.serdes import DEFAULT_JSON_SERDES, PassThroughSerDes

from pyworkflow._engine.ops.callback import CallbackOp, CallbackOptions
from pyworkflow._engine.ops.invoke import InvokeOp, InvokeOptions
from pyworkflow._protocol.records import Action, ErrorRecord, Operation, Status, SubType
from pyworkflow.aws.sdk.errors import raise_here, raised_as
from pyworkflow.aws.sdk.serdes import SerDesEncoding, give

if TYPE_CHECKING:
    from aws_durable_execution_sdk_python.config import CallbackConfig, InvokeConfig

    from pyworkflow._engine.execution import Execution

_as_sent = PassThroughSerDes[Any]()


class SdkCallbackOp(CallbackOp):
    """A callback. Its result is the text that was sent: `Callback.result` decodes it."""

    __slots__ = ("subtype",)

    def __init__(self, execution: Execution, name: str | None, config: CallbackConfig) -> None:
        options = CallbackOptions(
            config.timeout_seconds or None, config.heartbeat_timeout_seconds or None
        )
        super().__init__(execution, name, None, options)
        self.subtype = config.sub_type or SubType.CALLBACK

    def _read(self, text: str | None) -> tuple[Any, Exception | None]:
        return text, None

    def _error(self, record: Operation) -> Exception:
        is_late = record.status is Status.TIMED_OUT
        said = record.error or ErrorRecord()
        kind = CallbackTimeoutError if is_late else CallbackExternalError
        return kind(
            message=said.message or ("Callback timed out" if is_late else "Callback failed"),
            data=said.data,
            stack_trace=list(said.stack_trace) or None,
        )


class Callback:
    """A callback that the service has created: hand out ``callback_id``, wait for ``result()``."""

    def __init__(self, op: SdkCallbackOp, callback_id: str, config: CallbackConfig) -> None:
        self.callback_id = callback_id
        self.operation_id = op.id
        self._op = op
        self._encoding = SerDesEncoding(config.serdes or _as_sent, op.id, op.execution.id)

    def result(self) -> Any:
        """Wait for the callback; return the text that was sent, or its value if there is a serdes.

        Raises `CallbackExternalError`, `CallbackTimeoutError`, and any error of the serdes.
        """
        execution = self._op.execution
        execution.admit("the result of a callback")
        waiter = self._op.expect()
        try:
            text = execution.greenlets.wait(waiter)
        finally:
            self._op.forget(waiter)
        try:
            return self._encoding.decode(text)
        except Exception as error:
            raise_here(execution, error)


class SdkInvokeOp(InvokeOp):
    """An invoke of another function."""

    __slots__ = ("_config", "_input")

    def __init__(
        self,
        execution: Execution,
        name: str | None,
        function_name: str,
        payload: Any,
        config: InvokeConfig[Any, Any],
    ) -> None:
        super().__init__(execution, name, None, InvokeOptions(function_name, ""))
        self._input = payload
        self._config = config

    def start(self) -> None:
        """Have the function invoked. Raises any error of the payload's serdes."""
        serdes = self._config.serdes_payload or DEFAULT_JSON_SERDES
        encoding = SerDesEncoding(serdes, self.id, self.execution.id)
        try:
            payload = encoding.encode(self._input)
        except Exception as error:
            raise_here(self.execution, error)
        if (fault := self.refusal(payload, "input")) is not None:
            raise SerDesError(str(fault))
        self._entry = self.write(
            Action.START,
            urgent=True,
            payload=payload,
            function_name=self._options.function_name,
            tenant_id=self._config.tenant_id,
        )

    def deliver(self, record: Operation) -> None:
        """Deliver the function's result, or the SDK's error."""
        if record.status is Status.SUCCEEDED:
            serdes = self._config.serdes_result or DEFAULT_JSON_SERDES
            give(self, record.payload, SerDesEncoding(serdes, self.id, self.execution.id))
        else:
            self.future.set_exception(raised_as(record.error, InvokeError))
