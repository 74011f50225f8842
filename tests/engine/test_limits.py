"""How sizes are counted: of payloads, of updates in a batch, of errors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyworkflow._protocol import limits
from pyworkflow._protocol.limits import bound_of, fits, fits_response, fitted, size_of, wire_size
from pyworkflow._protocol.records import Action, ErrorRecord, OperationType, Update
from pyworkflow.errors import SerializationError

if TYPE_CHECKING:
    from collections.abc import Callable

TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from('\x00\x1b"\\é\u2028\U0001f600'))
ERRORS = st.builds(
    ErrorRecord, TEXTS, TEXTS, st.none() | TEXTS, st.lists(TEXTS, max_size=20).map(tuple)
)


def test_nothing_has_no_size() -> None:
    assert [size_of(payload) for payload in (None, "", "abc", "ü")] == [0, 0, 3, 2]


@given(st.none() | TEXTS, st.none() | st.integers(0, 400))
def test_what_fits_is_what_has_no_more_bytes(payload: str | None, most: int | None) -> None:
    assert fits(payload, most) is (most is None or size_of(payload) <= most)


def test_a_lone_surrogate_has_a_size() -> None:
    assert size_of("\ud800") == 3
    assert not fits("\ud800", 2)


def test_what_is_too_large_is_named() -> None:
    limits.check_size("abc", 3, "the result")
    with pytest.raises(SerializationError, match="The result can't be stored: it has 4 bytes"):
        limits.check_size("abcd", 3, "the result")


@pytest.mark.parametrize("room", range(-1, 2))
@given(payload=TEXTS)
def test_an_answer_is_measured_as_it_is_sent(room: int, payload: str) -> None:
    size = len(json.dumps({"Status": "SUCCEEDED", "Result": payload}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "MAX_RESPONSE_BYTES", size + room)
        assert fits_response(payload) is (room >= 0)


@pytest.mark.parametrize("bound", [bound_of, wire_size])
@given(payload=st.none() | TEXTS, error=st.none() | ERRORS)
def test_no_update_has_more_bytes_than_its_bound(
    bound: Callable[[Update], int], payload: str | None, error: ErrorRecord | None
) -> None:
    update = Update(
        id="i" * 64,
        type=OperationType.CHAINED_INVOKE,
        action=Action.START,
        parent_id="p" * 64,
        name='"' * 256,
        subtype="s" * 32,
        function_name="f" * 256,
        tenant_id="t" * 256,
        payload=payload,
        error=error,
    )
    assert len(msgspec.json.encode(update)) <= bound(update)


def test_a_lone_surrogate_has_a_bound() -> None:
    update = Update(id="a", type=OperationType.STEP, action=Action.SUCCEED, payload="\ud800")
    assert wire_size(update) == bound_of(update)


@given(ERRORS, st.integers(60, 600))
@example(ErrorRecord("", "\r\u0800", None, ("", '"\x80\U00010000', "0\r\x0b\x80")), 60)
def test_shortening_twice_is_shortening_once(error: ErrorRecord, most: int) -> None:
    once = fitted(error, limit_bytes=most)
    assert limits.error_fits(once, most)
    assert fitted(once, limit_bytes=most) == once
    if limits.error_fits(error, most):
        assert once == error
