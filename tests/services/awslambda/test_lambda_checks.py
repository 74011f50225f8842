"""What Lambda would refuse is refused before it is sent, with what to do about it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyworkflow._engine.outbox import Outbox
from pyworkflow._protocol.limits import fitted
from pyworkflow._protocol.records import Action, ErrorRecord, OperationType, Update
from pyworkflow._protocol.wire import error_to_wire, update_to_wire
from pyworkflow.errors import InvalidUpdateError
from pyworkflow.services.awslambda import _checks

KIB = 1024

to_json = msgspec.json.Encoder().encode


def step(action: Action = Action.SUCCEED, **fields: Any) -> Update:
    return Update(**{"id": "a1", "type": OperationType.STEP, "action": action, **fields})


def start(kind: OperationType, **fields: Any) -> Update:
    return Update(id="a1", type=kind, action=Action.START, **fields)


GOOD = [
    step(Action.START, parent_id="p-1_", name="n" * 256, subtype="Step"),
    step(payload="x" * 256 * KIB),
    step(payload="é" * 128 * KIB),
    step(payload=""),
    step(Action.RETRY, delay_seconds=31_622_400, payload="1"),
    step(Action.FAIL, error=ErrorRecord("bad", "ValueError", "{}", ("frame",))),
    start(OperationType.WAIT, wait_seconds=31_622_400),
    start(OperationType.CALLBACK, timeout_seconds=99_999_999, heartbeat_timeout_seconds=0),
    start(
        OperationType.CHAINED_INVOKE,
        function_name="arn:aws:lambda:eu-west-1:123456789012:function:my_f-1:$LATEST",
        tenant_id="tenant 1@example.org",
        payload="{}",
    ),
    Update(
        id="e",
        type=OperationType.EXECUTION,
        action=Action.SUCCEED,
        payload="x" * 6 * 1024 * KIB,
    ),
]


@pytest.mark.parametrize("update", GOOD, ids=lambda update: f"{update.type}-{update.action}")
def test_what_is_within_the_limits_passes_unchanged(update: Update) -> None:
    assert _checks.checked(update) == update


@pytest.mark.parametrize(
    ("update", "said"),
    [
        (step(id="a b"), "an id of 1-64"),
        (step(id="a" * 65), "65 characters"),
        (step(name="naïve"), "printable ASCII"),
        (step(name=""), "name"),
        (step(parent_id="p" * 65), "parent_id to be an id: 1-64"),
        (step(subtype="my type"), "subtype to be 1-32"),
        (step(subtype="x" * 33), "1-32"),
        (step(Action.RETRY, delay_seconds=0, payload="1"), "delay_seconds from 1 to 31622400"),
        (step(Action.RETRY, delay_seconds=31_622_401, payload="1"), "found 31622401"),
        (start(OperationType.WAIT, wait_seconds=31_622_401), "wait_seconds from 1 to 31622400"),
        (start(OperationType.CALLBACK, timeout_seconds=10**8), "timeout_seconds from 0 to"),
        (start(OperationType.CHAINED_INVOKE), "a function_name"),
        (start(OperationType.CHAINED_INVOKE, function_name="a/b"), "function_name to be a"),
        (
            start(OperationType.CHAINED_INVOKE, function_name="f", tenant_id="#"),
            "tenant_id to be 1-256",
        ),
        (step(payload="x" * (256 * KIB + 1)), "at most 262144 bytes, found 262145 bytes"),
        (step(payload="é" * (128 * KIB + 1)), "found 262146 bytes"),
        (step(payload="\ud800"), "a lone surrogate"),
        (step(Action.FAIL, error=ErrorRecord("\ud800")), "a lone surrogate"),
        (
            Update(
                id="a1",
                type=OperationType.EXECUTION,
                action=Action.SUCCEED,
                payload="x" * (6 * 1024 * KIB + 1),
            ),
            "at most 6291456 bytes",
        ),
    ],
)
def test_what_is_beyond_names_the_operation(update: Update, said: str) -> None:
    with pytest.raises(InvalidUpdateError) as caught:
        _checks.checked(update)
    assert f"{update.type} {update.action} of operation {update.id!r}" in str(caught.value)
    assert said in str(caught.value)
    assert caught.value.is_final


def test_the_name_is_shown() -> None:
    with pytest.raises(InvalidUpdateError, match=r"operation 'a1' \(name 'charge'\).*S3"):
        _checks.checked(step(name="charge", payload="x" * 300_000))


def test_an_error_is_shortened_by_the_engine_s_own_rule() -> None:
    frames = tuple(f'  File "a.py", line {n}\n    "é"\n' * 20 for n in range(100))
    error = ErrorRecord("bad", "ValueError", "{}", frames)
    short = _checks.checked(step(Action.FAIL, error=error)).error
    assert short == fitted(error)
    assert (short.message, short.type, short.data) == ("bad", "ValueError", "{}")
    assert 1 < len(short.stack_trace) < 100
    assert (short.stack_trace[0], short.stack_trace[-1]) == (frames[0], frames[-1])
    assert size(short) <= 32 * KIB


@pytest.mark.parametrize("message", ["x" * 33 * KIB, "\x1b" * 6 * KIB])
def test_a_long_message_is_cut(message: str) -> None:
    error = ErrorRecord(message, "E", '{"code": 3}', ("frame",))
    short = _checks.checked(step(Action.FAIL, error=error)).error
    assert short is not None
    assert (short.type, short.data, short.stack_trace) == ("E", None, ())
    assert short.message.startswith(message[:1000])
    assert size(short) <= 32 * KIB


def size(error: ErrorRecord) -> int:
    return len(msgspec.json.encode(error_to_wire(error)))


def test_a_batch_is_bounded() -> None:
    _checks.check_batch(0, 0)
    _checks.check_batch(250, 250)
    _checks.check_batch(2, 750 * KIB)
    _checks.check_batch(1, 5000 * KIB)
    with pytest.raises(InvalidUpdateError, match="found 251 updates"):
        _checks.check_batch(251, 251)
    with pytest.raises(InvalidUpdateError, match="768001 bytes"):
        _checks.check_batch(3, 750 * KIB + 1)


# -- a batch that the outbox makes ---------------------------------------------------------------

HOSTILE = st.sampled_from(["\x1b", "\x00", '"', "\\", "é", "\u2028", "\U0001f600", "x", "<"])
TEXTS = st.builds(lambda char, length: char * length, HOSTILE, st.integers(0, 20_000))
UPDATES = st.one_of(
    st.builds(lambda text: step(payload=text, name='"' * 256, parent_id="p" * 64), TEXTS),
    st.builds(
        lambda text: step(Action.FAIL, error=ErrorRecord(text[:5000], "E", None, (text[:99],))),
        TEXTS,
    ),
    st.builds(
        lambda text: start(
            OperationType.CHAINED_INVOKE,
            name="\\" * 256,
            subtype="s" * 32,
            parent_id="p" * 64,
            function_name="f" * 256,
            tenant_id="t" * 256,
            payload=text,
        ),
        TEXTS,
    ),
)


@given(st.lists(UPDATES, min_size=1, max_size=120))
@example([step(Action.FAIL, error=ErrorRecord("\x1b" * 5000, "E"))] * 60)
def test_no_batch_is_made_that_the_check_of_its_size_refuses(updates: list[Update]) -> None:
    outbox = Outbox()
    for update in updates:
        outbox.put(update, urgent=True)
    sent = 0
    while outbox.is_due:
        batch = outbox.take_batch()
        sent += len(batch)
        encoded = to_json([update_to_wire(_checks.checked(each)) for each in batch])
        _checks.check_batch(len(batch), len(encoded))
        outbox.in_flight = False
    assert sent == len(updates)
