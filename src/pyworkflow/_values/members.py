"""The members of a class's instances: fields, and any state beside them."""

from __future__ import annotations

import functools
import operator
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from pyworkflow._values import pydantic_models
from pyworkflow._values.constraints import hints_of
from pyworkflow._values.equality import is_told_by_equality
from pyworkflow._values.roundtrip import field_names


class Fields(msgspec.Struct, frozen=True):
    """The members of a class's instances. ``stored`` maps names in JSON to those of fields.

    ``plain`` gets the fields that are compared by ``==``, `None` if there are none, and ``others``
    are those that are walked through. ``state`` gets all that an instance has, if ``==`` shows
    whether two of them are equal; it is `None` otherwise.
    """

    names: frozenset[str]
    plain: Callable[[Any], Any] | None
    others: tuple[str, ...]
    state: Callable[[Any], Any] | None
    slots: tuple[str, ...]
    stored: dict[str, str]
    is_model: bool
    may_be_text: frozenset[str]


def is_cached(kind: type, name: str) -> bool:
    """Whether an attribute can be made again, as the value of `functools.cached_property` can."""
    found = [vars(base).get(name) for base in kind.__mro__]
    return name in _NOTED or any(
        hasattr(each, "__get__") and not isinstance(each, types.MemberDescriptorType)
        for each in found
    )


# Set by typing in an instance made by ``Box[int](...)``, and attrs with ``cache_hash=True``.
_NOTED = ("__orig_class__", "_attrs_cached_hash")


@functools.lru_cache(maxsize=512)
def fields_of(kind: type) -> Fields | None:
    """Return what instances of a class consist of, `None` if it has no fields."""
    is_model = pydantic_models.is_model_class(kind)
    names: Iterable[str] | None = pydantic_models.fields_of(kind) if is_model else field_names(kind)
    if names is None:
        return None
    names = tuple(names)
    stored = {name: name for name in names}
    if issubclass(kind, msgspec.Struct):
        stored = dict(zip(kind.__struct_encode_fields__, names, strict=True))
        if tag_field := kind.__struct_config__.tag_field:
            stored[tag_field] = ""
    known = frozenset(names)
    hints = hints_of(kind)
    plain = tuple(name for name in names if is_told_by_equality(hints.get(name, kind)))
    others = tuple(name for name in names if name not in plain)
    own = slots_of(kind) if not is_model else ()
    slots = tuple(name for name in own if name not in known)
    state: Callable[[Any], Any] | None = None
    if not (others or slots or (is_model and pydantic_models.has_hidden_state(kind))):
        if not kind.__dictoffset__:
            state = operator.attrgetter(*plain) if plain else None
        elif not issubclass(kind, msgspec.Struct):
            state = operator.attrgetter("__dict__")
    return Fields(
        known,
        operator.attrgetter(*plain) if plain else None,
        others,
        state,
        slots,
        stored,
        is_model,
        frozenset(name for name in names if is_model and _takes_text_too(hints.get(name))),
    )


def _takes_text_too(annotation: Any) -> bool:
    """Whether a union in ``annotation`` has str beside what is text in JSON as well."""
    members = typing.get_args(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType) and str in members:
        return any(each not in _NOT_TEXT for each in members)
    return any(map(_takes_text_too, members))


_NOT_TEXT = (str, int, float, bool, types.NoneType)


def slots_of(kind: type) -> tuple[str, ...]:
    """Return the names of the slots of a class that is written in Python."""
    if issubclass(kind, msgspec.Struct):
        return ()
    found: list[str] = []
    for base in kind.__mro__:
        slots: Any = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name.startswith("__") and not name.endswith("__"):
                found.append(f"_{base.__name__.lstrip('_')}{name}")
            elif name not in ("__dict__", "__weakref__"):
                found.append(name)
    return tuple(found)


@functools.lru_cache(maxsize=512)
def state_of(kind: Any) -> Callable[[Any], Any] | None:
    """Return what gets all that an instance has, `None` if ``==`` would not compare it."""
    if issubclass(kind, tuple):
        hints = hints_of(kind)
        names = getattr(kind, "_fields", None)
        if names is None or kind.__dictoffset__ or kind.__eq__ is not tuple.__eq__:
            return None
        return tuple if all(is_told_by_equality(hints.get(name, kind)) for name in names) else None
    fields = fields_of(kind)
    return None if fields is None else fields.state
