"""`ctx.invoke`: run another durable function as its own execution, and wait for its result.

The function is given by name, or as a workflow, which has the name and the type of the result. (A
workflow that is *called* is a child context of the caller's execution instead.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypedDict, TypeVar, runtime_checkable

from pyworkflow._api.names import check_key, check_name
from pyworkflow._engine.ops.invoke import InvokeOp, InvokeOptions
from pyworkflow._values import codec
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from pyworkflow._engine.execution import Execution


R_co = TypeVar("R_co", covariant=True)


class InvokeKeywords(TypedDict, total=False):
    """The options of ``ctx.invoke`` beside the type of its result; see there."""

    name: str | None
    tenant_id: str | None
    key: str | None


@runtime_checkable
class Invocable(Protocol[R_co]):
    """A workflow, as an invoke sees it."""

    name: str

    @property
    def result_type(self) -> object:
        """The type that its result is converted to."""
        ...

    def __call__(self, *args: Any, **kwargs: Any) -> R_co:
        """Give type checkers the type of the result."""
        ...


class InvokeCall:
    """A call of ``ctx.invoke``, checked; ``name`` is the operation's."""

    def __init__(
        self,
        function: object,
        input: Any,  # noqa: A002 - the public name of the argument
        name: str | None,
        key: str | None,
        *,
        tenant_id: str | None,
        result_type: Any,
    ) -> None:
        callee = getattr(function, "workflow", function)  # that of a Lambda handler
        if isinstance(callee, Invocable):
            function_name, name = callee.name, callee.name if name is None else name
            result_type = callee.result_type if result_type is Any else result_type
        elif isinstance(callee, str) and callee:
            function_name = callee
        else:
            raise UsageError(
                "ctx.invoke takes a function's name, version or alias included, or a function with "
                f"@workflow, not {function!r}"
            )
        what = f"the invoke of {function_name!r}"
        if name is not None:
            check_name(name, what)
        if tenant_id is not None and not (isinstance(tenant_id, str) and tenant_id):
            raise UsageError(f"the tenant_id of {what} must be a non-empty str, not {tenant_id!r}")
        codec.check_outside(result_type, what=f"the result of {what}")
        payload = codec.text_of(input, what=f"the input of {what}")
        self._input = input
        self._what = what
        self._name = name
        self._key = None if key is None else check_key(key, what)
        self._options = InvokeOptions(function_name, payload, tenant_id, result_type)

    def blocking(self, execution: Execution) -> Any:
        """Invoke; block until the result is there."""
        return execution.wait(self._issue(execution))

    def coroutine(self, execution: Execution) -> Coroutine[Any, Any, Any]:
        """Return the coroutine that invokes."""
        coroutine = self._run(execution)
        execution.open_scopes.calls().expect(coroutine, self._what)
        return coroutine

    async def _run(self, execution: Execution) -> Any:
        return await self._issue(execution).outcome()

    def _issue(self, execution: Execution) -> InvokeOp:
        op = InvokeOp(execution, self._name, self._key, self._options)
        if not execution.journal.knows(op.id):
            codec.encode(self._input, what=f"the input of {self._what}")
        execution.issue(op)
        return op
