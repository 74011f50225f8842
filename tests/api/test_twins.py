"""Both kinds of ``ctx`` offer the same: names, signatures, docstrings, operations.

The comparison knows nothing of the script that generates one from the other.
"""

from __future__ import annotations

import inspect
import re
import typing
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from pyworkflow import SyncWorkflowContext, WorkflowContext, step, workflow
from pyworkflow._api.callback import Callback, SyncCallback
from pyworkflow.aws.testing import MockDurableContext
from tests.api.world import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyworkflow._protocol.records import Operation

PAIRS: list[tuple[type, type]] = [
    (WorkflowContext, SyncWorkflowContext),
    (Callback, SyncCallback),
]


def public(kind: type) -> list[str]:
    return [name for name in dir(kind) if not name.startswith("_")]


MEMBERS = [
    pytest.param(getattr(one, name), getattr(other, name, None), id=f"{one.__name__}.{name}")
    for one, other in PAIRS
    for name in public(one)
]


# -- what they say -------------------------------------------------------------------------------


def blocking(annotation: str) -> str:
    """Return what a blocking method returns where an async one returns ``annotation``."""
    if found := re.fullmatch(r"Awaited\[(.*)\]|Coroutine\[Any, Any, (.*)\]", annotation):
        return found[1] or found[2]
    return {"Slept": "None"}.get(annotation, re.sub(r"^Callback\b", "SyncCallback", annotation))


def signature(
    function: Callable[..., Any], *, is_async: bool
) -> tuple[list[inspect.Parameter], str]:
    found = inspect.signature(function)
    returned = str(found.return_annotation)
    return list(found.parameters.values()), blocking(returned) if is_async else returned


def docstring(of: object, *, is_async: bool) -> str:
    text = inspect.getdoc(of) or ""
    if is_async:
        text = text.replace(" when called, awaited or not. For `gather` use `pyworkflow.sleep`", "")
    return text


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_they_have_the_same_members(one: type, other: type) -> None:
    assert public(one) == public(other)
    assert one.__doc__
    assert other.__doc__


@pytest.mark.parametrize(("one", "other"), MEMBERS)
def test_a_member_has_the_same_signature_and_docstring(one: Any, other: Any) -> None:
    assert docstring(one, is_async=True) == docstring(other, is_async=False) != ""
    if isinstance(one, property):
        assert one is other
        return
    assert signature(one, is_async=True) == signature(other, is_async=False)
    overloads = [signature(each, is_async=True) for each in typing.get_overloads(one)]
    assert overloads == [signature(each, is_async=False) for each in typing.get_overloads(other)]


@pytest.mark.parametrize("name", public(SyncWorkflowContext))
def test_a_docstring_of_a_blocking_method_awaits_nothing(name: str) -> None:
    assert "await" not in (inspect.getdoc(getattr(SyncWorkflowContext, name)) or "")


# -- what they do --------------------------------------------------------------------------------

BRANCHES = ["a", "bb", "ccc"]


@step(retry=False)
async def double(text: str) -> str:
    return text * 2


@step(retry=False, inline=True)  # threads would end in any order
def fails(text: str) -> str:
    raise LookupError(text)


@workflow
async def priced(item: str) -> int:
    return len(item)


def polled(state: int | None) -> int:
    return (state or 0) + 1


