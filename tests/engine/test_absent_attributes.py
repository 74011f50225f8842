from __future__ import annotations

import copy
import json
from typing import Any, ClassVar

import pytest

from pyworkflow._values import absent_attributes
from pyworkflow._values.exceptions import KnownErrors, record_error
from pyworkflow.errors import ChildContextError, StepError

KNOWN = KnownErrors.snapshot()


class Response:
    status_code = 404


class RefusedError(Exception):
    def __init__(self, message: str, response: object, code: int = 3) -> None:
        super().__init__(message)
        self.response = response
        self._request = object()
        self.code = code

    @property
    def request(self) -> object:
        return self._request


class OfItsOwnError(Exception):
    asked: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        self.asked.append(name)
        raise AttributeError(name)


class PlainError(Exception):
    pass


def again(error: BaseException) -> Any:
    return KNOWN.rebuild(record_error(error), StepError)


def refused() -> Any:
    return again(RefusedError("no", Response()))


def test_an_attribute_that_is_no_json_is_missing_with_the_reason() -> None:
    error = refused()
    assert (type(error), error.code) == (RefusedError, 3)
    with pytest.raises(AttributeError) as caught:
        _ = error.response
    said = str(caught.value)
    assert "attribute 'response' of RefusedError was not recorded" in said
    assert f"{__name__}.Response, isn't JSON" in said
    assert (caught.value.name, caught.value.obj) == ("response", error)
    assert not hasattr(error, "response")


def test_a_property_that_needs_one_says_so_too() -> None:
    with pytest.raises(AttributeError, match="'_request' of RefusedError was not recorded"):
        _ = refused().request


def test_what_never_was_there_is_missing_as_ever() -> None:
    error = refused()
    fresh: Any = RefusedError("no", None)
    for each in (error, fresh):
        with pytest.raises(AttributeError, match="'odd'") as caught:
            _ = each.odd
        assert "recorded" not in str(caught.value)
    fresh.response = 5
    assert fresh.response == 5
    error.response = 6
    assert error.response == 6


def test_the_reason_survives_a_second_recording() -> None:
    first = refused()
    second: Any = KNOWN.rebuild(record_error(first), ChildContextError)
    with pytest.raises(AttributeError, match="was not recorded"):
        _ = second.response
    assert record_error(second) == record_error(first)
    first.response = "given later"
    third = again(first)
    assert third.response == "given later"
    assert "response" not in json.loads(record_error(third).data or "")["missing"]


def test_an_attribute_for_which_there_was_no_room_is_missing_with_that_reason() -> None:
    error = again(RefusedError("no", "r" * 40_000))
    with pytest.raises(AttributeError, match="'response' .* the record had no room for it"):
        _ = error.response


def test_a_class_that_answers_itself_stays_as_it_is() -> None:
    error: Any = OfItsOwnError("x")
    error.response = Response()
    rebuilt = again(error)
    OfItsOwnError.asked.clear()
    with pytest.raises(AttributeError, match=r"^response$"):
        _ = rebuilt.response
    assert OfItsOwnError.asked == ["response"]


def test_a_builtin_class_stays_as_it_is() -> None:
    error: Any = ValueError("x")
    error.response = Response()
    rebuilt = again(error)
    assert absent_attributes.missing_in(rebuilt) == {"response": f"{__name__}.Response"}
    with pytest.raises(AttributeError, match="'response'") as caught:
        _ = rebuilt.response
    assert "recorded" not in str(caught.value)


def test_a_class_that_lost_nothing_is_not_touched() -> None:
    assert type(again(PlainError("x"))) is PlainError
    assert "__getattr__" not in vars(PlainError)


def test_such_an_error_is_copied_as_others_are() -> None:
    error = again(RefusedError("no", Response()))
    error.args = ("no", None)
    others: list[Any] = [copy.copy(error), copy.deepcopy(error)]
    assert {type(other) for other in others} == {RefusedError}
    for other in others:
        with pytest.raises(AttributeError, match="'odd'") as caught:
            _ = other.odd
        assert "recorded" not in str(caught.value)


class SlottedError(Exception):
    __slots__ = ("code", "response", "unset")
    unset: object

    def __init__(self) -> None:
        super().__init__("refused")
        self.code = 51
        self.response = object()


def test_slots_are_attributes() -> None:
    error = again(SlottedError())
    assert type(error) is SlottedError
    assert error.code == 51
    with pytest.raises(AttributeError, match="'response' of SlottedError was not recorded"):
        error.response  # noqa: B018
    with pytest.raises(AttributeError):
        error.unset  # noqa: B018
