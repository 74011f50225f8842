"""Fuzzed payloads, errors and inputs: a value, or an error of this library that says where."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple, TypedDict

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyworkflow import InputError, StepError, workflow
from pyworkflow._protocol.records import ErrorRecord
from pyworkflow._values import codec
from pyworkflow.errors import OperationError, SerializationError
from tests.corpus.counting import count
from tests.corpus.garbage import EXAMPLES, any_json, errors, plain
from tests.engine.harness import KNOWN


@dataclasses.dataclass
class Order:
    id: int
    at: datetime | None = None


# -- records -------------------------------------------------------------------------------------


class Model(pydantic.BaseModel):
    a: int
    b: list[Order] = []


class Pair(NamedTuple):
    a: int
    b: str


class Keys(TypedDict, total=False):
    a: int


class Colour(Enum):
    RED = "red"


ANNOTATIONS: list[Any] = [
    *(Any, None, int, str, bytes, float, bool, datetime, Decimal, Order, Model, Pair, Keys, Colour),
    *(list[Order], dict[int, Model], set[int], tuple[int, str], Order | None, int | str, object),
]


@given(any_json, st.sampled_from(ANNOTATIONS))
@settings(max_examples=5 * EXAMPLES)
def test_any_text_is_a_value_or_a_serialization_error(text: str | None, annotation: Any) -> None:
    try:
        value = codec.decode(text, annotation, what="it")
    except SerializationError as error:
        found = error.path
        count("fuzzed payload: an error")
        assert found.startswith("$")
    else:
        count("fuzzed payload: a value")
        assert codec.encode(value, what="it") is not None


@given(errors.filter(lambda each: each is not None))
@settings(max_examples=5 * EXAMPLES)
def test_any_record_of_an_error_gives_an_exception(record: ErrorRecord) -> None:
    error = KNOWN.rebuild(record, StepError)
    assert isinstance(error, Exception)
    assert not isinstance(error, StopIteration)
    if isinstance(error, OperationError):
        assert (error.message, error.error_type) == (record.message, record.type)
    str(error)
    count("fuzzed error: its own class" if type(error) is not StepError else "fuzzed error: ours")


# -- inputs --------------------------------------------------------------------------------------


async def nothing() -> str: ...  # type: ignore[empty-body] # bound, never run
async def one(a: int) -> str: ...  # type: ignore[empty-body]
async def untyped(ctx, a, b=1): ...  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
async def whole(order: Order) -> str: ...  # type: ignore[empty-body]
async def model(ctx: Any, it: Model) -> str: ...  # type: ignore[empty-body]
async def mapping(it: dict[str, int]) -> str: ...  # type: ignore[empty-body]
async def several(a: int, /, b: str = "", *, c: Order | None = None) -> str: ...  # type: ignore[empty-body]
async def rest(a: int, **rest: Decimal) -> str: ...  # type: ignore[empty-body]
async def anything(**rest: Any) -> str: ...  # type: ignore[empty-body]


names = st.sampled_from(["a", "b", "c", "id", "at", "it", "ctx", "order", "self", "rest", ""])
objects = st.dictionaries(names | st.text(max_size=3), plain, max_size=4).map(json.dumps)


@pytest.mark.parametrize(
    "function",
    [nothing, one, untyped, whole, model, mapping, several, rest, anything],
    ids=lambda f: f.__name__,
)
@given(payload=objects | any_json)
@settings(max_examples=2 * EXAMPLES)
def test_any_input_binds_or_is_an_input_error(
    function: Callable[..., Any], payload: str | None
) -> None:
    binder = workflow(function).binder
    try:
        args, kwargs = binder.bind(payload)
    except InputError as error:
        problems = error.problems
        count("fuzzed input: an error")
        assert problems
        return
    if binder.takes_context:
        args = [None, *args]
    function(*args, **kwargs).close()
    assert not (payload or "").strip() or json.loads(payload or "") is not ...
    count("fuzzed input: bound")
