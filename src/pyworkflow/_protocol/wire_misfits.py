"""Errors for messages that do not fit the protocol: they name the key and never show the value.

A value may be a user's payload. So the error's text comes from a walk of our own and not from the
decoder, whose texts may quote values and change with its releases. The walk descends into the value
and its type side by side, to the smallest part that can't be read. It runs only after decoding has
failed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

import msgspec

from pyworkflow.errors import ServiceError

_EXPECTED = {
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple: "a list",
}


class MisfitError(ServiceError):
    """A message does not fit the protocol."""


def misfit_error(value: Any, kind: Any, what: str) -> MisfitError:
    """Return the error for ``value``, which can't be read as a ``kind``.

    ``what`` begins the message: who sent what.
    """
    path, value, kind = _smallest_misfit(what, value, _without_none(kind))
    if missing := _missing(value, kind):
        return MisfitError(f"{path} without {', '.join(missing)}, which each one has")
    return MisfitError(
        f"{path}: expected {_expected(kind)}; if the protocol has changed, a newer version of this "
        "library may know its new form"
    )


def _smallest_misfit(path: str, value: Any, kind: Any) -> tuple[str, Any, Any]:
    for step, part, part_kind in _parts(value, kind):
        try:
            msgspec.convert(part, part_kind)
        except msgspec.ValidationError:
            return _smallest_misfit(path + step, part, _without_none(part_kind))
    return path, value, kind


def _parts(value: Any, kind: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the parts that are present: the next step of the path, the part and its type."""
    if _is_object(value, kind):
        for field in msgspec.structs.fields(kind):
            part = value.get(field.encode_name)
            if part is not None:
                yield f".{field.encode_name}", part, field.type
    elif get_origin(kind) is tuple and isinstance(value, (list, tuple)):
        for number, part in enumerate(value):
            yield f"[{number}]", part, get_args(kind)[0]


def _missing(value: Any, kind: Any) -> list[str]:
    """Return the required keys that an object lacks; null counts as missing."""
    if not _is_object(value, kind):
        return []
    required = (field.encode_name for field in msgspec.structs.fields(kind) if field.required)
    return [key for key in required if value.get(key) is None]


def _is_object(value: Any, kind: Any) -> bool:
    is_struct = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    return is_struct and isinstance(value, Mapping)


def _expected(kind: Any) -> str:
    kind = getattr(kind, "__origin__", kind)  # of a type with a range, or of a list
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"one of {', '.join(sorted(member.value for member in kind))}"
    return _EXPECTED.get(kind, "an object")


def _without_none(kind: Any) -> Any:
    if not isinstance(kind, UnionType):
        return kind
    (found,) = (each for each in get_args(kind) if each is not NoneType)
    return found
