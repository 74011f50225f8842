"""Pydantic models as values, for applications that use pydantic.

Pydantic is never imported here: an application that has a model has imported it, and one that has
none need not have it installed. Models are written by field name and read by name or alias, so that
differing aliases for reading and writing do no harm (pydantic 2.11 or later).
"""

from __future__ import annotations

import math
import sys
import typing
from collections.abc import Callable
from typing import Any

import msgspec

_MASK = "**********"


def is_model(value: object) -> bool:
    """Whether ``value`` is an instance of a pydantic model."""
    return is_model_class(type(value))


def is_model_class(kind: type) -> bool:
    """Whether ``kind`` is a pydantic model."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(kind, pydantic.BaseModel)


def is_dataclass(kind: type) -> bool:
    """Whether ``kind`` is a pydantic dataclass."""
    return "__is_pydantic_dataclass__" in vars(kind)


def mentions(annotation: object, matches: Callable[[type], bool]) -> bool:
    """Whether a class that ``matches`` is part of ``annotation``."""
    if isinstance(annotation, type) and not typing.get_args(annotation) and matches(annotation):
        return True
    return any(mentions(each, matches) for each in typing.get_args(annotation))


def dump(model: Any) -> object:
    """Return the JSON form of a model.

    Raises `TypeError` if it holds what pydantic would not write: a secret becomes a mask, and NaN
    or infinity null.
    """
    plain = model.model_dump(mode="json", by_alias=False, round_trip=True)
    if _contains(plain, lambda each: each is None or each == _MASK):
        exact = model.model_dump(by_alias=False, round_trip=True)
        for is_lost, fault in _LOST.items():
            if _contains(exact, is_lost):
                raise TypeError(f"{type(model).__qualname__} holds {fault}")
    return plain


def load(kind: Any, plain: object) -> object:
    """Return the model of class ``kind`` that was written as ``plain``.

    It is validated as JSON, where a strict model accepts text for a date.
    """
    return kind.model_validate_json(msgspec.json.encode(plain), by_alias=True, by_name=True)


class Adapter:
    """Reads JSON text into a type that pydantic understands better than msgspec."""

    __slots__ = ("_adapter",)

    def __init__(self, annotation: object) -> None:
        self._adapter = sys.modules["pydantic"].TypeAdapter(annotation)

    def __call__(self, text: bytes | str) -> object:
        return self._adapter.validate_json(text, by_alias=True, by_name=True)


def faults_of(error: BaseException | None) -> list[tuple[str, str]]:
    """Return the path to each fault that pydantic found, and its words; none if it is not to blame.

    It is looked for in ``error`` and its causes.
    """
    pydantic = sys.modules.get("pydantic")
    while error is not None and not (pydantic and isinstance(error, pydantic.ValidationError)):
        error = error.__cause__
    if error is None:
        return []
    return [
        ("".join(map(_step_of_path, fault["loc"])), " ".join(fault["msg"].split()))
        for fault in typing.cast("Any", error).errors(include_url=False, include_context=False)
    ]


def _step_of_path(place: str | int) -> str:
    return f"[{place}]" if isinstance(place, int) else f".{place}"


_LOST: dict[Callable[[object], bool], str] = {
    lambda each: hasattr(type(each), "get_secret_value"): f"a secret, which is written as {_MASK}",
    lambda each: isinstance(each, float) and not math.isfinite(each): "NaN or infinity",
}


def _contains(value: object, matches: Callable[[object], bool]) -> bool:
    match value:
        case dict():
            return any(_contains(each, matches) for each in value.values())
        case list() | tuple() | set() | frozenset():
            return any(_contains(each, matches) for each in value)
    return matches(value)
