"""The path of a value that does not fit is found without a look at any library's words."""

from __future__ import annotations

import dataclasses
import datetime
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Generic, NewType, TypeVar

import msgspec
import pydantic
import pytest

from pyworkflow._values.codec import decode
from pyworkflow._values.misfits import Text, find_misfit
from pyworkflow.errors import SerializationError

T = TypeVar("T")
Cents = NewType("Cents", int)


class Line(msgspec.Struct, rename="camel"):
    unit_price: int
    tags: list[str] = []


@dataclasses.dataclass
class Order:
    id: str
    lines: list[Line]
    placed: datetime.date | None = None
    shares: Mapping[str, float] = dataclasses.field(default_factory=dict)


class Box(msgspec.Struct, Generic[T]):
    content: T
    others: list[T] = []


class Cat(msgspec.Struct, tag="cat"):
    lives: int


class Dog(msgspec.Struct, tag="dog"):
    name: str


class Flat(msgspec.Struct, array_like=True, tag="flat"):
    x: int
    y: int


class Place(typing.NamedTuple):
    x: int
    y: int


class Address(typing.TypedDict):
    street: str
    number: typing.NotRequired[Annotated[int, msgspec.Meta(ge=1)]]


class Person(pydantic.BaseModel):
    name: str
    address: dict[str, int]


@pydantic.dataclasses.dataclass
class Parcel:
    weight: int


@dataclasses.dataclass
class Delivery:
    parcel: Parcel


class Tree(msgspec.Struct):
    below: list[Tree] = []


CASES: list[tuple[Any, str, str]] = [
    (int, '"x"', "$"),
    (list[int], '[1,"x"]', "$[1]"),
    (list[int], '{"a":1}', "$"),
    (Sequence[int], "[1,null]", "$[1]"),
    (set[int], '["x"]', "$[0]"),
    (frozenset[str], '["x",1]', "$[1]"),
    (tuple[int, ...], '[1,2,"x"]', "$[2]"),
    (tuple[int, str], "[1,2]", "$[1]"),
    (tuple[int, str], "[1]", "$"),
    (dict[str, list[int]], '{"a b":[1],"c":[2,"x"]}', "$.c[1]"),
    (dict[str, int], '{"a b":"x"}', "$['a b']"),
    (dict[int, str], '{"1":"a","x":"b"}', "$"),
    (list[dict[int, str]], '[{"1":"a"},{"x":"b"}]', "$[1]"),
    (dict[datetime.date, int], '{"2024-01-01":"x"}', "$['2024-01-01']"),
    (Order, '{"id":"a","lines":[{"unitPrice":1},{"unitPrice":"x"}]}', "$.lines[1].unitPrice"),
    (Order, '{"id":"a","lines":[{"unitPrice":1,"tags":["a",2]}]}', "$.lines[0].tags[1]"),
    (Order, '{"id":"a","lines":[{}]}', "$.lines[0]"),
    (Order, '{"id":"a","lines":[],"placed":"x"}', "$.placed"),
    (Order, '{"id":"a","lines":[],"shares":{"me":"x"}}', "$.shares.me"),
    (Order | None, '{"id":1,"lines":[]}', "$.id"),
    (list[Order] | Order, '[{"id":1,"lines":[]}]', "$[0].id"),
    (typing.Optional[list[int]], '["x"]', "$[0]"),  # noqa: UP045
    (Box[int], '{"content":1,"others":[1,"x"]}', "$.others[1]"),
    (Box[list[int]], '{"content":["x"]}', "$.content[0]"),
    (Box[Box[int]], '{"content":{"content":"x"}}', "$.content.content"),
    (Cat | Dog, '{"type":"dog","name":1}', "$.name"),
    (Cat | Dog, '{"type":"cat","lives":"x"}', "$.lives"),
    (Cat | Dog, '{"type":"cow"}', "$.type"),
    (Cat | Dog, '{"name":"x"}', "$"),
    (list[Cat], '[{"type":"dog"}]', "$[0].type"),
    (Flat, '["flat",1,"x"]', "$[2]"),
    (Flat, '["round",1,2]', "$[0]"),
    (Place, '[1,"x"]', "$[1]"),
    (dict[str, Place], '{"here":[1,"x"]}', "$.here[1]"),
    (Address, '{"street":1}', "$.street"),
    (Address, '{"street":"a","number":0}', "$.number"),
    (Address, "{}", "$"),
    (Annotated[list[Annotated[int, msgspec.Meta(ge=1)]], "a mark"], "[1,0]", "$[1]"),
    (Annotated[list[int], msgspec.Meta(max_length=1)], "[1,2]", "$"),
    (list[Cents], '["x"]', "$[0]"),
    (Delivery, '{"parcel":{"weight":"x"}}', "$.parcel"),
    (list[Parcel], '[{"weight":"x"}]', "$"),
    (list[Person], '[{"name":"a","address":{}},{"name":1,"address":{}}]', "$[1]"),
    (Person | None, '{"name":1}', "$"),
    (list[complex], "[1]", "$[0]"),
    (Tree, '{"below":' * 9 + "[1]" + "}" * 9, "$.below"),
    (Tree, '{"below":[{"below":[{"below":[5]}]}]}', "$.below[0].below[0].below[0]"),
    (list[int], "[1", "$"),
    (list[int], "", "$"),
]


@pytest.mark.parametrize(("annotation", "text", "path"), CASES)
def test_the_path_leads_to_the_smallest_part_that_does_not_fit(
    annotation: Any, text: str, path: str
) -> None:
    with pytest.raises(SerializationError) as caught:
        decode(text or "[", annotation, what="the result")
    assert caught.value.path == path
    assert f" at {path}. Correct" in str(caught.value)
    assert " - at " not in str(caught.value)


@pytest.mark.parametrize(("annotation", "text", "path"), CASES)
def test_no_word_of_a_library_is_needed(annotation: Any, text: str, path: str) -> None:
    def read(part: Text, kind: object) -> object:
        try:
            return decode(part if isinstance(part, str) else part.decode(), kind, what="a part")
        except SerializationError:
            raise ValueError("- at `$.elsewhere`") from None

    with pytest.raises(ValueError, match="elsewhere") as caught:
        read(text.encode() or b"[", annotation)
    assert find_misfit(text.encode(), annotation, caught.value, read).path == path
