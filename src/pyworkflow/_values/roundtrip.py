"""Where a value can't be stored, and where a stored value differs from its original.

Both walk through a value in Python, one node at a time, and say a path such as ``$.items[2].at``.
They are for messages, and for tests that compare strictly; the codec's usual way never comes here.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec

from pyworkflow._values import pydantic_models
from pyworkflow._values.paths import shown, step_to

PlainForm = Callable[[object], object]

_DEEPEST = 200
_REMEDY = "annotate the return type of the step or workflow that makes it"


_PLAIN = {str, int, bool, type(None)}


def find_stumble(value: object, plain_form: PlainForm) -> tuple[str, str] | None:
    """Return the path and the reason of the first part that JSON can't represent, if there is one.

    ``plain_form`` gives the JSON form of a value that msgspec does not know, or raises.
    """
    return _Walk(plain_form).visit(value, "$", ())


def lossless(value: object, decoded: object) -> str | None:
    """Return where and how ``decoded`` differs from the ``value`` that was stored, `None` if equal.

    Types count: a tuple is not a list, the key 1 is not "1", and 1 is not True. But an int may come
    back as an equal float: only an annotation makes it one, and one that says float allows both.
    Values nested too deep for Python to walk through count as equal.
    """
    if type(value) in _PLAIN and type(value) is type(decoded) and value == decoded:
        return None
    try:
        return _difference(value, decoded, "$")
    except RecursionError:
        return None


class _Walk:
    def __init__(self, plain_form: PlainForm) -> None:
        self._encode = msgspec.json.Encoder(enc_hook=plain_form).encode
        self._plain_form = plain_form

    def visit(self, value: object, path: str, above: tuple[int, ...]) -> tuple[str, str] | None:
        if id(value) in above:
            return path, "refers back to a value that contains it; store an id there instead"
        if len(above) >= _DEEPEST:
            return path[:60] + "…", f"is nested deeper than {_DEEPEST} levels; store it flatter"
        above = (*above, id(value))
        match value:
            case Enum():
                return self.visit(value.value, path, above)
            case dict():
                if fault := self._keys(value, path):
                    return fault
        children = _children(value)
        if children is None:
            return self._leaf(value, path, above)
        for step, child in children:
            if found := self.visit(child, path + step, above):
                return found
        return None

    def _keys(self, value: dict[Any, Any], path: str) -> tuple[str, str] | None:
        texts: dict[str, object] = {}
        for key in value:
            plain = key.value if isinstance(key, Enum) else key
            if isinstance(plain, (float, Decimal)) and not math.isfinite(plain):
                return path, f"has the key {key!r}; JSON has no NaN or infinity"
            try:
                (text,) = msgspec.json.decode(self._encode({key: 0}))
            except Exception as error:
                return path, f"has the key {shown(key)} ({error}); use str keys"
            if text in texts:
                return path, f"has the keys {texts[text]!r} and {key!r}; as JSON both are {text!r}"
            texts[text] = key
        return None

    def _leaf(self, value: object, path: str, above: tuple[int, ...]) -> tuple[str, str] | None:
        match value:
            case None | bool():
                return None
            case float() if not math.isfinite(value):
                return path, f"is {value!r}; JSON has no NaN or infinity; store None or text"
            case datetime.datetime() | datetime.time():
                offset = value.utcoffset()
                if offset is not None and offset.total_seconds() % 60:
                    return path, f"is {value} with seconds in its UTC offset; convert it to UTC"
                return None
        try:
            msgspec.json.decode(msgspec.json.encode(value))
        except TypeError:
            return self._unknown(value, path, above)
        except Exception as error:
            return path, f"is {shown(value)} ({error})"
        return None

    def _unknown(self, value: object, path: str, above: tuple[int, ...]) -> tuple[str, str] | None:
        try:
            plain = self._plain_form(value)
        except Exception as error:
            return path, f"is of type {type(value).__qualname__} ({error})"
        return self.visit(plain, path, above)


def _children(value: object) -> Iterator[tuple[str, object]] | None:
    match value:
        case dict():
            return ((step_to(key), each) for key, each in value.items())
        case list() | tuple() | set() | frozenset():
            return ((f"[{at}]", each) for at, each in enumerate(value))
    names = field_names(type(value))
    if names is None:
        return None
    fields = ((name, getattr(value, name, msgspec.UNSET)) for name in names)
    return ((f".{name}", each) for name, each in fields if each is not msgspec.UNSET)


def field_names(kind: Any) -> tuple[str, ...] | None:
    """Return the names of the fields that instances of a class have, `None` if it has no fields."""
    if issubclass(kind, msgspec.Struct):
        return tuple(kind.__struct_fields__)
    if hasattr(kind, "__dataclass_fields__"):
        return tuple(each.name for each in dataclasses.fields(kind))
    if hasattr(kind, "__attrs_attrs__"):
        return tuple(each.name for each in kind.__attrs_attrs__)
    return None


def _difference(value: Any, decoded: Any, path: str) -> str | None:
    if type(value) is not type(decoded):
        if type(value) is int and type(decoded) is float and value == decoded:
            return None
        return (
            f"{path}: {type(value).__qualname__} came back as {type(decoded).__qualname__}; "
            f"{_REMEDY}"
        )
    match value:
        case dict():
            return _dict_difference(value, decoded, path)
        case list() | tuple():
            if len(value) != len(decoded):
                return f"{path}: {len(value)} items came back as {len(decoded)}"
            pairs = zip(value, decoded, strict=True)
            each = (_difference(a, b, f"{path}[{at}]") for at, (a, b) in enumerate(pairs))
            return next(filter(None, each), None)
        case set() | frozenset():
            # Equal elements of another type (1 and True) are found through the set's own equality.
            return _dict_difference({a: a for a in value}, {b: b for b in decoded}, path)
    names = field_names(type(value))
    if names is None and pydantic_models.is_model(value):
        return _dict_difference(vars(value), vars(decoded), path)
    if names is None:
        return None if _same_leaf(value, decoded) else f"{path}: {value!r} came back as {decoded!r}"
    fields = ((name, getattr(value, name, None), getattr(decoded, name, None)) for name in names)
    return next(filter(None, (_difference(a, b, f"{path}.{name}") for name, a, b in fields)), None)


def _dict_difference(value: dict[Any, Any], decoded: dict[Any, Any], path: str) -> str | None:
    theirs = {key: key for key in decoded}
    for key, each in value.items():
        if key not in theirs or type(theirs[key]) is not type(key):
            return f"{path}: {key!r} came back as another value or type; {_REMEDY}"
        if found := _difference(each, decoded[key], path + step_to(key)):
            return found
    if len(value) != len(decoded):
        return f"{path}: {len(value)} entries came back as {len(decoded)}"
    return None


def _same_leaf(value: Any, decoded: Any) -> bool:
    match value:
        case float():
            return repr(value) == repr(decoded)
        case Decimal():
            return str(value) == str(decoded)
        case Enum():
            return value is decoded
        case datetime.datetime() | datetime.time():
            return bool(value == decoded) and value.utcoffset() == decoded.utcoffset()
    return bool(value == decoded)
