"""What kind of function a decorator was given, and how its object is taken for that function.

A function below `@step` or `@workflow` may be wrapped by other decorators. One that wraps an
``async def`` in a plain ``def`` and passes its coroutine on is as async as what it wraps:
`functools.wraps` leaves the trace (``__wrapped__``) by which it is known.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from pyworkflow._api.body_threads import in_body_thread
from pyworkflow._engine.body_context import call_in_thread
from pyworkflow._values.exception_classes import stand_for
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import ParamSpec, Protocol, TypeVar

    Q = ParamSpec("Q")
    R_co = TypeVar("R_co", covariant=True)
    C_contra = TypeVar("C_contra", bound=type[Any], contravariant=True)

    class OfClass(Protocol[C_contra, Q, R_co]):
        """A function whose first parameter is a class and is called ``cls``.

        Type checkers bind a function below `classmethod` to its class, but no other object. By this
        parameter's name and type they find the overload of a decorator whose result binds itself.
        """

        def __call__(self, cls: C_contra, *args: Q.args, **kwargs: Q.kwargs) -> R_co:
            """Call it with its class."""
            ...


def check_function(function: Callable[..., Any], decorator: str) -> None:
    """Raise `UsageError` unless ``function`` is a ``def`` or ``async def`` with one result."""
    if not inspect.isfunction(function):
        raise UsageError(
            f"{decorator} takes a function, def or async def, not {function!r}; on a method, put "
            f"@classmethod or @staticmethod above {decorator}"
        )
    plain = inspect.unwrap(function)
    if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        raise UsageError(
            f"{function.__qualname__!r} is a generator; what {decorator} makes returns one value "
            "that can be recorded: return a list"
        )


def name_of(function: Callable[..., Any], decorator: str) -> str:
    """Return the name of ``function``; raise `UsageError` for a lambda, whose name says nothing."""
    if function.__name__ == "<lambda>":
        raise UsageError(
            f"a lambda has no name by which its records could be told apart; give it one: "
            f'{decorator}(name="...")'
        )
    return function.__name__


class Described:
    """What makes coroutines that durable operations are: a step, a workflow."""

    def describe(self) -> tuple[str, object]:
        """Return the operation's name and the type that its result is converted to."""
        raise NotImplementedError


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether a call of ``function`` gives a coroutine."""
    return inspect.iscoroutinefunction(_telling(function))


def as_async(function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return ``function`` as an async one: a sync function runs in a thread.

    A coroutine that a sync function returns is awaited: a lambda's call of an async function.
    """
    if is_async(function) or is_async(type(function).__call__):
        return function

    async def run(*args: Any, **kwargs: Any) -> Any:
        value = await in_body_thread(call_in_thread, function, *args, **kwargs)
        return await value if inspect.isawaitable(value) else value

    stand_for(run, function)
    return run


def without_result(function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, None]]:
    """Return ``function`` as an async one that returns nothing: its value is not to be recorded."""
    run = as_async(function)

    async def call(*args: Any, **kwargs: Any) -> None:
        await run(*args, **kwargs)

    stand_for(call, function)
    return call


def check_bound(function: Callable[..., Any], what: str) -> None:
    """Raise `UsageError` for a class method that came without its class.

    Since 3.13 `classmethod` binds calls alone: ``Shop.charge.options(...)`` finds the step beneath,
    and the first argument of the call would be taken for the class.
    """
    if inspect.isfunction(function) and function.__code__.co_varnames[:1] == ("cls",):
        raise UsageError(
            f"{what} was asked of the class method {function.__qualname__!r}, whose class is not "
            "known here: on Python 3.13 and later, @classmethod passes on nothing but calls. Make "
            "it a @staticmethod or a function"
        )


def take_for(decorated: Any, function: Callable[..., Any]) -> None:
    """Give ``decorated`` the attributes by which `inspect` takes an object for ``function``."""
    functools.update_wrapper(decorated, function)
    telling = _telling(function)
    plain = getattr(telling, "__func__", telling)
    decorated.__code__ = plain.__code__
    decorated.__defaults__ = plain.__defaults__
    decorated.__kwdefaults__ = plain.__kwdefaults__


def _telling(function: Any) -> Any:
    """Return the outermost ``async def`` of ``function`` and what it wraps, else ``function``."""
    found = inspect.unwrap(function, stop=inspect.iscoroutinefunction)
    return found if inspect.iscoroutinefunction(found) else function
