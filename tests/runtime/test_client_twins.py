"""Async classes of the clients and their blocking twins: same names, signatures, texts, answers.

The blocking ones are generated; this also holds what is written by hand beside them.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow import AsyncClient, Client, WorkflowContext, step, workflow
from pyworkflow._local.async_handle import AsyncHandle
from pyworkflow._local.handle import Handle
from tests.runtime.local import on_a_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from pyworkflow._protocol.executions import ExecutionSummary

PAIRS: list[tuple[type, type]] = [(AsyncClient, Client), (AsyncHandle, Handle)]

ONLY_ASYNC = {
    "AsyncClient.join": "for whoever owns the loop: the command that serves",
    "AsyncHandle.wait_for_result": "what both kinds of result() are made of",
}
ONLY_BLOCKING = {"Client.call": "how its handles reach its loop"}


def public(kind: type) -> dict[str, Any]:
    """The methods without underscore, as they are defined, inherited ones included."""
    return {
        name: inspect.getattr_static(kind, name) for name in dir(kind) if not name.startswith("_")
    }


def plain(method: Any) -> Callable[..., Any]:
    function = getattr(method, "__func__", method)
    assert inspect.isfunction(function)
    return function


def shared() -> Iterator[tuple[type, type, str]]:
    for one, other in PAIRS:
        for name in sorted(public(one).keys() & public(other).keys()):
            yield one, other, name


METHODS = [pytest.param(*each, id=f"{each[0].__name__}.{each[2]}") for each in shared()]


def test_both_have_the_same_methods() -> None:
    only_async, only_blocking = (
        {f"{a.__name__}.{name}" for a, b in pairs for name in public(a).keys() - public(b)}
        for pairs in (PAIRS, [(other, one) for one, other in PAIRS])
    )
    assert only_async == ONLY_ASYNC.keys()
    assert only_blocking == ONLY_BLOCKING.keys()
    assert len(METHODS) >= 15


def blocking(text: str) -> str:
    """What the twin says where the async class says ``text``."""
    text = re.sub(r"(`+[^`]*`+)", lambda code: re.sub(r"\b(await|async) ", "", code[0]), text)
    return re.sub(r"\bAsync(Client|Handle)\b", r"\1", text)


@pytest.mark.parametrize(("one", "other", "name"), METHODS)
def test_a_pair_takes_and_returns_the_same(one: type, other: type, name: str) -> None:
    ours, theirs = public(one)[name], public(other)[name]
    assert type(ours) is type(theirs)  # a classmethod, or a function
    first, second = plain(ours), plain(theirs)
    assert not inspect.iscoroutinefunction(second)
    assert isinstance(ours, classmethod) or inspect.iscoroutinefunction(first)
    assert parameters(first, blocking) == parameters(second, str)
    # An async function's annotation is what awaiting it returns.
    assert blocking(str(inspect.signature(first).return_annotation)) == str(
        inspect.signature(second).return_annotation
    )


def parameters(
    function: Callable[..., Any], text: Callable[[str], str]
) -> list[tuple[str, Any, Any, str]]:
    return [
        (each.name, each.kind, each.default, text(str(each.annotation)))
        for each in inspect.signature(function).parameters.values()
    ]


@pytest.mark.parametrize(("one", "other", "name"), METHODS)
def test_a_pair_says_the_same(one: type, other: type, name: str) -> None:
    first, second = plain(public(one)[name]).__doc__, plain(public(other)[name]).__doc__
    assert first
    assert second == blocking(first)


def test_the_classes_say_the_same() -> None:
    assert (Handle.__doc__ or "") == blocking(AsyncHandle.__doc__ or "")
    beside = " Its\n    methods may be called from any thread, also from sync steps."
    assert (Client.__doc__ or "").replace(beside, "") == blocking(AsyncClient.__doc__ or "")


# -- behaviour -----------------------------------------------------------------------------------


@step
async def charge(item: str) -> str:
    return f"{item} charged"


@workflow
async def order(ctx: WorkflowContext, item: str) -> str:
    charged = await charge(item)
    answer = await ctx.callback("approval", result_type=str, timeout="1h").result()
    return f"{charged}, {answer}"


class Awaiting:
    """A blocking object, called as its async twin."""

    def __init__(self, blocking: Any) -> None:
        self._blocking = blocking

    def __repr__(self) -> str:
        return repr(self._blocking)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._blocking, name)
        if not inspect.ismethod(found):
            return found

        async def call(*args: Any, **kwargs: Any) -> Any:
            given = [each._blocking if isinstance(each, Awaiting) else each for each in args]
            result = found(*given, **kwargs)
            return Awaiting(result) if isinstance(result, Handle) else result

        return call


def seen(summary: ExecutionSummary) -> tuple[object, ...]:
    error = summary.error and (summary.error.message, summary.error.type)
    return (summary.name, summary.workflow_name, summary.status, summary.result, error)


async def asked(handle: Any) -> str:
    """Return the id of the callback, once the workflow waits for it."""
    while True:
        for each in await handle.operations():
            if each.callback_id is not None:
                return str(each.callback_id)
        await asyncio.sleep(0)


async def refusal(call: Awaitable[object]) -> tuple[type, str]:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one, and its text, is compared
        await call
    return type(caught.value), re.sub(r"[0-9a-f-]{16,}", "ID", str(caught.value))


async def use(client: Any, copy: Path) -> list[object]:
    """Call every method; return what came back, without ids and times."""
    one = await client.start(order, {"item": "book"}, execution_name="one", timeout="1h")
    again = await client.start(order, {"item": "book"}, execution_name="one")
    answers: list[object] = [repr(one), one.name, one.workflow_name, again.id == one.id]
    callback_id = await asked(one)
    await client.heartbeat_callback(callback_id)
    answers += [await one.status(), await refusal(one.result(timeout=0.01))]
    await client.complete_callback(callback_id, "yes")
    answers += [await one.result(), await refusal(client.complete_callback(callback_id))]
    answers += [seen(await one.summary())]
    answers += [[(each.type, each.name, each.status) for each in await one.operations()]]
    answers += [[(each.type, each.name) for each in await one.history()]]
    two = await client.start("order", {"item": "pen"}, execution_name="two")
    await client.fail_callback(await asked(two), "no", error_type="Refused")
    answers += [await refusal(two.result())]
    three = await client.start(order, {"item": "cup"}, execution_name="three")
    answers += [seen(await three.stop("enough")), await refusal(three.result())]
    found = await client.get("two", order)
    answers += [found.id == two.id, await refusal(client.get("four"))]
    answers += [await refusal(client.release(given)) for given in (one, "one", "four")]
    listed = await client.list(workflow=order, limit=2, payloads=True)
    answers += [[seen(each) for each in listed], listed.marker is not None]
    rest = await client.list(after=listed.marker, name_prefix="o", has_problem=False)
    answers += [[seen(each) for each in rest]]
    answers += [await client.backup(copy), await refusal(client.backup(copy))]
    return answers


@on_a_loop
async def test_both_do_the_same(tmp_path: Path) -> None:
    async with AsyncClient.local(tmp_path / "executions.db", workflows=[order]) as ours:
        expected = await use(ours, tmp_path / "copy.db")
    (tmp_path / "executions.db").unlink()
    (tmp_path / "copy.db").unlink()
    with Client.local(tmp_path / "executions.db", workflows=[order]) as theirs:
        found = await use(Awaiting(theirs), tmp_path / "copy.db")
    assert found == expected
    async with AsyncClient.memory() as ours:
        expected = [await refusal(ours.backup(tmp_path / "no.db"))]
    with Client.memory() as theirs:
        assert [await refusal(Awaiting(theirs).backup(tmp_path / "no.db"))] == expected
    kind, text = await refusal(ours.list())
    assert await refusal(Awaiting(theirs).list()) == (kind, blocking(text))
