"""Callables: of which kind a function is, its name and type, and how it runs as a child context.

A function below `@step` or `@workflow` may be wrapped by other decorators. One that wraps an
``async def`` in a plain ``def`` and passes its coroutine on is as async as the function that it
wraps, which ``__wrapped__``, set by `functools.wraps`, leads to.

A child context runs a function, or a coroutine that has not started. Its recorded result is
converted to a return annotation before any of its code runs: the annotation of the function, of the
step or workflow that made the coroutine, or of the module's function behind any other coroutine.
Where there is none, values are plain JSON.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Awaitable
from reprlib import repr as brief
from typing import TYPE_CHECKING, Any

import msgspec

from pyworkflow._api.body_threads import in_body_thread
from pyworkflow._engine.body_context import call_in_thread
from pyworkflow._engine.loop.tasks import call_plain
from pyworkflow._values.annotations import return_annotation
from pyworkflow._values.codec import decoder_for
from pyworkflow._values.exception_classes import stand_for
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
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
            f"{function.__qualname__!r} is a generator, but {decorator} needs a function that "
            "returns one value that can be recorded: return a list"
        )


def default_name(function: Callable[..., Any], decorator: str) -> str:
    """Return the name of ``function``; raise `UsageError` for a lambda, which has none."""
    if function.__name__ == "<lambda>":
        raise UsageError(
            f'a lambda has no name to identify its records; give it one: {decorator}(name="...")'
        )
    return function.__name__


class Described:
    """A callable whose coroutines are durable operations: a step, a workflow."""

    def describe(self) -> tuple[str, object]:
        """Return the operation's name and the type that its result is converted to."""
        raise NotImplementedError


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether a call of ``function`` gives a coroutine."""
    return inspect.iscoroutinefunction(_async_layer(function))


def as_async(function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return ``function`` as an async one: a sync function runs in a thread.

    A coroutine that a sync function returns is awaited, as with a lambda that calls an async one.
    """
    if is_async(function) or is_async(type(function).__call__):
        return function

    async def run(*args: Any, **kwargs: Any) -> Any:
        value = await in_body_thread(call_in_thread, function, *args, **kwargs)
        return await value if inspect.isawaitable(value) else value

    stand_for(run, function)
    return run


def without_result(function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, None]]:
    """Return ``function`` as an async one that returns None, so its value is not recorded."""
    run = as_async(function)

    async def call(*args: Any, **kwargs: Any) -> None:
        await run(*args, **kwargs)

    stand_for(call, function)
    return call


def check_bound(function: Callable[..., Any], what: str) -> None:
    """Raise `UsageError` for a class method that was looked up without its class.

    Since 3.13 `classmethod` binds only calls: ``Shop.charge.options(...)`` finds the step beneath,
    and the first argument of the call would be mistaken for the class.
    """
    if inspect.isfunction(function) and function.__code__.co_varnames[:1] == ("cls",):
        raise UsageError(
            f"{what} was called on the class method {function.__qualname__!r}, whose class is not "
            "known here: on Python 3.13 and later, @classmethod passes on only calls. Make it a "
            "@staticmethod or a function"
        )


def take_for(decorated: Any, function: Callable[..., Any]) -> None:
    """Give ``decorated`` the attributes by which `inspect` takes an object for ``function``."""
    functools.update_wrapper(decorated, function)
    layer = _async_layer(function)
    plain = getattr(layer, "__func__", layer)
    decorated.__code__ = plain.__code__
    decorated.__defaults__ = plain.__defaults__
    decorated.__kwdefaults__ = plain.__kwdefaults__


def _async_layer(function: Any) -> Any:
    """Return the outermost ``async def`` of ``function`` and those it wraps, else ``function``."""
    found = inspect.unwrap(function, stop=inspect.iscoroutinefunction)
    return found if inspect.iscoroutinefunction(found) else function


# -- code that runs as a child context -------------------------------------------------------------


class Code(msgspec.Struct, frozen=True):
    """The code to run, its name (`None` if it has none) and the type of its result."""

    name: str | None
    result_type: object
    function: Callable[[], Any] | None = None
    coroutine: Coroutine[Any, Any, Any] | None = None
    maker: object = None
    """The step or workflow that made the coroutine, or the globals of its function."""

    @property
    def source(self) -> object:
        """The function that runs, or `maker`: its globals are the home of its error classes."""
        return self.function if self.maker is None else self.maker

    def call(self) -> Any:
        """Return the value, or an awaitable for it."""
        return self.coroutine if self.function is None else self.function()

    async def run(self) -> Any:
        """Run the code to its end."""
        value = call_plain(self.call)
        return await value if inspect.isawaitable(value) else value

    def close(self) -> None:
        """Close a coroutine that has not begun, so that Python does not warn about it."""
        drop([self.coroutine])


def code_of(target: object, what: str, *args: Any) -> Code:
    """Return ``target``, called with ``args``, as code.

    Raises `UsageError` if it is neither a function nor a coroutine that can still be run.
    """
    if inspect.iscoroutine(target):
        if args:
            raise UsageError(
                f"{what} got a coroutine and arguments, but a coroutine already has its own"
            )
        if not _is_new(target):
            raise UsageError(
                f"{what} got the coroutine {target.__qualname__!r}, which was awaited already; a "
                "coroutine runs once: call the function again for each branch"
            )
        name, result_type, maker = _origin_of(target)
        return Code(name, _checked(result_type, what), coroutine=target, maker=maker)
    if callable(target):
        function = functools.partial(target, *args) if args else target
        return Code(name_of(target), result_type_of(target, what), function)
    raise UsageError(
        f"{what} takes a function, or a coroutine that was not awaited yet, such as the call of an "
        f"async step; it got {brief(target)}. A sync step runs when it is called: pass a function, "
        "lambda: charge(order)"
    )


def drop(targets: Iterable[object]) -> None:
    """Close the coroutines among ``targets`` that have not begun."""
    for target in targets:
        if inspect.iscoroutine(target) and _is_new(target):
            target.close()


def result_type_of(function: Callable[..., Any], what: str) -> object:
    """Return the evaluated return annotation of ``function``, without an `Awaitable` around it."""
    annotation = return_annotation(function)
    origin = typing.get_origin(annotation)
    if isinstance(origin, type) and issubclass(origin, Awaitable) and not is_async(function):
        annotation = typing.get_args(annotation)[-1]
    return _checked(annotation, what)


def name_of(function: Callable[..., Any]) -> str | None:
    """Return the name of ``function``, `None` if it has none."""
    if isinstance(function, Described):
        return function.describe()[0]
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) and name != "<lambda>" else None


def _is_new(coroutine: Coroutine[Any, Any, Any]) -> bool:
    return inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED


def _origin_of(coroutine: Coroutine[Any, Any, Any]) -> tuple[str, object, object]:
    frame: Any = coroutine.cr_frame  # type: ignore[attr-defined] # of a coroutine object
    maker = frame.f_locals.get("self")
    if isinstance(maker, Described):
        return *maker.describe(), maker
    name: str = frame.f_code.co_name
    function = inspect.unwrap(frame.f_globals.get(name, _origin_of))
    is_its = getattr(function, "__code__", None) is frame.f_code
    return name, return_annotation(function) if is_its else Any, frame.f_globals


def _checked(annotation: object, what: str) -> object:
    decoder_for(annotation, what=f"the result of the code of {what}")
    return annotation
