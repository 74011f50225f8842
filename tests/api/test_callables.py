from __future__ import annotations

import asyncio
import functools
import inspect
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow import UsageError, step
from pyworkflow._api.callables import (
    as_async,
    check_function,
    default_name,
    is_async,
    take_for,
    without_result,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


def passing_on(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that does not ask whether its function is async."""

    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


def on_a_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that makes a sync function async."""

    @functools.wraps(function)
    async def inner(*args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(function, *args, **kwargs)

    return inner


def plain(a: int, b: str = "b", *, c: float = 0.5) -> str:
    """Say something."""
    return f"{a}{b}{c}"


async def coro(a: int, b: str = "b", *, c: float = 0.5) -> str:
    """Say something later."""
    return f"{a}{b}{c}"


def numbers() -> Iterator[int]:
    yield 1


async def stream() -> AsyncIterator[int]:
    yield 1


class Callee:
    def __call__(self) -> None: ...

    @classmethod
    def build(cls) -> None: ...


@pytest.mark.parametrize("function", [plain, coro, passing_on(coro), lambda: 1])
def test_functions_are_accepted(function: Any) -> None:
    check_function(function, "@step")


@pytest.mark.parametrize(
    "thing",
    [
        functools.partial(plain, 1),
        Callee(),
        Callee,
        len,
        Callee.__dict__["build"],
        Callee.build,
        staticmethod(plain),
        None,
        "plain",
    ],
)
def test_what_is_no_function_is_refused(thing: Any) -> None:
    with pytest.raises(UsageError, match=r"@step takes a function.*@classmethod.*above @step"):
        check_function(thing, "@step")


@pytest.mark.parametrize("function", [numbers, stream, passing_on(numbers), passing_on(stream)])
def test_generators_are_refused(function: Any) -> None:
    with pytest.raises(UsageError, match=rf"'{function.__name__}' is a generator.*return a list"):
        check_function(function, "@workflow")


def test_the_name_is_the_functions() -> None:
    assert default_name(plain, "step") == "plain"
    assert default_name(passing_on(coro), "step") == "coro"


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(UsageError, match=r'a lambda has no name.*step\(name="..."\)'):
        default_name(lambda: 1, "step")


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (plain, False),
        (coro, True),
        (passing_on(plain), False),
        (passing_on(coro), True),
        (on_a_thread(plain), True),
        (on_a_thread(passing_on(plain)), True),
        (passing_on(on_a_thread(plain)), True),
    ],
)
def test_an_object_is_taken_for_its_function(function: Any, expected: bool) -> None:
    class Decorated:
        def __call__(self) -> None: ...

    decorated: Any = Decorated()
    take_for(decorated, function)
    assert is_async(function) is expected
    assert inspect.iscoroutinefunction(decorated) is expected
    assert decorated.__wrapped__ is function
    assert decorated.__name__ == function.__name__
    assert decorated.__doc__ == function.__doc__
    assert decorated.__module__ == function.__module__
    assert inspect.signature(decorated) == inspect.signature(function)


def test_a_method_keeps_its_signature_without_self() -> None:
    class Shop:
        async def order(self, item: str = "tea") -> str:
            return item

    class Decorated:
        def __call__(self) -> None: ...

    decorated: Any = Decorated()
    take_for(decorated, Shop().order)
    assert inspect.iscoroutinefunction(decorated)
    assert list(inspect.signature(decorated).parameters) == ["item"]
    assert decorated.__defaults__ == ("tea",)


async def later(a: int) -> int:
    return a


def passes_on(a: int) -> Any:
    return later(a)


@pytest.mark.parametrize("function", [lambda a: a, later, passes_on])
def test_a_function_of_any_kind_may_be_called_for_its_effect_alone(function: Any) -> None:
    assert asyncio.run(as_async(function)(5)) == 5
    assert asyncio.run(without_result(function)(5)) is None


def test_a_class_method_without_its_class_has_no_options() -> None:
    @step
    async def charge(cls: type, amount: int = 0) -> int:
        return amount

    with pytest.raises(UsageError, match="class method"):
        charge.options(name="other")
    with pytest.raises(UsageError, match="class method"):
        charge.submit(int, 1)
