"""`parallel` and `map`: branches that run concurrently, each in a child context of its own.

A call is checked before anything starts. When the policy has decided, the branches that still run
are cancelled and clean up before the decision is written.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from reprlib import repr as brief
from typing import TYPE_CHECKING, Any, TypedDict

from msgspec.structs import replace

from pyworkflow._api.batch import BatchItem, BatchResult, BranchStatus
from pyworkflow._api.branches import Branches
from pyworkflow._api.callables import Code, code_of, drop, name_of, result_type_of
from pyworkflow._api.child import run_child, run_child_blocking
from pyworkflow._api.completion import Completion, CompletionReason, check_count
from pyworkflow._api.names import check_key, check_name
from pyworkflow._engine.exits import pass_on_signal
from pyworkflow._engine.ops.fan_out import (
    FAILED,
    NOT_STARTED,
    STARTED,
    SUCCEEDED,
    Decision,
    FanOutOp,
    MapOp,
)
from pyworkflow.errors import BatchError, ChildContextError, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from pyworkflow._engine.execution import Execution
    from pyworkflow._engine.ops.fan_out import BranchOp, Outcome

_STATUSES = {
    SUCCEEDED: BranchStatus.SUCCEEDED,
    FAILED: BranchStatus.FAILED,
    STARTED: BranchStatus.STARTED,
    NOT_STARTED: BranchStatus.NOT_STARTED,
}


class FanOutKeywords(TypedDict, total=False):
    """The options of `parallel`."""

    name: str | None
    key: str | None
    max_concurrency: int | None
    min_successful: int | None
    tolerated_failure_count: int | None
    tolerated_failure_percentage: float | None


class MapKeywords(FanOutKeywords, total=False):
    """The options of `map`."""

    item_name: Callable[[Any], str] | Callable[[Any, int], str] | None


class _Branches(Branches[CompletionReason]):
    """The branches of a `parallel` or `map`; their outcomes are those of their operations."""

    op: FanOutOp

    def __init__(
        self,
        op: FanOutOp,
        codes: Sequence[Code],
        completion: Completion,
        max_concurrency: int | None,
    ) -> None:
        super().__init__(op, [str(code.name) for code in codes], max_concurrency)
        self._codes = codes
        self._completion = completion

    async def run(self) -> Decision:
        """Run the branches until the policy has decided; return the decision."""
        self._follow_recorded()
        return self._decision(await self.begin())

    def run_blocking(self) -> Decision:
        """Do what `run` does, for code that blocks."""
        self._follow_recorded()
        return self._decision(self._execution.greenlets.wait(self.begin()))

    def _follow_recorded(self) -> None:
        recorded = self.op.recorded
        if recorded is not None:
            ended = [i for i, s in enumerate(recorded.statuses) if s in (SUCCEEDED, FAILED)]
            self.follow(ended, CompletionReason(recorded.completion_reason))

    def _decision(self, reason: CompletionReason) -> Decision:
        statuses = "".join(self.statuses)
        return self.op.recorded or Decision(reason.value, self.succeeded, self.failed, statuses)

    def decide(self) -> CompletionReason | None:
        """Ask the policy."""
        return self._completion.reason(len(self._codes), self.succeeded, self.failed)

    def branch(self, index: int) -> tuple[BranchOp, Callable[[], Awaitable[Any]]]:
        """Return the operation of a branch and its code."""
        op, code = self.op, self._codes[index]
        branch = op.branch(self._execution, code.name, None, code.result_type)
        branch.source = code.source
        op.branches[index] = branch
        return branch, partial(self._call, code)

    async def _call(self, code: Code) -> Any:
        try:
            return await code.run()
        except asyncio.CancelledError:
            if self._over.done():
                raise
            # Else the branch would neither succeed nor fail, and the fan-out never count it.
            raise ChildContextError(
                f"branch {code.name!r} was cancelled by the workflow's own code",
                error_type="CancelledError",
            ) from None
        except (Exception, GeneratorExit):
            raise
        except BaseException as error:
            pass_on_signal(error)
            if self._execution.is_closing:
                raise
            # An error of any other class could not be rebuilt from the branch's record.
            raise ChildContextError(str(error), error_type=type(error).__name__) from error


class FanOut:
    """A call of ``ctx.parallel`` or ``ctx.map``, checked and ready to run."""

    def __init__(
        self,
        kind: type[FanOutOp],
        codes: Sequence[Code],
        name: str | None,
        key: str | None,
        *,
        completion: Completion,
        max_concurrency: int | None,
    ) -> None:
        self._kind = kind
        self._codes = codes
        self._name = name
        self._key = key
        self._completion = completion
        self._max_concurrency = max_concurrency
        self.items: Sequence[Any] = ()
        """The arguments of the branches of a `map`."""

    def coroutine(self, execution: Execution) -> Coroutine[Any, Any, BatchResult[Any]]:
        """Return the coroutine that runs the branches."""
        coroutine = self._run(execution)
        execution.open_scopes.calls().expect(coroutine, f"ctx.{self._kind.subtype.lower()}()")
        return coroutine

    async def _run(self, execution: Execution) -> BatchResult[Any]:
        try:
            op = self._op(execution)
            return self._result(await run_child(execution, op, self._branches(op).run))
        finally:
            self._drop()

    def blocking(self, execution: Execution) -> BatchResult[Any]:
        """Run the branches; block until the policy has decided."""
        try:
            op = self._op(execution)
            branches = self._branches(op)
            return self._result(run_child_blocking(execution, op, branches.run_blocking))
        finally:
            self._drop()

    def _branches(self, op: FanOutOp) -> _Branches:
        return _Branches(op, self._codes, self._completion, self._max_concurrency)

    def _op(self, execution: Execution) -> FanOutOp:
        types = [code.result_type for code in self._codes]
        sources = [code.source for code in self._codes]
        op = self._kind(execution, self._name, self._key, types, sources)
        op.asked_for = {
            "items": self.items,
            "max_concurrency": self._max_concurrency,
            "policy": self._completion,
        }
        journal, most = execution.journal, execution.limits.max_operations
        if most is not None and not journal.knows(op.id):
            used, needed = journal.count_operations(), len(self._codes) + 1
            if used + needed > most:
                raise UsageError(
                    f"{op.awaits()} has {len(self._codes)} branches and needs {needed} operations "
                    f"or more, but this execution already has {used}, and the service allows "
                    f"{most}. Give each branch several items to work on, or spread the items over "
                    "further executions. No branch was started"
                )
        return op

    def _drop(self) -> None:
        for code in self._codes:
            code.close()

    def _result(self, outcome: Outcome) -> BatchResult[Any]:
        decision = outcome.decision
        items = tuple(
            BatchItem(
                i, str(code.name), _STATUSES[status], outcome.values.get(i), outcome.errors.get(i)
            )
            for i, (code, status) in enumerate(zip(self._codes, decision.statuses, strict=True))
        )
        result = BatchResult(items, CompletionReason(decision.completion_reason))
        if self._completion.is_met(result.completion_reason, result.success_count):
            return result
        raise _failure(self._kind, self._name, self._completion, result)


def _failure(
    kind: type[FanOutOp], name: str | None, completion: Completion, result: BatchResult[Any]
) -> BatchError:
    label = f"{kind.subtype} {name!r}" if name else str(kind.subtype)
    message = (
        f"{label}: {result.failure_count} of {result.total_count} branches failed, "
        f"{result.success_count} succeeded ({result.completion_reason})"
    )
    if completion.min_successful is not None:
        message += f"; {completion.min_successful} had to succeed"
    first = result.failed[0]
    message += f". The first of them, {first.name!r}: {type(first.error).__name__}: {first.error}"
    error = BatchError(message, result)
    error.__cause__ = first.error
    return error


# -- the calls, checked before anything starts ---------------------------------------------------


def parallel_call(
    branches: object,
    *,
    name: str | None = None,
    key: str | None = None,
    max_concurrency: int | None = None,
    **options: Any,
) -> FanOut:
    """Return the checked call of ``ctx.parallel``."""
    targets: Sequence[Any] = list(branches.values()) if isinstance(branches, Mapping) else ()
    targets = branches if isinstance(branches, list | tuple) else targets
    try:
        what = _what("ctx.parallel()", name)
        names: list[str]
        match branches:
            case Mapping():
                names = [check_name(each, f"a branch of {what}") for each in branches]
            case list() | tuple():
                names = [f"parallel-branch-{index}" for index in range(len(branches))]
            case _:
                raise UsageError(
                    f"{what} takes a list or tuple of branches, or a dict of them by name, not "
                    f"{brief(branches)}"
                )
        completion = _completion(len(targets), what, key, max_concurrency, options)
        codes = [
            replace(code_of(target, f"branch {each!r} of {what}"), name=each)
            for each, target in zip(names, targets, strict=True)
        ]
        if len({id(target) for target in targets if inspect.iscoroutine(target)}) < sum(
            map(inspect.iscoroutine, targets)
        ):
            raise UsageError(
                f"{what} got one coroutine as several branches; call the function again for each"
            )
    except BaseException:
        drop(targets)
        raise
    return FanOut(
        FanOutOp, codes, name, key, completion=completion, max_concurrency=max_concurrency
    )


def map_call(
    function: Any,
    items: Any,
    *,
    name: str | None = None,
    key: str | None = None,
    max_concurrency: int | None = None,
    item_name: Any = None,
    **options: Any,
) -> FanOut:
    """Return the checked call of ``ctx.map``."""
    if not callable(function):
        hint = ": swap them" if callable(items) else ""
        raise UsageError(f"ctx.map() takes a function and items, not {brief(function)} first{hint}")
    name = name_of(function) if name is None else name
    what = _what("ctx.map()", name)
    if isinstance(items, AbstractSet) or not isinstance(items, Iterable):
        raise UsageError(
            f"{what} takes items in an order that is the same on each replay, such as a list, not "
            f"{type(items).__name__}" + (": sort it" if isinstance(items, AbstractSet) else "")
        )
    items = list(items)
    completion = _completion(len(items), what, key, max_concurrency, options)
    result_type = result_type_of(function, what)
    takes_index = _takes_index(function, what)
    codes = [
        Code(each, result_type, partial(function, *((item, index) if takes_index else (item,))))
        for index, (each, item) in enumerate(
            zip(_names(items, item_name, what), items, strict=True)
        )
    ]
    fan_out = FanOut(
        MapOp, codes, name, key, completion=completion, max_concurrency=max_concurrency
    )
    fan_out.items = items
    return fan_out


def _what(call: str, name: str | None) -> str:
    return call if name is None else f"{call} {check_name(name, call)!r}"


def _completion(
    total: int, what: str, key: str | None, max_concurrency: int | None, options: dict[str, Any]
) -> Completion:
    if key is not None:
        check_key(key, what)
    check_count(max_concurrency, "max_concurrency", 1, what)
    completion = Completion(**options)
    completion.check(total, what)
    return completion


def _names(items: list[Any], item_name: Any, what: str) -> list[str]:
    if item_name is None:
        return [f"map-item-{index}" for index in range(len(items))]
    if not callable(item_name):
        raise UsageError(f"item_name of {what} must be a function of an item, not {item_name!r}")
    takes_index = _takes_index(item_name, f"item_name of {what}")
    places: dict[str, int] = {}
    for index, item in enumerate(items):
        name = check_name(
            item_name(item, index) if takes_index else item_name(item), f"item {index} of {what}"
        )
        if name in places:
            raise UsageError(
                f"item_name of {what} names two items {name!r}, those at {places[name]} and "
                f"{index}; make the names differ, for example by the index: item_name(item, index)"
            )
        places[name] = index
    return list(places)


def _takes_index(function: Any, what: str) -> bool:
    """Whether ``function`` is called with an item and its index, not with the item alone."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a builtin without a signature
        return False
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in places if p.default is p.empty]
    named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if named or len(needed) > 2 or not (places or takes_any):
        raise UsageError(
            f"{what} calls its function with an item, or with an item and its index; "
            f"{name_of(function) or 'this one'}{inspect.signature(function)} can't be called that "
            "way. Bind the other arguments: functools.partial(function, ...), or a lambda"
        )
    return len(needed) == 2 or (len(places) > 1 and places[1].name == "index")
