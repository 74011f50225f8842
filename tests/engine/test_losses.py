"""What would come back different is refused when it is recorded; what is only spelled differently
comes back."""

from __future__ import annotations

import collections
import dataclasses
import functools
import sys
import threading
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import (
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    NotRequired,
    TypedDict,
    TypeVar,
)
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pydantic.dataclasses
import pytest

from pyworkflow._values.codec import decode, encode, roundtrip
from pyworkflow._values.losses import find_loss
from pyworkflow.errors import SerializationError

T = TypeVar("T")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@dataclasses.dataclass
class Msg:
    author: str


@dataclasses.dataclass
class ToolMsg(Msg):
    tool: str = ""


@dataclasses.dataclass
class SameMsg(Msg):
    """A subclass without a field of its own."""


@dataclasses.dataclass
class Thread:
    first: Msg
    others: list[Msg] = dataclasses.field(default_factory=list)
    by_name: dict[str, Msg | None] = dataclasses.field(default_factory=dict)
    pair: tuple[int, Msg] | None = None
    any: Any = None


@dataclasses.dataclass
class Shout:
    text: str

    def __post_init__(self) -> None:
        self.text += "!"


@dataclasses.dataclass
class Upper:
    text: str

    def __post_init__(self) -> None:
        self.text = self.text.upper()


@dataclasses.dataclass
class Counter:
    name: str
    count: int = dataclasses.field(default=0, init=False)


@dataclasses.dataclass
class Uncompared:
    name: str
    text: Shout = dataclasses.field(compare=False)


@dataclasses.dataclass(eq=False)
class ById:
    name: str
    other: Shout | None = None


@dataclasses.dataclass
class Cached:
    items: list[int]

    @functools.cached_property
    def total(self) -> int:
        return sum(self.items)


@dataclasses.dataclass
class WithState:
    name: str

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.key = self.name.upper()
        self.look = self.find

    def find(self) -> str:
        return self.key


@dataclasses.dataclass(slots=True)
class Slotted:
    name: str


class SlottedMore(Slotted):
    __slots__ = ("extra",)


@dataclasses.dataclass
class OfAll:
    limit: ClassVar[int] = 5
    name: str = ""


@dataclasses.dataclass
class Alike(Shout):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment] # it defines __eq__


class Extra:
    __slots__ = ("extra",)


@dataclasses.dataclass
class OnSlots(Extra):
    name: str


@dataclasses.dataclass
class Box(Generic[T]):
    content: T


class Cat(msgspec.Struct):
    name: str


class Lion(Cat):
    teeth: int = 0


class Line(msgspec.Struct, rename="camel", omit_defaults=True, eq=False):
    unit_price: float = 1.0
    inner: Shout | None = None


class Dog(msgspec.Struct, tag=True):
    name: str


class Row(msgspec.Struct, array_like=True):
    a: int
    b: Any = None


class Point(NamedTuple):
    x: int
    y: Any = None


class NamedPoint(Point):
    name = "a class of its own"


class Movie(TypedDict):
    title: str
    note: NotRequired[str]


class LongMovie(Movie):
    hours: int


class Colour(Enum):
    RED = "red"


