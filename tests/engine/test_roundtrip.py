from __future__ import annotations

import dataclasses
import math
import sys
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any, NamedTuple

import msgspec
import pydantic
import pytest

from pyworkflow._values.codec import roundtrip
from pyworkflow._values.roundtrip import lossless

NOON = datetime(2024, 2, 29, 12, 0, 0, 7, tzinfo=UTC)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    A = "a"


class Name(str):
    __slots__ = ()


class Point(NamedTuple):
    x: int
    y: float


@dataclasses.dataclass
class Order:
    id: str
    note: Any = None


class Line(msgspec.Struct):
    unit_price: float


class Other(pydantic.BaseModel):
    word: str


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"at": NOON}, "$.at: datetime came back as str; annotate the return type"),
        ([(1,)], "$[0]: tuple came back as list"),
        ({"a": {1: 2}}, "$.a: 1 came back as another value or type"),
        ({Word.A: 1}, "$: <Word.A: 'a'> came back as another value or type"),
        (Order("o"), "$: Order came back as dict"),
        ([Name("x")], "$[0]: Name came back as str"),
        (Level.LOW, "$: Level came back as int"),
    ],
)
def test_says_what_changed_without_an_annotation(value: Any, message: str) -> None:
    found = lossless(value, roundtrip(value, Any, what="it")[1])
    assert found is not None
    assert found.startswith(message)


@pytest.mark.parametrize(
    ("value", "decoded", "path"),
    [
        ([1], [True], "$[0]: int"),
        ([1.0], [1], "$[0]: float"),
        ([2**53 + 1], [2.0**53], "$[0]: int"),
        ([0.0], [-0.0], "$[0]: 0.0"),
        ([1], [1, 2], "$: 1 items"),
        ({"a": 1}, {"a": 1, "b": 2}, "$: 1 entries"),
        ({1}, {True}, "$: 1 came back"),
        ({1}, {1, 2}, "$: 1 entries"),
        ({(1, 2.0)}, {(1, 2)}, "$[(1, 2.0)][1]: float"),
        (Decimal("1.0"), Decimal("1.00"), "$: Decimal"),
        (Order("a", note=(1,)), Order("a", note=[1]), "$.note: tuple"),
        (Line(1.0), Line(2.0), "$.unit_price: 1.0"),
        (Other(word="a"), Other(word="b"), "$.word: 'a'"),
        (Colour.RED, Colour.BLUE, "$: <Colour.RED"),
        (NOON, NOON.astimezone(timezone(timedelta(hours=1))), "$: datetime"),
        (NOON.timetz(), time(12, 0, 0, 7), "$: datetime.time"),
        (b"a", b"b", "$: b'a'"),
        (Point(1, 2.0), Point(1, 3.0), "$[1]: 2.0"),
    ],
)
def test_compares_types_strictly(value: Any, decoded: Any, path: str) -> None:
    found = lossless(value, decoded)
    assert found is not None
    assert found.startswith(path)


@pytest.mark.parametrize("value", [[{1, (2, "a")}], Order("o"), Line(1.0), math.nan, {"a": {b"x"}}])
def test_equal_values_are_equal(value: Any) -> None:
    assert lossless(value, value) is None


def test_an_int_where_a_float_may_be_is_that_number() -> None:
    assert lossless([5, Line(2)], [5.0, Line(2.0)]) is None


class FakeAttrs:
    """As far as the walk is concerned, an attrs class."""

    __attrs_attrs__ = (msgspec.structs.fields(Line)[0],)

    def __init__(self, unit_price: object) -> None:
        self.unit_price = unit_price


def test_attrs_classes_are_walked_by_their_fields() -> None:
    found = lossless(FakeAttrs(1), FakeAttrs(True))
    assert found is not None
    assert found.startswith("$.unit_price: int")


def test_what_is_too_deep_to_walk_through_counts_as_equal() -> None:
    deep: list[Any] = []
    for _ in range(sys.getrecursionlimit()):
        deep = [deep]
    assert lossless(deep, [deep]) is None
    assert lossless([1, deep], ["1", deep]) is not None
