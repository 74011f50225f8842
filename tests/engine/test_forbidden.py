from __future__ import annotations

import asyncio
import inspect
import signal
from collections.abc import Callable
from typing import Any

import pytest

from pyworkflow import workflow
from pyworkflow._engine.loop.event_loop import WorkflowLoop
from pyworkflow._engine.loop.forbidden import refuse_world
from pyworkflow.aws.testing import create_test_handler
from pyworkflow.errors import UsageError
from tests.engine.loops import World

ANSWERED = {
    "call_at",
    "call_exception_handler",
    "call_later",
    "call_soon",
    "create_future",
    "create_task",
    "default_exception_handler",
    "get_debug",
    "get_exception_handler",
    "get_task_factory",
    "is_closed",
    "is_running",
    "shutdown_asyncgens",
    "time",
}
"""All that a loop does for workflow code; a method that a later Python adds is refused."""


def methods() -> list[str]:
    return [name for name in dir(asyncio.AbstractEventLoop) if not name.startswith("_")]


@pytest.mark.parametrize("name", sorted(set(methods()) - ANSWERED))
def test_each_other_method_of_a_loop_is_refused(name: str) -> None:
    method = getattr(World().loop, name)
    with pytest.raises(
        UsageError, match=rf"loop\.{name} was called in workflow code.*@step"
    ) as told:
        method(object(), keyword=1)
    assert isinstance(told.value, NotImplementedError)  # as of asyncio's own, for libraries
    assert method.__name__ == name
    assert inspect.getdoc(method)


@pytest.mark.parametrize("name", sorted(ANSWERED))
def test_what_is_answered_is_no_abstract_method(name: str) -> None:
    abstract = getattr(asyncio.AbstractEventLoop, name)
    assert getattr(WorkflowLoop, name) is not abstract


def test_nothing_is_set_that_could_be_asked_for() -> None:
    loop = World().loop
    assert loop.get_task_factory() is None
    assert loop.get_exception_handler() is None


def test_what_a_class_defines_is_left_alone() -> None:
    @refuse_world
    class Loop(asyncio.AbstractEventLoop):  # the rest is refused
        def time(self) -> float:
            return 1.5

    loop: Any = Loop()  # type: ignore[abstract]
    assert loop.time() == 1.5
    with pytest.raises(UsageError, match=r"loop\.stop was called"):
        loop.stop()


def loop() -> Any:
    return asyncio.get_running_loop()


def nothing(*_: object) -> None:
    return None


WORLD: dict[str, tuple[Callable[[], Any], str]] = {
    "a connection": (lambda: asyncio.open_connection("localhost", 1), "create_connection"),
    "a server": (lambda: asyncio.start_server(nothing, "localhost", 1), "create_server"),
    "a thread": (lambda: asyncio.to_thread(len, ""), "run_in_executor"),
    "an executor": (lambda: loop().run_in_executor(None, len, ""), "run_in_executor"),
    "a process": (lambda: asyncio.create_subprocess_exec("true"), "subprocess_exec"),
    "a shell": (lambda: asyncio.create_subprocess_shell("true"), "subprocess_shell"),
    "a signal": (lambda: loop().add_signal_handler(signal.SIGTERM, nothing), "add_signal_handler"),
    "a name": (lambda: loop().getaddrinfo("localhost", 1), "getaddrinfo"),
    "a socket": (lambda: loop().sock_recv(None, 1), "sock_recv"),
    "another thread's call": (lambda: loop().call_soon_threadsafe(nothing), "call_soon_threadsafe"),
    "a loop inside": (lambda: loop().run_forever(), "run_forever"),
    "a task factory": (lambda: loop().set_task_factory(nothing), "set_task_factory"),
    "the end": (lambda: loop().close(), "close"),
}


@pytest.mark.parametrize("what", WORLD)
def test_workflow_code_that_touches_the_world_fails_with_the_remedy(what: str) -> None:
    touch, name = WORLD[what]

    @workflow
    async def order() -> None:
        touched = touch()
        await touched

    with pytest.raises(UsageError, match=rf"loop\.{name} .* Move it into a function with @step"):
        create_test_handler(order)({})
