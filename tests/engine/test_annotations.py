from __future__ import annotations

import functools
import sys
import typing
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow._values.annotations import parameter_annotations, return_annotation
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from nowhere import Absent  # type: ignore[import-not-found]


class Order:
    pass


T = typing.TypeVar("T")


class Holder:
    class Inner:
        pass

    def list(self) -> list[int]:
        raise NotImplementedError

    def inner(self) -> Inner:
        raise NotImplementedError

    def __call__(self, a: int) -> str:
        raise NotImplementedError


def no_annotation():  # type: ignore[no-untyped-def]  # noqa: ANN201
    raise NotImplementedError


def half_known(a: Absent, b: int) -> Order:
    raise NotImplementedError


def unknown() -> list[Absent]:
    raise NotImplementedError


def quoted() -> list["Order"]:  # noqa: UP037
    raise NotImplementedError


def generic(a: T) -> T:
    raise NotImplementedError


def never() -> typing.NoReturn:
    raise NotImplementedError


def literal() -> typing.LiteralString:
    raise NotImplementedError


def nothing() -> None:
    raise NotImplementedError


def attribute() -> typing.Nonsense:  # type: ignore[name-defined]
    raise NotImplementedError


async def coroutine() -> Order:
    raise NotImplementedError


@functools.wraps(half_known)
def decorated(*args: Any) -> Any:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (no_annotation, Any),
        (half_known, Order),
        (quoted, list[Order]),
        (generic, Any),
        (never, Any),
        (literal, str),
        (nothing, type(None)),
        (coroutine, Order),
        (decorated, Order),
        (functools.partial(half_known, 1), Order),
        (Holder.list, list[int]),
        (Holder().list, list[int]),
        (Holder.inner, Holder.Inner),
        (Holder(), str),
        (len, Any),
    ],
)
def test_return_annotation(fn: Any, expected: object) -> None:
    assert return_annotation(fn) == expected


def test_local_classes_are_found_in_the_closure() -> None:
    class Local:
        pass

    def known() -> Local:
        return Local()

    def unassigned() -> Later:
        return Later()

    assert return_annotation(known) is Local
    with pytest.raises(UsageError, match="'Later'"):
        return_annotation(unassigned)

    class Later:
        pass

    assert return_annotation(unassigned) is Later
    assert isinstance(known(), Local)
    assert isinstance(unassigned(), Later)


def test_an_unknown_name_is_named() -> None:
    with pytest.raises(UsageError, match=r"'Absent' in the return annotation of unknown\(\)"):
        return_annotation(unknown)
    with pytest.raises(UsageError, match="'Absent' in the annotation of parameter 'a'"):
        parameter_annotations(half_known)


def test_a_broken_annotation_is_shown() -> None:
    with pytest.raises(UsageError, match=r"AttributeError.*typing\.Nonsense"):
        return_annotation(attribute)


def test_parameter_annotations() -> None:
    assert parameter_annotations(Holder()) == {"a": int}
    assert parameter_annotations(no_annotation) == {}
    assert parameter_annotations(generic) == {"a": Any}


def test_an_object_is_its_call_whatever_its_class_annotates() -> None:
    class Adding:
        offset: int = 1

        def __call__(self, n: int) -> Order:
            raise NotImplementedError

    assert return_annotation(Adding()) is Order
    assert parameter_annotations(Adding()) == {"n": int}


def test_an_object_that_wraps_a_function_is_that_function() -> None:
    holder = Holder()
    functools.update_wrapper(holder, quoted)
    assert return_annotation(holder) == list[Order]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax is of Python 3.12")
def test_type_parameters() -> None:
    space: dict[str, Any] = {}
    exec("def f[T](a: 'T') -> 'list[T]': ...", space)
    assert typing.get_origin(return_annotation(space["f"])) is list
