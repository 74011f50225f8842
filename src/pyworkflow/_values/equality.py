"""Which types are compared by ``==`` alone, so that looking into their values is not needed."""

from __future__ import annotations

import collections.abc
import datetime
import types
import typing
import uuid
from decimal import Decimal
from enum import Enum
from typing import Any

from pyworkflow._values.constraints import hints_of

BASES = (
    *(str, bytes, int, float, Decimal, uuid.UUID),
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta),
)
ATOMS = frozenset({*BASES, bool, types.NoneType})
"""Types whose own equality is enough."""

_CONTAINERS = frozenset({list, dict, tuple, set, frozenset})
_ORIGINS = frozenset(
    {
        *_CONTAINERS,
        *(collections.abc.Mapping, collections.abc.MutableMapping),
        *(collections.abc.Collection, collections.abc.Sequence, collections.abc.MutableSequence),
        *(collections.abc.Set, collections.abc.MutableSet),
        *(typing.Union, types.UnionType),
        *(typing.Required, typing.NotRequired),
    }
)


def is_told_by_equality(annotation: object) -> bool:
    """Whether what is read as this type consists of builtins and enums alone."""
    return _is_told(annotation, frozenset())


def _is_told(annotation: object, above: frozenset[object]) -> bool:
    """Do the same; ``above`` are the typed dicts in which ``annotation`` stands."""
    if annotation is Any or annotation is object or annotation is None:
        return True
    if isinstance(annotation, typing.NewType):
        return _is_told(annotation.__supertype__, above)
    origin = typing.get_origin(annotation)
    if isinstance(annotation, type) and origin is None:
        if typing.is_typeddict(annotation):
            if annotation in above:
                return True
            hints = hints_of(annotation)
            within = above | {annotation}
            return bool(hints) and all(_is_told(each, within) for each in hints.values())
        return annotation in ATOMS or annotation in _CONTAINERS or issubclass(annotation, Enum)
    if origin is typing.Literal:
        return True
    arguments = typing.get_args(annotation)
    if origin is typing.Annotated:
        return _is_told(arguments[0], above)
    return origin in _ORIGINS and all(each is ... or _is_told(each, above) for each in arguments)