CALLS: dict[str, list[Callable[[Any], Any]]] = {
    "callback": [
        lambda ctx: ctx.callback("a", timeout="1d", result_type=int).result(),
        lambda ctx: ctx.callback("late", timeout=5, key="k").result(),
        lambda ctx: ctx.callback("a", timeout=5, heartbeat_timeout=6),
    ],
    "child": [
        lambda ctx: ctx.child(double, "a"),
        lambda ctx: ctx.child(double("a"), name="c", key="k"),
        lambda ctx: ctx.child(len, "abc"),
        lambda ctx: ctx.child(fails, "a"),
        lambda ctx: ctx.child(5),
    ],
    "execution_id": [lambda ctx: type(ctx.execution_id)],
    "execution_name": [lambda ctx: type(ctx.execution_name)],
    "invoke": [
        lambda ctx: ctx.invoke(priced, "abc"),
        lambda ctx: ctx.invoke("f", {"a": 1}, name="n", tenant_id="t", result_type=str, key="k"),
        lambda ctx: ctx.invoke(""),
    ],
    "is_closing": [lambda ctx: ctx.is_closing],
    "is_replaying": [lambda ctx: type(ctx.is_replaying)],
    "logger": [lambda ctx: ctx.logger.name],
    "map": [
        lambda ctx: ctx.map(double, BRANCHES, max_concurrency=2),
        lambda ctx: ctx.map(fails, BRANCHES, item_name=str, tolerated_failure_count=5, key="k"),
        lambda ctx: ctx.map(fails, BRANCHES, name="m"),
        lambda ctx: ctx.map(double, {"a"}),
    ],
    "now": [lambda ctx: ctx.now()],
    "parallel": [
        lambda ctx: ctx.parallel([double("a"), lambda: 5]),
        lambda ctx: ctx.parallel({"a": double("a"), "b": double("b")}, name="p", min_successful=1),
        lambda ctx: ctx.parallel([lambda: fails("a")]),
        lambda ctx: ctx.parallel(5),
    ],
    "patched": [lambda ctx: [ctx.patched("a"), ctx.patched("a")], lambda ctx: ctx.patched("")],
    "random": [lambda ctx: type(ctx.random)],
    "saga": [lambda ctx: add_to(ctx.saga())],
    "sleep": [
        lambda ctx: ctx.sleep("5m"),
        lambda ctx: ctx.sleep(0.5, name="n", key="k"),
        lambda ctx: ctx.sleep(0),
        lambda ctx: ctx.sleep("5"),
    ],
    "sleep_until": [
        lambda ctx: ctx.sleep_until(ctx.now() + timedelta(hours=1), name="n", key="k"),
        lambda ctx: ctx.sleep_until(datetime(2030, 1, 1)),  # noqa: DTZ001 - which is refused
    ],
    "uuid4": [lambda ctx: type(ctx.uuid4())],
    "wait_for_callback": [
        lambda ctx: ctx.wait_for_callback(len, "w", timeout="1d", result_type=int),
        lambda ctx: ctx.wait_for_callback(fails, retry=2, key="k"),
        lambda ctx: ctx.wait_for_callback(5),
    ],
    "wait_for_condition": [
        lambda ctx: ctx.wait_for_condition(polled, every="5s", until=lambda state: state > 2),
        lambda ctx: ctx.wait_for_condition(polled, 5, every=1, name="n", key="k", result_type=int),
        lambda ctx: ctx.wait_for_condition(lambda: False, every=1, backoff=2, max_attempts=2),
        lambda ctx: ctx.wait_for_condition(lambda: False, every=0),
        lambda ctx: ctx.wait_for_condition(lambda: False, every=1, evry=1),
    ],
}


def add_to(saga: Any) -> Any:
    with saga:
        saga.add(double, "a")
        fails("b")


def mock() -> MockDurableContext:
    mock_ctx = MockDurableContext()
    mock_ctx.complete_callback("a", 5, after="2h")
    mock_ctx.complete_callback("w", 6)
    mock_ctx.mock_invoke(priced)
    mock_ctx.mock_invoke("f", result="g", takes="5m")
    return mock_ctx


def outcome(which: Any, mock_ctx: MockDurableContext) -> object:
    try:
        return run(which, {}, mock_ctx)
    except Exception as error:
        return type(error), str(error)


def comparable(operation: Operation) -> Operation:
    """Return the operation without what differs from execution to execution."""
    error = operation.error
    return replace(
        operation,
        callback_id=None if operation.callback_id is None else "callback",
        error=None if error is None else replace(error, stack_trace=None),
    )


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(call, id=f"{name}-{index}")
        for name, calls in CALLS.items()
        for index, call in enumerate(calls)
    ],
)
def test_the_same_workflow_records_the_same(call: Callable[[Any], Any]) -> None:
    @workflow(name="same")
    async def awaits(ctx: WorkflowContext) -> Any:
        value = call(ctx)
        value = await value if inspect.isawaitable(value) else value
        return [repr(value), repr(ctx.now()), str(ctx.random.random())]

    @workflow(name="same")
    def blocks(ctx: SyncWorkflowContext) -> Any:
        return [repr(call(ctx)), repr(ctx.now()), str(ctx.random.random())]

    of_async, of_sync = mock(), mock()
    assert outcome(awaits, of_async) == outcome(blocks, of_sync)
    assert [*map(comparable, of_async.operations)] == [*map(comparable, of_sync.operations)]
    assert of_async.invocations == of_sync.invocations


def test_every_member_is_called() -> None:
    assert sorted(CALLS) == public(WorkflowContext)
