"""What kind of function a decorator was given, and how its object is taken for that function.

A function below `@step` or `@workflow` may be wrapped by other decorators. One that wraps an
``async def`` in a plain ``def`` and passes its coroutine on is as async as what it wraps:
`functools.wraps` leaves the trace (``__wrapped__``) by which it is known.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


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


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether a call of ``function`` gives a coroutine."""
    return inspect.iscoroutinefunction(_telling(function))


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
