"""The arguments of steps and of child workflows, checked against their constraints.

A function is called with objects, so nothing is converted: what fits is passed on as it is. Whether
a function has constraints at all is found out when it is decorated, so that any other costs
nothing. Arguments are judged once, before the function first runs for a call; what was accepted
then is accepted on each retry and replay, as the input of an execution is.
"""

from __future__ import annotations

import functools
import inspect
import sys
from types import MethodType
from typing import TYPE_CHECKING, Any

from pyworkflow._engine.current import running_step
from pyworkflow._values.annotations import known_parameters
from pyworkflow._values.breaches import find_breach, has_limits
from pyworkflow._values.constraints import Survey
from pyworkflow._values.paths import shown
from pyworkflow.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

_VAR_POSITIONAL = inspect.Parameter.VAR_POSITIONAL
_VAR_KEYWORD = inspect.Parameter.VAR_KEYWORD


class Limits:
    """The constraints on the parameters of one function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._signature = inspect.signature(function)

    def check(
        self, what: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Any
    ) -> None:
        """Raise `InputError` if arguments break a constraint; defaults are arguments as well.

        ``function`` is the one that these are for, perhaps bound to an object. Arguments that can't
        be bound to it are left to the call.
        """
        if not self.by_name:
            return
        if isinstance(function, MethodType):
            args = (function.__self__, *args)
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError:
            return
        bound.apply_defaults()
        if problems := list(_problems(self._arguments(bound))):
            lines = "\n".join(f"  {problem}" for problem in problems)
            raise InputError(
                f"the arguments do not fit {what}:\n{lines}\nCorrect the call or the annotations.",
                problems=problems,
            )

    def problems_of_defaults(self, names: Iterable[str]) -> list[str]:
        """Return a line for each of these parameters whose default breaks a constraint."""
        defaults = ((n, self._signature.parameters[n].default, self.by_name.get(n)) for n in names)
        return list(_problems(each for each in defaults if each[2] is not None))

    @functools.cached_property
    def by_name(self) -> Mapping[str, object]:
        """The annotations that have constraints, by parameter."""
        return _limited(self._function)[0]

    def _arguments(self, bound: inspect.BoundArguments) -> Iterator[tuple[str, Any, object]]:
        for name, annotation in self.by_name.items():
            value = bound.arguments[name]
            kind = self._signature.parameters[name].kind
            if kind is _VAR_POSITIONAL:
                yield from ((f"{name}[{at}]", each, annotation) for at, each in enumerate(value))
            elif kind is _VAR_KEYWORD:
                yield from ((key, each, annotation) for key, each in value.items())
            else:
                yield name, value, annotation


def limits_of(function: Callable[..., Any], what: str) -> Limits | None:
    """Return the constraints on the parameters of ``function``, `None` if there are none.

    Annotations that can't be evaluated yet are looked at when the function is first called.

    Raises `UsageError` for a constraint that nobody would enforce.
    """
    limited, are_all = _limited(function)
    if "pydantic" not in sys.modules:
        for name, annotation in limited.items():
            if (fault := Survey(annotation).fault) is not None:
                raise UsageError(f"parameter {name!r} of {what}: {fault}")
    return Limits(function) if limited or not are_all else None


def _problems(arguments: Iterable[tuple[str, object, object]]) -> Iterator[str]:
    for name, value, annotation in arguments:
        if (breach := find_breach(value, annotation)) is not None:
            yield f"{name}: {breach.fault} at {breach.path}, found {shown(breach.found)}"


def _limited(function: Callable[..., Any]) -> tuple[dict[str, object], bool]:
    """Return the annotations that have constraints, by parameter, and whether all are known."""
    known, are_all = known_parameters(function)
    limited = {}
    for name, annotation in known.items():
        try:
            if has_limits(annotation):
                limited[name] = annotation
        except Exception:  # a field whose type is defined further down, say
            are_all = False
    return limited, are_all


class Checked:
    """A function whose arguments are judged before it runs."""

    def __init__(self, function: Callable[..., Any], limits: Limits, what: str) -> None:
        self.__wrapped__ = function
        self._limits = limits
        self._what = what

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.check(args, kwargs)
        return self.__wrapped__(*args, **kwargs)

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise `InputError` if arguments break a constraint, unless a step is tried again."""
        step = running_step.get()
        if step is None or step.attempt == 1:
            self._limits.check(self._what, self.__wrapped__, args, kwargs)


def check_arguments(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    """Judge arguments as the body of a step would that is not to be called."""
    if isinstance(function, Checked):
        function.check(args, kwargs)
