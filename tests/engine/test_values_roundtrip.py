"""Values through the codec and through a workflow: what comes back is equal, and of the same type.

A type is drawn together with its values, so that the containers nest as users nest them. In the
workflow each value passes a step, a child workflow and the result, live and replayed.
"""

from __future__ import annotations

import dataclasses
import math
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any, Generic, NamedTuple, Optional, TypedDict, TypeVar, Union

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyworkflow import SerializationError, WorkflowContext, step, workflow
from pyworkflow._values.codec import decode, lossless, roundtrip
from pyworkflow.aws.testing import MockDurableContext, create_test_handler

T = TypeVar("T")
Draw = st.DrawFn
Typed = tuple[Any, st.SearchStrategy[Any]]
"""A type and its values."""


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Word(StrEnum):
    A = "a"
    B = "b"


class Point(NamedTuple):
    x: int
    y: float
    at: date | None = None


class Movie(TypedDict):
    title: str
    years: list[int]


class Partial(TypedDict, total=False):
    note: str
    price: Decimal


@dataclasses.dataclass(frozen=True)
class Money:
    amount: Decimal
    currency: str = "EUR"


@dataclasses.dataclass
class Order:
    id: uuid.UUID
    lines: list[Money]
    tags: set[str]
    shipped: datetime | None = None
    size: tuple[int, int] = (0, 0)


