"""Code that is to run as a child context: a function, or a coroutine that has not begun.

A recorded result is converted to the code's return annotation before any of the code runs. So the
annotation is looked up here: of a function, of the step or workflow behind a coroutine, of the
module's function behind any other coroutine. Where none is found, values are plain JSON.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Awaitable
from reprlib import repr as brief
from typing import TYPE_CHECKING, Any

import msgspec

from pyworkflow._api.functions import Described, is_async
from pyworkflow._engine.loop.tasks import call_plain
from pyworkflow._values.annotations import return_annotation
from pyworkflow._values.codec import decoder_for
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable


class Code(msgspec.Struct, frozen=True):
    """What to run, and what is known of it. ``name`` is `None` if it has none."""

    name: str | None
    result_type: object
    function: Callable[[], Any] | None = None
    coroutine: Coroutine[Any, Any, Any] | None = None
    maker: object = None
    """What made the coroutine, or the globals of its function."""

    @property
    def source(self) -> object:
        """The function that runs, or what tells its globals: where its errors are at home."""
        return self.function if self.maker is None else self.maker

    def call(self) -> Any:
        """Return the value, or what is to be awaited for it."""
        return self.coroutine if self.function is None else self.function()

    async def run(self) -> Any:
        """Run the code to its end."""
        value = call_plain(self.call)
        return await value if inspect.isawaitable(value) else value

    def close(self) -> None:
        """Drop the code if it has not begun, so that nobody warns of it."""
        drop([self.coroutine])


def code_of(target: object, what: str, *args: Any) -> Code:
    """Return the code that ``target``, called with ``args``, stands for.

    Raises `UsageError` if it is neither a function nor a coroutine that can still be run.
    """
    if inspect.iscoroutine(target):
        if args:
            raise UsageError(f"{what} got a coroutine and arguments: it has its own already")
        if not _is_new(target):
            raise UsageError(
                f"{what} got the coroutine {target.__qualname__!r}, which was awaited already; a "
                "coroutine runs once: call the function anew for each branch"
            )
        name, result_type, maker = _told_by(target)
        return Code(name, _checked(result_type, what), coroutine=target, maker=maker)
    if callable(target):
        function = functools.partial(target, *args) if args else target
        return Code(name_of(target), result_type_of(target, what), function)
    raise UsageError(
        f"{what} takes a function, or a coroutine that was not awaited yet, such as the call of an "
        f"async step; it got {brief(target)}. A sync step's call is run already: give a function, "
        "lambda: charge(order)"
    )


def drop(targets: Iterable[object]) -> None:
    """Close the coroutines among ``targets`` that have not begun."""
    for target in targets:
        if inspect.iscoroutine(target) and _is_new(target):
            target.close()


def result_type_of(function: Callable[..., Any], what: str) -> object:
    """Return the evaluated return annotation of ``function``, of what is awaited if it is that."""
    annotation = return_annotation(function)
    origin = typing.get_origin(annotation)
    if isinstance(origin, type) and issubclass(origin, Awaitable) and not is_async(function):
        annotation = typing.get_args(annotation)[-1]
    return _checked(annotation, what)


def name_of(function: Callable[..., Any]) -> str | None:
    """Return the name of ``function``, `None` for what has none."""
    if isinstance(function, Described):
        return function.describe()[0]
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) and name != "<lambda>" else None


def _is_new(coroutine: Coroutine[Any, Any, Any]) -> bool:
    return inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED


def _told_by(coroutine: Coroutine[Any, Any, Any]) -> tuple[str, object, object]:
    frame: Any = coroutine.cr_frame  # type: ignore[attr-defined] # of a coroutine object
    maker = frame.f_locals.get("self")
    if isinstance(maker, Described):
        return *maker.describe(), maker
    name: str = frame.f_code.co_name
    function = inspect.unwrap(frame.f_globals.get(name, _told_by))
    is_its = getattr(function, "__code__", None) is frame.f_code
    return name, return_annotation(function) if is_its else Any, frame.f_globals


def _checked(annotation: object, what: str) -> object:
    decoder_for(annotation, what=f"the result of the code of {what}")
    return annotation
