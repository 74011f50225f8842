"""Which types are compared by ``==`` alone, so that looking into their values is not needed."""

from __future__ import annotations

import datetime
import types
import typing
import uuid
from decimal import Decimal
from enum import Enum
from typing import Any

BASES = (
    *(str, bytes, int, float, Decimal, uuid.UUID),
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta),
)
ATOMS = frozenset({*BASES, bool, types.NoneType})
"""Types whose own equality tells all."""

_CONTAINERS = frozenset({list, dict, tuple, set, frozenset})
_ORIGINS = _CONTAINERS | {typing.Union, types.UnionType}


def is_told_by_equality(annotation: object) -> bool:
    """Whether what is read as this type consists of builtins and enums alone."""
    if annotation is Any or annotation is object or annotation is None:
        return True
    origin = typing.get_origin(annotation)
    if isinstance(annotation, type) and origin is None:
        return annotation in ATOMS or annotation in _CONTAINERS or issubclass(annotation, Enum)
    if origin is typing.Literal:
        return True
    arguments = typing.get_args(annotation)
    if origin is typing.Annotated:
        return is_told_by_equality(arguments[0])
    return origin in _ORIGINS and all(
        each is ... or is_told_by_equality(each) for each in arguments
    )
