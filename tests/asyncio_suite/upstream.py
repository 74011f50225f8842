"""CPython's own tests of asyncio, run in workflows.

The tests are those of the running Python (`test.test_asyncio`). Each runs as the code of a workflow
on the strict mock: live, again after each timer that it waits for, and once more from its record.
Where CPython tests several implementations of a class, ours takes their place.

Its tests of tasks and futures are synchronous and drive a loop of their own. Here that loop is the
workflow's, and what they ask of it beyond asyncio's interface is done by `_lend`: the test itself
is a ``def`` workflow, so ``run_until_complete`` blocks as a step would.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import inspect
import random
import traceback
import types
import unittest
import warnings
from typing import TYPE_CHECKING, Any
from unittest import mock

from pyworkflow import workflow
from pyworkflow._engine.current import require_execution
from pyworkflow._engine.loop.tasks import Future
from pyworkflow.aws.testing import MockDurableContext, create_test_handler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODULES = (
    "tasks",
    "taskgroups",
    "timeouts",
    "locks",
    "queues",
    "waitfor",
    "futures",
    "futures2",
    "context",
)


class _AnyTask(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, asyncio.Task)


class LoopsTask(metaclass=_AnyTask):
    """In place of `asyncio.Task` in tests that call it: a task of the workflow's loop."""

    def __new__(cls, coro: Any, *, loop: Any = None, **options: Any) -> Any:
        return asyncio.get_running_loop().create_task(coro, **options)

    __class_getitem__: Any = classmethod(types.GenericAlias)
    current_task = staticmethod(asyncio.current_task)
    all_tasks = staticmethod(asyncio.all_tasks)


OURS: dict[str, dict[str, Any]] = {
    "tasks.BaseTaskTests": {
        "Task": LoopsTask,
        "Future": Future,
        "new_task": lambda self, loop, coro, name="TestTask", context=None, **options: (
            asyncio.get_running_loop().create_task(coro, name=name, context=context)
        ),
        "all_tasks": staticmethod(asyncio.all_tasks),
        "current_task": staticmethod(asyncio.current_task),
    },
    "futures.BaseFutureTests": {"cls": Future},
    "futures.BaseFutureDoneCallbackTests": {
        "_new_future": lambda self: Future(loop=self.loop),
    },
    "futures.BaseFutureInheritanceTests": {"_get_future_cls": lambda self: Future},
    "futures2.FutureTests": {"cls": LoopsTask},
}
"""Mixins that CPython combines with several implementations, and what makes one of them ours."""


def find_tests() -> Iterator[tuple[str, type[unittest.TestCase], str]]:
    """Yield the name, class and method of each test; raises `ImportError` where there are none."""
    for name in MODULES:
        module = _module(f"test_{name}")
        for label, made in sorted(vars(module).items()):
            if not inspect.isclass(made) or made.__module__ != module.__name__:
                continue
            ours = OURS.get(f"{name}.{label}")
            if ours is not None:
                case = _ours(name, made, ours)
            elif issubclass(made, unittest.TestCase) and not _is_of_another(made, name):
                case = made
            else:
                continue
            for method in unittest.TestLoader().getTestCaseNames(case):
                yield f"{name}.{label}.{method}", case, method


def _module(name: str) -> types.ModuleType:
    return importlib.import_module(f"test.test_asyncio.{name}")  # noqa: TID251 - the interpreter's


def _ours(name: str, mixin: type, attributes: dict[str, Any]) -> type[unittest.TestCase]:
    base: Any = unittest.IsolatedAsyncioTestCase
    if name != "futures2":
        base = _module("utils").TestCase
    return type(f"Our{mixin.__name__}", (mixin, base), dict(attributes))


def _is_of_another(case: type, name: str) -> bool:
    """Whether a class tests another implementation than the one that runs here."""
    if case.__name__.startswith("Py"):  # of what asyncio also has in C
        return True
    mixins = {label.partition(".")[2] for label in OURS if label.startswith(f"{name}.")}
    return any(base.__name__ in mixins for base in case.__mro__)


def run(case: type[unittest.TestCase], method: str) -> str | None:
    """Run one test in a workflow, and replay it; return how it failed, `None` if it passed.

    Raises `unittest.SkipTest` for a test that this Python or machine skips.
    """
    gc.freeze()  # some collect garbage a hundred times: theirs is enough
    chance = random.getstate()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they leave behind is theirs
            failure = _failure(case, method)
            gc.collect()
    finally:
        random.setstate(chance)
        gc.unfreeze()
    return failure


def _failure(case: type[unittest.TestCase], method: str) -> str | None:
    is_async = issubclass(case, unittest.IsolatedAsyncioTestCase)
    code = _async_code(case, method) if is_async else _blocking_code(case, method)
    try:
        create_test_handler(workflow(name="test")(code), MockDurableContext())({})
    except (KeyboardInterrupt, unittest.SkipTest):
        raise
    except BaseException:  # some raise what no `except Exception` sees
        return traceback.format_exc()
    return None


def _async_code(case: type[unittest.TestCase], method: str) -> Callable[[], Any]:
    async def run_test() -> None:
        random.seed(0)  # some sleep for a time of chance, which is to be the same on each replay
        test: Any = case(method)
        _lend(asyncio.get_running_loop())
        test.setUp()
        await test.asyncSetUp()
        try:
            result = getattr(test, method)()
            if inspect.iscoroutine(result):
                await asyncio.create_task(result)  # its own, as upstream: some look at that
        finally:
            await test.asyncTearDown()
            test.tearDown()

    return run_test


def _blocking_code(case: type[unittest.TestCase], method: str) -> Callable[[], Any]:
    def run_test() -> None:
        random.seed(0)  # as above
        test: Any = case(method)
        loop = asyncio.get_running_loop()
        test.new_test_loop = lambda gen=None: _lend(loop)
        test.set_event_loop = lambda loop, *, cleanup=True: None
        with (
            mock.patch.object(asyncio, "run", _lend(loop).run_until_complete),
            mock.patch.object(asyncio, "new_event_loop", return_value=_lend(loop)),
        ):
            test.setUp()
            try:
                getattr(test, method)()
            finally:
                test.doCleanups()

    return run_test


def _lend(loop: Any) -> Any:
    """Let a test drive the workflow's loop as if it were its own."""
    wait = require_execution("a test").greenlets.wait
    make_future = type(loop).create_future
    stopped: list[Any] = []

    def run_until_complete(awaited: Any, **_: Any) -> Any:
        return wait(asyncio.ensure_future(awaited, loop=loop))

    def run_forever() -> None:
        stopped.append(make_future(loop))
        wait(stopped[-1])

    def stop() -> None:
        if stopped and not stopped[-1].done():
            stopped[-1].set_result(None)

    def ignore(*_: Any) -> None:
        """Do nothing: the loop is the workflow's, before and after the test."""

    vars(loop).update(
        run_until_complete=run_until_complete,
        run_forever=run_forever,
        stop=stop,
        close=ignore,
        set_task_factory=ignore,
        set_debug=ignore,
        advance_time=ignore,
        _ready=loop.ready,
    )
    return loop