class Paint(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    A = "a"


class Name(str):
    __slots__ = ()


class Part(pydantic.BaseModel):
    name: str


class ToolPart(Part):
    tool: str = ""


class Holder(pydantic.BaseModel):
    part: Part | None = None
    parts: list[Part] = []


class Hidden(pydantic.BaseModel):
    name: str
    token: str = pydantic.Field("none", exclude=True)


class Yearly(pydantic.BaseModel):
    when: datetime

    @pydantic.field_serializer("when")
    def year(self, when: datetime) -> str:
        return when.strftime("%Y-01-01T00:00:00Z")


class Rounding(pydantic.BaseModel):
    price: Annotated[float, pydantic.PlainSerializer(round, return_type=int)]


class Private(pydantic.BaseModel):
    name: str
    _secret: str = pydantic.PrivateAttr(default="none")
    _lock: Any = pydantic.PrivateAttr(default_factory=threading.Lock)


class Doubling(pydantic.BaseModel):
    n: int

    @pydantic.field_validator("n")
    @classmethod
    def double(cls, n: int) -> int:
        return n * 2


class Stripping(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, str_strip_whitespace=True, extra="allow")
    name: str = pydantic.Field("x", validation_alias="in", serialization_alias="out")

    @pydantic.computed_field  # type: ignore[prop-decorator] # as pydantic documents it
    @functools.cached_property
    def size(self) -> int:
        return len(self.name)


class Crate(pydantic.BaseModel, Generic[T]):
    content: T


class Tags(pydantic.RootModel[list[str]]):
    pass


class Choice(pydantic.BaseModel):
    when: date | str | None = None
    times: dict[str, list[date | str]] = {}


class Unreadable(pydantic.BaseModel):
    name: str
    token: str = pydantic.Field(exclude=True)


class Written(pydantic.BaseModel):
    name: str
    token: str = pydantic.Field("none", exclude=True)

    @pydantic.model_serializer
    def write(self) -> dict[str, str]:
        return {"called": self.name}


@pydantic.dataclasses.dataclass
class Parcel:
    weight: int
    label: str = ""


@pydantic.dataclasses.dataclass
class HeavyParcel(Parcel):
    stairs: int = 0


def with_attribute(value: Any, name: str = "extra", given: object = 1) -> Any:
    object.__setattr__(value, name, given)
    return value


def private(secret: str) -> Private:
    model = Private(name="a")
    model._secret = secret
    return model


def cached(value: Any, name: str) -> Any:
    getattr(value, name)
    return value


def counted(count: int) -> Counter:
    counter = Counter("a")
    counter.count = count
    return counter


def slotted_more() -> SlottedMore:
    value = SlottedMore("a")
    object.__setattr__(value, "extra", 1)
    return value


REFUSED: list[tuple[Any, Any, str]] = [
    # instances of subclasses
    (ToolMsg("me"), Msg, "$"),
    (SameMsg("me"), Msg, "$"),
    ([ToolMsg("me")], list[Msg], "$[0]"),
    ({"a": (1, [ToolMsg("me")])}, dict[str, tuple[int, list[Msg]]], "$.a[1][0]"),
    (ToolMsg("me"), Msg | None, "$"),
    (Thread(ToolMsg("me")), Thread, "$.first"),
    (Thread(Msg("a"), [Msg("b"), ToolMsg("c")]), Thread, "$.others[1]"),
    (Thread(Msg("a"), by_name={"x": ToolMsg("c")}), Thread, "$.by_name.x"),
    (Thread(Msg("a"), pair=(1, ToolMsg("c"))), Thread, "$.pair[1]"),
    (Box(ToolMsg("me")), Box[Msg], "$.content"),
    (slotted_more(), Slotted, "$"),
    (Lion("leo", 30), Cat, "$"),
    ([Lion("leo")], Sequence[Cat], "$[0]"),
    ({"a": Lion("leo")}, Mapping[str, Cat], "$.a"),
    (NamedPoint(1), Point, "$"),
    ([(NamedPoint(1),)], list[tuple[Point]], "$[0][0]"),
    (LongMovie(title="x", hours=9), Movie, "$"),
    ([{"title": "x", "stars": 5}], list[Movie], "$[0]"),
    (ToolPart(name="a", tool="t"), Part, "$"),
    ([ToolPart(name="a")], list[Part], "$[0]"),
    (Holder(part=ToolPart(name="a")), Holder, "$.part"),
    (Holder(parts=[ToolPart(name="a")]), Holder, "$.parts[0]"),
    (HeavyParcel(weight=1), Parcel, "$"),
    # another class altogether
    (Cat("a"), Dog, "$"),
    (Cat("a"), Box[Any], "$"),
    (Colour.RED, Paint, "$"),
    # code that changes what it reads or writes
    (Shout("a"), Shout, "$.text"),
    ([{"a": Shout("a")}], list[dict[str, Shout]], "$[0].a.text"),
    (Line(inner=Shout("a")), Line, "$.inner.text"),
    (ById("a", Shout("b")), ById, "$.other.text"),
    ([Alike("a")], list[Alike], "$[0].text"),
    ({"a": Alike("a")}, dict[str, Alike], "$.a.text"),
    (Uncompared("a", Shout("b")), Uncompared, "$.text.text"),
    (Doubling.model_construct(n=4), Doubling, "$.n"),
    (Yearly(when=NOON), Yearly, "$.when"),
    (Rounding(price=1.5), Rounding, "$.price"),
    ("a", Annotated[str, pydantic.AfterValidator(str.upper)], "$"),
    (5, Annotated[int, pydantic.BeforeValidator(lambda n: n + 1)], "$"),
    (None, Annotated[int, pydantic.BeforeValidator(lambda n: n or 0)], "$"),
    # what is not stored
    (Hidden(name="a", token="T"), Hidden, "$.token"),
    (Hidden(name="a", token="T"), Any, "$"),
    ([Hidden(name="a", token="T")], dict[str, Any] | list[Any], "$[0]"),
    (private("T"), Private, "$._secret"),
    (with_attribute(Msg("a")), Msg, "$"),
    (with_attribute(Stripping(name="a"), "__dict__", {"name": "a", "more": 1}), Stripping, "$"),
    (with_attribute(WithState("a"), "key", "other"), WithState, "$.key"),
    (with_attribute(OnSlots("a")), OnSlots, "$"),
    ([Unreadable(name="a", token="T")], list[Unreadable], "$[0]"),
    # text that another member of a union takes
    (Choice(when="2026-01-01"), Choice, "$.when"),
    ([Choice(times={"a": ["2026-01-01"]})], list[Choice], "$[0].times.a[0]"),
    # items
    ([1, 1], set[int], "$"),
    (2**53 + 1, float, "$"),
    ({"id": "a", "extra": 1}, Cat, "$"),
    ({"author": "a", "extra": 1}, Msg, "$"),
    ({"name": "a", "limit": 1}, OfAll, "$"),
    ({"name": "a", "extra": 1}, Part, "$"),
    ([Msg("a"), Hidden(name="a", token="T")], list[Any], "$[1]"),
]


@pytest.mark.parametrize(("value", "annotation", "path"), REFUSED)
def test_what_would_come_back_different_is_refused_with_its_path(
    value: Any, annotation: Any, path: str
) -> None:
    with pytest.raises(SerializationError) as caught:
        roundtrip(value, annotation, what="the result of step 's'")
    assert caught.value.path == path
    assert "the result of step 's' " in str(caught.value).lower()


EQUAL: list[tuple[Any, Any]] = [
    # containers and scalars of another kind
    ((1, 2), list[int]),
    ([1, 2], tuple[int, ...]),
    ((1, "a"), Sequence[Any]),
    ({1, 2}, list[int]),
    ([1, 2], set[int]),
    ([3, 1], frozenset[int]),
    (frozenset({1}), set[int]),
    (collections.OrderedDict(a=1), dict[str, int]),
    (collections.Counter("aab"), dict[str, int]),
    ([1], Sequence[float]),
    (5, float),
    ([5], list[float | None]),
    (5, Decimal),
    (1.5, Decimal),
    (True, bool),
    (-0.0, float),
    (Decimal("1.50"), Decimal),
    (Decimal("1E+5"), Decimal),
    (Decimal("NaN"), Decimal),
    ([Decimal("-Infinity"), Decimal("sNaN12")], list[Decimal]),
    (NOON, datetime),
    (NOON.astimezone(ZoneInfo("Europe/Berlin")), datetime),
    (datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin")), datetime),
    (datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")), datetime),
    (NOON.astimezone(timezone(timedelta(hours=2))), datetime),
    (Word.A, str),
    (Level.LOW, int),
    (Name("n"), str),
    ("a", Word),
    ({Word.A: Level.LOW}, dict[str, int]),
    ({1: {2: "a"}}, dict[int, dict[int, str]]),
    ("red", Literal["red", "blue"]),
    # as plain JSON, where no more is asked for
    (Thread(ToolMsg("me"), any=ToolMsg("you")), Any),
    (Thread(Msg("me"), any=ToolMsg("you")), Thread),
    ([ToolMsg("me"), Lion("leo"), ToolPart(name="a"), Point(1)], list),
    ({"a": Shout("x"), 1: (2,)}, dict),
    (NOON, str),
    (uuid.UUID(int=1), str),
    (Colour.RED, str),
    (Msg("a"), dict[str, str]),
    (Hidden.model_validate({"name": "a"}), Any),
    (Written(name="a", token="T"), Any),
    (Tags(["a"]), Any),
    (Row(1), Any),
    (Dog("a"), Any),
    # from plain JSON
    ({"author": "me"}, Msg),
    ({"first": {"author": "me"}}, Thread),
    ({"name": "a"}, Cat),
    ({"unitPrice": 2}, Line),
    ({"type": "Dog", "name": "a"}, Dog),
    ({"name": "a"}, Part),
    ({"in": "a", "more": 1}, Stripping),
    ({"name": "a"}, Stripping),
    ({"weight": 1}, Parcel),
    (["a"], Tags),
    ([1, 2], Point),
    ([1, None], Row),
    ("2026-01-01", date),
    ("12.5", Decimal),
    ({"title": "a"}, Movie),
    # values that come back as they were
    (Upper("a"), Upper),
    (OfAll(), OfAll),
    (ById("a"), ById),
    (cached(Cached([1, 2]), "total"), Cached),
    (WithState("a"), WithState),
    (Slotted("a"), Slotted),
    (Counter("a"), Counter),
    (counted(3), Counter),
    (Line(), Line),
    (Line(2.0), Line),
    (Dog("a"), Dog),
    (Row(1, [2]), Row),
    (Point(1, {"a": None}), Point),
    (Movie(title="a"), Movie),
    (Box([Msg("a")]), Box[list[Msg]]),
    (Box(Box(1)), Box[Box[int]]),
    ([Box[int](1)], list[Box[int]]),
    (Choice(when=date(2026, 1, 1), times={"a": ["b", date(2026, 1, 1)]}), Choice),
    (OnSlots("a"), OnSlots),
    (with_attribute(Msg("a"), "_attrs_cached_hash"), Msg),
    ([Part(name="a"), ToolPart(name="b", tool="t")], list[Part | ToolPart]),
    (Holder(part=Part(name="a")), Holder),
    (Hidden.model_validate({"name": "a"}), Hidden),
    (Private(name="a"), Private),
    (Doubling.model_construct(n=0), Doubling),
    (cached(Stripping.model_validate({"in": " a "}), "size"), Stripping),
    (Stripping.model_validate({"in": "a", "more": {"b": 1}}), Stripping),
    (Part.model_construct(name="a"), Part),
    (Crate[int](content=1), Crate[int]),
    (Crate(content=1), Crate),
    (Crate[int](content=1), Crate),
    (Tags(["a"]), Tags),
    (Parcel(weight=1), Parcel),
    ("A", Annotated[str, pydantic.AfterValidator(str.upper)]),
]


@pytest.mark.parametrize(("value", "annotation"), EQUAL)
def test_what_is_only_spelled_differently_comes_back(value: Any, annotation: Any) -> None:
    text, typed = roundtrip(value, annotation, what="it")
    assert find_loss(typed, decode(text, annotation, what="it")) is None


# -- the remedy ----------------------------------------------------------------------------------


def remedy(value: Any, annotation: Any) -> str:
    with pytest.raises(SerializationError) as caught:
        roundtrip(value, annotation, what="it")
    return str(caught.value).partition(": $")[2]


def test_a_union_is_named_where_it_helps() -> None:
    value = [Part(name="a"), ToolPart(name="b", tool="t")]
    text = remedy(value, list[Part])
    assert "Annotate list[" in text
    assert "Part | " in text
    assert "ToolPart]" in text
    assert "or return an instance of Part itself" in text
    roundtrip(value, list[Part | ToolPart], what="it")
    assert "Annotate that field with " in remedy(Holder(part=value[1]), Holder)


def test_where_no_union_can_be_read_what_can_is_named() -> None:
    text = remedy([Msg("a"), ToolMsg("b")], list[Msg])
    assert "Annotate ToolMsg there, if it always is one" in text
    assert "msgspec Structs with tag=True" in text
    roundtrip([ToolMsg("b")], list[ToolMsg], what="it")


def test_other_remedies() -> None:
    assert "Make it a field that is stored" in remedy(private("T"), Private)
    assert "Make it a field that is stored" in remedy(with_attribute(Msg("a")), Msg)
    assert "Make it a field that is stored" in remedy(Hidden(name="a", token="T"), Hidden)
    assert "Make it a field that is stored" in remedy(Unreadable(name="a", token="T"), Unreadable)
    assert "leave unchanged what was stored" in remedy(Shout("a"), Shout)
    assert "Annotate int there" in remedy([2**53 + 1], list[float])
    assert "Annotate str alone there" in remedy(Choice(when="2026-01-01"), Choice)
    assert "Add them to the type" in remedy(LongMovie(title="x", hours=9), Movie)


# -- values that are sent ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Hidden(name="a", token="T"), "$"),
        ({"a": [Hidden(name="a", token="T")]}, "$.a[0]"),
        (Yearly(when=NOON), "$.when"),
        ([Yearly(when=NOON)], "$[0].when"),
        ({"a": [1, private("T")]}, "$.a[1]._secret"),
        (Shout("a"), "$.text"),
    ],
)
def test_what_its_own_class_would_read_differently_is_not_sent(value: Any, path: str) -> None:
    with pytest.raises(SerializationError) as caught:
        encode(value, what="the result of a callback")
    assert caught.value.path == path


@pytest.mark.parametrize(
    "value",
    [
        *(
            ToolMsg("a"),
            Thread(ToolMsg("a")).others,
            Upper("a"),
            Part(name="a"),
            Hidden.model_validate({"name": "a"}),
        ),
        *([Msg("a"), 1, None, "x"], {"a": {1: (NOON, Colour.RED)}}, {1, 2}, Point(1), Box(1)),
        cached(Cached([1]), "total"),
    ],
)
def test_what_can_be_sent(value: Any) -> None:
    assert encode(value, what="it")


# -- code of values ------------------------------------------------------------------------------


class Broken:
    def __eq__(self, other: object) -> bool:
        raise LookupError("no comparison")

    __hash__ = None  # type: ignore[assignment] # it defines __eq__


def test_what_can_not_be_compared_is_refused() -> None:
    loss = find_loss(Broken(), Broken())
    assert loss is not None
    assert "LookupError: no comparison" in loss.fault


class Plain:
    def __init__(self, **given: object) -> None:
        self.__dict__.update(given)


def test_objects_without_an_equality_of_their_own_are_compared_by_structure() -> None:
    def circle(n: int) -> Plain:
        found = Plain(n=n)
        found.__dict__["own"] = found
        return found

    assert find_loss(Plain(a=1), Plain(a=1)) is None
    assert find_loss(Plain(a=1), Plain(a=2)) is not None
    assert find_loss(circle(1), circle(1)) is None
    assert find_loss(circle(1), circle(2)) is not None
    assert find_loss(Plain(a=1), Msg("a")) is not None


def test_what_is_too_deep_to_walk_through_counts_as_equal() -> None:
    one: list[Any] = []
    other: list[Any] = []
    for _ in range(sys.getrecursionlimit()):
        one, other = [one], [other]
    assert find_loss(one, other) is None