class Line(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    unit_price: float
    colour: Colour = Colour.RED
    parent: Line | None = None


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    name: str


@dataclasses.dataclass
class Box(Generic[T]):
    content: T
    others: list[T]


class Crate(msgspec.Struct, Generic[T]):
    content: T


class Part(pydantic.BaseModel):
    name: str
    price: Decimal | None = None
    at: datetime | None = None


class Whole(pydantic.BaseModel):
    parts: list[Part]
    by_id: dict[str, Part]
    level: Level
    pair: tuple[int, str]
    code: uuid.UUID
    raw: Any = None


finite = st.floats(allow_nan=False, allow_infinity=False)
decimals = st.decimals(allow_nan=False, allow_infinity=False)
offsets = st.integers(-23 * 60, 23 * 60).map(lambda m: timezone(timedelta(minutes=m)))
moments = st.datetimes(
    datetime(2, 1, 1),  # noqa: DTZ001
    datetime(9998, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC) | offsets,
)
naive = st.datetimes()
durations = st.timedeltas(timedelta(days=-100_000), timedelta(days=100_000))
money = st.builds(Money, decimals, st.text(max_size=3))
parts = st.builds(Part, name=st.text(), price=st.none() | decimals, at=st.none() | moments)
lines = st.builds(Line, finite, st.sampled_from(Colour))

HASHABLE: list[Typed] = [
    (int, st.integers()),
    (str, st.text()),
    (bool, st.booleans()),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (Word, st.sampled_from(Word)),
    (date, st.dates()),
    (timedelta, durations),
    (Decimal, decimals),
    (uuid.UUID, st.uuids()),
    (bytes, st.binary()),
    (Point, st.builds(Point, st.integers(), finite, st.none() | st.dates())),
    (Money, money),
    (Line, st.builds(Line, finite, st.sampled_from(Colour), st.none() | lines)),
]
LEAVES: list[Typed] = [
    *HASHABLE,
    (float, finite),
    (datetime, moments),
    (datetime, naive),
    (time, st.times()),
    (Movie, st.fixed_dictionaries({"title": st.text(), "years": st.lists(st.integers())})),
    (Partial, st.fixed_dictionaries({}, optional={"note": st.text(), "price": decimals})),
    (
        Order,
        st.builds(
            Order,
            st.uuids(),
            st.lists(money, max_size=2),
            st.sets(st.text(), max_size=3),
            st.none() | moments,
            st.tuples(st.integers(), st.integers()),
        ),
    ),
    (Cat | Dog, st.builds(Cat, st.integers()) | st.builds(Dog, st.text())),
    (int | str | None, st.none() | st.integers() | st.text()),
    (Union[bool, list[int]], st.booleans() | st.lists(st.integers())),  # noqa: UP007
    (Part, parts),
    (
        Whole,
        st.builds(
            Whole,
            parts=st.lists(parts, max_size=2),
            by_id=st.dictionaries(st.text(), parts, max_size=2),
            level=st.sampled_from(Level),
            pair=st.tuples(st.integers(), st.text()),
            code=st.uuids(),
        ),
    ),
]
KEYS: list[Typed] = [HASHABLE[i] for i in (0, 1, 3, 4, 5, 6, 9)]


def of(container: Any, *arguments: Any) -> Any:
    """Return a generic type of types that are known at run time alone."""
    return container[arguments if len(arguments) > 1 else arguments[0]]


def _list(one: Typed) -> Typed:
    return of(list, one[0]), st.lists(one[1], max_size=3)


def _pairs(one: Typed, two: Typed) -> Typed:
    return of(tuple, one[0], two[0]), st.tuples(one[1], two[1])


def _row(one: Typed) -> Typed:
    return of(tuple, one[0], ...), st.lists(one[1], max_size=3).map(tuple)


def _maybe(one: Typed) -> Typed:
    return of(Optional, one[0]), st.none() | one[1]


def _box(one: Typed) -> Typed:
    boxes = st.builds(Box, one[1], st.lists(one[1], max_size=2))
    return of(Box, one[0]), boxes


def _crate(one: Typed) -> Typed:
    return of(Crate, one[0]), st.builds(Crate, one[1])


AROUND: list[Callable[[Typed], Typed]] = [_list, _row, _maybe, _box, _crate]


@st.composite
def types(draw: Draw, depth: int = 3) -> Typed:
    """Draw a type, with the strategy of its values."""
    kind = draw(st.integers(0, 9)) if depth else 0
    if kind < 3:
        return draw(st.sampled_from(LEAVES))
    if kind < 5:
        one = draw(st.sampled_from(HASHABLE))
        container, values = draw(st.sampled_from([(set, st.sets), (frozenset, st.frozensets)]))
        return of(container, one[0]), values(one[1], max_size=3)
    if kind == 5:
        key, one = draw(st.sampled_from(KEYS)), draw(types(depth=depth - 1))
        return of(dict, key[0], one[0]), st.dictionaries(key[1], one[1], max_size=3)
    if kind == 6:
        return _pairs(draw(types(depth=depth - 1)), draw(types(depth=depth - 1)))
    return draw(st.sampled_from(AROUND))(draw(types(depth=depth - 1)))


@st.composite
def typed_values(draw: Draw) -> tuple[Any, Any]:
    annotation, values = draw(types())
    return annotation, draw(values)


def annotated(function: Any, annotation: Any) -> Any:
    function.__annotations__ = {"return": annotation}
    return function


# -- what comes back -----------------------------------------------------------------------------


@given(typed_values())
def test_through_the_codec(drawn: tuple[Any, Any]) -> None:
    annotation, value = drawn
    text, typed = roundtrip(value, annotation, what="it")
    assert typed == value
    assert lossless(value, typed) is None
    assert decode(text, annotation, what="it") == value
    assert roundtrip(typed, annotation, what="it")[0] == text or has_set(annotation)


def has_set(annotation: Any) -> bool:
    """Whether a set is in a type: its elements are written in no order."""
    return "set[" in str(annotation) or "Order" in str(annotation)


@given(typed_values())
def test_through_a_workflow(drawn: tuple[Any, Any]) -> None:
    """Twice: the sleep ends the invocation, so all that came before is replayed."""
    annotation, value = drawn
    seen: list[Any] = []

    async def make() -> Any:
        return value

    def make_blocking() -> Any:
        return value

    async def inner() -> Any:
        return seen[-1]

    make_step = step(annotated(make, annotation))
    make_inline = step(inline=True)(annotated(make_blocking, annotation))
    child = workflow(annotated(inner, annotation))

    async def main(ctx: WorkflowContext) -> Any:
        seen.append(await make_step())
        seen.append(make_inline())
        seen.append(await child())
        ctx.sleep(60)
        return seen[-1]

    mock = MockDurableContext()
    result = create_test_handler(workflow(annotated(main, annotation)), mock)({})
    assert len(seen) == 9
    for found in (*seen, result, *mock.checkpoints.values()):
        assert found == value
        assert lossless(value, found) is None


@given(typed_values())
def test_as_an_input(drawn: tuple[Any, Any]) -> None:
    annotation, value = drawn
    seen: list[Any] = []

    async def main(drawn_value: Any, another: int = 0) -> None:
        seen.append(drawn_value)

    main.__annotations__ = {"drawn_value": annotation, "another": int}
    plain = msgspec.json.decode(roundtrip(value, annotation, what="it")[0])
    create_test_handler(workflow(main))({"drawn_value": plain})
    assert len(seen) == 2
    for found in seen:
        assert found == value
        assert lossless(value, found) is None


# -- what is refused -----------------------------------------------------------------------------


class Opaque:
    pass


REFUSED: list[tuple[Any, Any, str]] = [
    (math.nan, float, "$"),
    ([1.0, math.inf], list[float], "$[1]"),
    ({"a": [0, {"b": -math.inf}]}, Any, "$.a[1].b"),
    (Point(1, math.nan), Point, "$[1]"),
    ([Part(name="a"), Whole.model_construct(raw=math.nan)], list[Part | Whole], "$[1]"),
    (Box(Opaque(), []), Box[Any], "$.content"),
    (Crate({"x": object()}), Crate[Any], "$.content.x"),
    ({1: "a", "1": "b"}, Any, "$"),
    ({"deep": {1: 0, "1": 0}}, Any, "$.deep"),
    ([{"f": print}], Any, "$[0].f"),
    ([["ok", "\ud800"]], list[list[str]], "$[0][1]"),
    (("a", "b"), tuple[int, str], "$[0]"),
    ({"a": {"b": "x"}}, dict[str, dict[str, int]], "$.a.b"),
    (Order(uuid.UUID(int=0), [], set(), "soon"), Order, "$.shipped"),  # type: ignore[arg-type]
    (3 + 4j, Any, "$"),
    (datetime(2024, 1, 1, tzinfo=timezone(timedelta(seconds=61))), datetime, "$"),
]


@pytest.mark.parametrize(("value", "annotation", "path"), REFUSED)
@pytest.mark.parametrize("where", ["step", "child", "result"])
def test_what_is_refused_is_refused_where_it_is_made(
    value: Any, annotation: Any, path: str, where: str
) -> None:
    async def make() -> Any:
        return value

    make_step = step(annotated(make, annotation if where == "step" else int))
    child = workflow(annotated(make, annotation))

    async def main() -> Any:
        return await make_step() if where == "step" else await child()

    flow = workflow(annotated(make if where == "result" else main, annotation))
    mock = MockDurableContext()
    with pytest.raises(SerializationError) as caught:
        create_test_handler(flow, mock)({})
    assert caught.value.path == path
    assert path in str(caught.value)
    assert [operation.attempt for operation in mock.operations if operation.type == "STEP"] in (
        [],
        [1],
    )
