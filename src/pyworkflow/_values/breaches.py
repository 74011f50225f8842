"""Where a value that code was called with breaks a constraint in its annotation.

The value is an object, not JSON text: nothing is converted, and what a codec does not know may be
part of it. So types are not judged. The walk goes through the value and the annotation side by
side, and where the annotation has constraints, whoever defines them judges that part alone:
pydantic its own and those of annotated_types, this module those of `msgspec.Meta`, which msgspec
applies to what it decodes and to nothing else.

Models are not looked into: pydantic has judged them when they were made.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from pyworkflow._values import pydantic_models
from pyworkflow._values.constraints import LIMITS, for_pydantic, is_constraint, is_limited_class
from pyworkflow._values.misfits import MARKS, UNIONS, fields_of, members
from pyworkflow._values.paths import step_to

_READING = {"Json", "EncodedBytes", "EncodedStr"}
"""Markers of how pydantic reads text: a value that was read is no longer text."""
_OTHERS = {
    *("Discriminator", "Tag", "SkipValidation", "FailFast", "WithJsonSchema"),
    *("PlainSerializer", "WrapSerializer", "SerializeAsAny"),
}
"""Markers that don't constrain an existing value."""


class Breach(NamedTuple):
    """The part of a value that breaks a constraint, and how."""

    path: str
    fault: str
    found: object


def has_limits(annotation: object) -> bool:
    """Whether a constraint is part of ``annotation``, or of a field of a class in it.

    Raises if the annotation of such a field can't be evaluated yet.
    """
    try:
        return _known_limits(annotation)
    except TypeError:  # it can't be hashed
        return _has_limits(annotation, set())


def find_breach(value: object, annotation: object) -> Breach | None:
    """Return the first part of ``value`` that breaks a constraint, `None` if all keep to them."""
    return _breach(value, annotation, "$", frozenset())


# -- which annotations have constraints ----------------------------------------------------------


def _has_limits(annotation: Any, seen: set[int]) -> bool:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated and any(map(_is_limit, annotation.__metadata__)):
        return True
    if origin is typing.Literal or id(annotation) in seen:
        return False
    seen.add(id(annotation))
    inner = _inner(annotation)
    if inner is not None:
        return _has_limits(inner, seen)
    kind = origin or annotation
    if any(_has_limits(each, seen) for each in typing.get_args(annotation)):
        return True
    if not isinstance(kind, type):
        return False
    fields = _fields(kind, typing.get_args(annotation)) or {}
    return is_limited_class(kind) or any(_has_limits(each, seen) for each in fields.values())


_known_limits = lru_cache(maxsize=512)(lambda annotation: _has_limits(annotation, set()))


def _inner(annotation: Any) -> Any:
    """Return what an annotation is another name for, or a mark on; `None` if it is neither."""
    origin = typing.get_origin(annotation)
    if origin in MARKS:
        return typing.get_args(annotation)[0]
    if isinstance(annotation, typing.NewType):
        return annotation.__supertype__
    if hasattr(origin or annotation, "__value__"):  # type X = …, perhaps with parameters
        value = (origin or annotation).__value__
        return value[typing.get_args(annotation)] if origin else value
    return None


def _is_limit(metadata: Any) -> bool:
    if isinstance(metadata, msgspec.Meta):
        return any(getattr(metadata, name) is not None for name in LIMITS)
    return is_constraint(metadata) and _name(metadata) not in _READING | _OTHERS


def _name(metadata: Any) -> str:
    return (metadata if isinstance(metadata, type) else type(metadata)).__name__


@lru_cache(maxsize=512)
def _fields(kind: Any, arguments: tuple[Any, ...]) -> dict[str, Any] | None:
    if pydantic_models.is_model_class(kind) or pydantic_models.is_dataclass(kind):
        return None
    return fields_of(kind, arguments)


# -- the walk ------------------------------------------------------------------------------------


def _breach(
    value: Any, annotation: Any, path: str, above: frozenset[tuple[int, object]]
) -> Breach | None:
    if not _may_break(annotation):
        return None
    if (found := _breach_here(value, annotation)) is not None:
        return found._replace(path=path + found.path)
    if (inner := _inner(annotation)) is not None:
        return _breach(value, inner, path, above)
    if typing.get_origin(annotation) in UNIONS:
        return _breach_of_all(value, typing.get_args(annotation), path, above)
    place = id(value), typing.get_origin(annotation) or annotation
    if place in above:  # the value refers back to itself
        return None
    for step, part, of in _parts(value, annotation):
        if (found := _breach(part, of, path + step, above | {place})) is not None:
            return found
    return None


def _may_break(annotation: object) -> bool:
    try:
        return has_limits(annotation)
    except Exception:  # a field's type is unknown at run time
        return False


