"""The annotations of a function, each evaluated on its own.

`typing.get_type_hints` evaluates all of them or fails: one parameter whose type is imported under
``TYPE_CHECKING`` only would take the return type with it. Here a name that can't be resolved hurts
only whoever asks for that annotation. Names are looked up as the function's own code would find
them: closure, module, builtins, and last the class that contains it.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import operator
import sys
import types
import typing
from typing import TYPE_CHECKING, Any

from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

# An annotation that means "anything" or "never" says nothing about stored values.
_AS_ANY = (typing.NoReturn, typing.Never, typing.Self, object)


def return_annotation(fn: object) -> object:
    """Return the evaluated return annotation of ``fn``; `Any` where there is none.

    Raises `UsageError` if a name in it can't be resolved at run time.
    """
    return _Scope(fn).evaluate("return", "the return annotation")


class Returned:
    """A function's return annotation, evaluated once, on first use."""

    def __init__(self, fn: object) -> None:
        self._fn = fn

    @functools.cached_property
    def annotation(self) -> object:
        """The evaluated return annotation; raises as `return_annotation`."""
        return return_annotation(self._fn)


def parameter_annotations(fn: object, *, omit: str = "") -> dict[str, object]:
    """Return the evaluated annotations of the parameters of ``fn`` that have one, by name.

    The parameter ``omit`` is left out. Raises `UsageError` if a name in one of the others can't be
    resolved at run time.
    """
    scope = _Scope(fn)
    return {
        name: scope.evaluate(name, f"the annotation of parameter {name!r}")
        for name in scope.annotations
        if name not in ("return", omit)
    }


def known_parameters(fn: object) -> tuple[dict[str, object], bool]:
    """Return those annotations of parameters that can be evaluated by now, and whether all can."""
    scope = _Scope(fn)
    found = {}
    for name in scope.annotations.keys() - {"return"}:
        with contextlib.suppress(UsageError):
            found[name] = scope.evaluate(name, "the annotation")
    in_order = {name: found[name] for name in scope.annotations if name in found}
    return in_order, len(found) == len(scope.annotations.keys() - {"return"})


def replace_parts(annotation: Any, change: Callable[[Any], Any]) -> Any:
    """Return an annotation in which ``change`` was applied to each part that has none itself."""
    arguments = typing.get_args(annotation)
    origin: Any = typing.get_origin(annotation)
    if not arguments:
        return change(annotation)
    if origin is typing.Literal:
        return annotation
    if origin is typing.Annotated:
        return typing.Annotated[(replace_parts(arguments[0], change), *arguments[1:])]
    parts = tuple(replace_parts(each, change) for each in arguments)
    if all(new is old for new, old in zip(parts, arguments, strict=True)):
        return annotation
    if isinstance(annotation, types.UnionType):
        return functools.reduce(operator.or_, parts)
    of: Any = origin
    return of[parts] if isinstance(origin, type) else annotation.copy_with(parts)


class _Scope:
    """Where the names in a function's annotations are looked up."""

    def __init__(self, fn: object) -> None:
        while isinstance(fn, (functools.partial, types.MethodType)):
            fn = fn.func if isinstance(fn, functools.partial) else fn.__func__
        if not (inspect.isroutine(fn) or isinstance(fn, type) or hasattr(fn, "__wrapped__")):
            fn = type(fn).__call__
        self.annotations = _annotations(fn)
        self.fn: Any = inspect.unwrap(fn)  # type: ignore[arg-type]
        self.label = getattr(fn, "__qualname__", repr(fn))
        self.globals: dict[str, Any] = getattr(self.fn, "__globals__", {})

    def evaluate(self, name: str, which: str) -> object:
        if name not in self.annotations:
            return Any
        try:
            found = self._evaluate(self.annotations[name])
        except NameError as error:
            raise UsageError(
                f"The name {error.name!r} in {which} of {self.label}() is unknown at run time. "
                "Values are converted to it, so it must be importable where the function is "
                "defined: not only under `if TYPE_CHECKING:`, nor local to another function."
            ) from error
        except Exception as error:
            raise UsageError(
                f"{which} of {self.label}() can't be evaluated ({type(error).__name__}: {error}): "
                f"expected a type, found {self.annotations[name]!r}."
            ) from error
        if isinstance(found, typing.TypeVar) or found in _AS_ANY:
            return Any
        return str if found is typing.LiteralString else found

    def _evaluate(self, annotation: object) -> object:
        names = self._enclosing()
        try:
            return self._evaluate_with(annotation, names)
        except NameError:
            # Last, so that a method named `list` does not hide the builtin.
            return self._evaluate_with(annotation, self._class_names() | names)

    def _evaluate_with(self, annotation: object, names: dict[str, Any]) -> object:
        carrier = types.SimpleNamespace(__annotations__={"it": annotation})
        hints = typing.get_type_hints(carrier, self.globals, names, include_extras=True)
        return hints["it"]

    def _enclosing(self) -> dict[str, Any]:
        names = {each.__name__: each for each in getattr(self.fn, "__type_params__", ())}
        code = getattr(self.fn, "__code__", None)
        cells = getattr(self.fn, "__closure__", None) or ()
        for name, cell in zip(code.co_freevars if code else (), cells, strict=True):
            try:
                names[name] = cell.cell_contents
            except ValueError:
                # Not assigned yet: as unknown as it would be to the function itself.
                continue
        return names

    def _class_names(self) -> dict[str, Any]:
        holder: Any = None
        for part in getattr(self.fn, "__qualname__", "").split(".")[:-1]:
            holder = self.globals.get(part) if holder is None else vars(holder).get(part)
            if not isinstance(holder, type):
                return {}
        return dict(vars(holder)) if holder else {}


def _annotations(fn: object) -> dict[str, Any]:
    if sys.version_info >= (3, 14):  # pragma: no cover
        import annotationlib

        found = annotationlib.get_annotations(fn, format=annotationlib.Format.FORWARDREF)
        return {
            name: each.__forward_arg__ if isinstance(each, annotationlib.ForwardRef) else each
            for name, each in found.items()
        }
    return getattr(fn, "__annotations__", {})