def _breach_of_all(
    value: object, kinds: tuple[Any, ...], path: str, above: frozenset[tuple[int, object]]
) -> Breach | None:
    """Return how a value breaks all members of a union that it may belong to."""
    first = None
    for kind in kinds:
        if _may_be(value, kind):
            found = _breach(value, kind, path, above)
            if found is None:
                return None
            first = first or found
    return first


def _may_be(value: object, annotation: object) -> bool:
    for kind, arguments in members(annotation):
        if kind is typing.Literal:
            return value in arguments
        if kind is None:
            return value is None
        if isinstance(kind, type) and not is_limited_class(kind):
            return isinstance(
                value, _INSTANCES.get(kind, dict if typing.is_typeddict(kind) else kind)
            )
    return True


_INSTANCES: dict[object, Any] = {float: (float, int)}


def _parts(value: Any, annotation: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the parts of a value: the step to each, itself, its annotation."""
    kind, arguments = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if fields := _fields(kind, arguments):
        found = value if typing.is_typeddict(kind) else _attributes(value, kind, fields)
        if isinstance(found, Mapping):
            yield from ((step_to(n), found[n], of) for n, of in fields.items() if n in found)
    elif _is_generic(kind, Mapping) and len(arguments) == 2 and isinstance(value, Mapping):
        for key, each in value.items():
            yield "", key, arguments[0]
            yield step_to(key), each, arguments[1]
    elif (_is_generic(kind, Iterable) and len(arguments) == 1) or arguments[1:] == (...,):
        if isinstance(value, Collection):  # what can be gone through only once is left alone
            yield from ((f"[{at}]", each, arguments[0]) for at, each in enumerate(value))
    elif kind is tuple and isinstance(value, tuple):
        for at, (each, of) in enumerate(zip(value, arguments, strict=False)):
            yield f"[{at}]", each, of


def _is_generic(kind: object, of: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, of)


def _attributes(value: object, kind: type, names: Mapping[str, object]) -> dict[str, object]:
    if not isinstance(value, kind):
        return {}
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


# -- one part ------------------------------------------------------------------------------------


def _breach_here(value: object, annotation: Any) -> Breach | None:
    """Return how a value as a whole breaks what stands at the top of its annotation."""
    if typing.get_origin(annotation) is not typing.Annotated:
        is_limit = isinstance(annotation, type) and is_limited_class(annotation)
        return _judged_by_pydantic(value, annotation) if is_limit else None
    limits = [each for each in annotation.__metadata__ if _is_limit(each)]
    own = [each for each in limits if isinstance(each, msgspec.Meta)]
    if len(own) < len(limits):
        kept = [each for each in annotation.__metadata__ if _name(each) not in _READING]
        judged = typing.Annotated[(annotation.__origin__, *kept)]
        if (found := _judged_by_pydantic(value, judged)) is not None:
            return found
    is_union = typing.get_origin(annotation.__origin__) in UNIONS
    for meta in own:
        if (fault := _fault(value, meta, is_lenient=is_union)) is not None:
            return Breach("", fault, value)
    return None


def _judged_by_pydantic(value: object, annotation: object) -> Breach | None:
    try:
        _validator(annotation)([value])
    except Exception as error:  # a validator may raise anything
        if not pydantic_models.faults_of(error):
            return Breach("", f"{type(error).__name__}: {error}", value)
        return Breach(*pydantic_models.first_fault(error))
    return None


def _validator(annotation: object) -> Callable[[Any], Any]:
    try:
        return _known_validator(annotation)
    except TypeError:
        return pydantic_models.item_judge(for_pydantic(annotation))


_known_validator = lru_cache(maxsize=256)(
    lambda annotation: pydantic_models.item_judge(for_pydantic(annotation))
)


def _fault(value: Any, meta: msgspec.Meta, *, is_lenient: bool) -> str | None:
    """Return the constraint that a value breaks; one for another type of a union is passed over."""
    for name, (keeps, words) in _RULES.items():
        limit = getattr(meta, name)
        if limit is None:
            continue
        try:
            is_kept = keeps(value, limit)
        except Exception:  # the value's type can't have this constraint
            is_kept = is_lenient
        if not is_kept:
            return f"Expected {words} {limit!r}"
    return None


_RULES: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "gt": (lambda value, limit: value > limit, "a value >"),
    "ge": (lambda value, limit: value >= limit, "a value >="),
    "lt": (lambda value, limit: value < limit, "a value <"),
    "le": (lambda value, limit: value <= limit, "a value <="),
    "multiple_of": (lambda value, limit: value % limit == 0, "a multiple of"),
    "pattern": (lambda value, limit: bool(re.search(limit, value)), "text that matches"),
    "min_length": (lambda value, limit: len(value) >= limit, "a length >="),
    "max_length": (lambda value, limit: len(value) <= limit, "a length <="),
    "tz": (lambda value, limit: (value.tzinfo is not None) is limit, "a time zone:"),
}
