"""A failed attempt that is followed by another one is logged, once, with what led to it."""

from __future__ import annotations

import logging
import traceback

import pytest

from pyworkflow import FatalError, Retry, RetryableError, WorkflowContext, step, workflow
from pyworkflow.aws.testing import MockDurableContext, create_test_handler
from pyworkflow.errors import ConditionTimeoutError

SOON = Retry(max_attempts=3, delay="1s", jitter=False)


def refuse() -> None:
    try:
        raise ConnectionRefusedError(111, "bank.example:443 refused")
    except OSError as error:
        raise RuntimeError("could not pay") from error


@step(retry=SOON)
async def pay() -> None:
    refuse()


@step(retry=SOON)
def pay_blocking() -> None:
    refuse()


async def look() -> bool:
    raise RetryableError("not now") from ConnectionRefusedError("refused")


def logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [each for each in caplog.records if each.name == "pyworkflow.steps"]


def chain_of(record: logging.LogRecord) -> str:
    assert record.levelno == logging.WARNING
    assert isinstance(record.exc_info, tuple)
    return "".join(traceback.format_exception(record.exc_info[1]))


@pytest.mark.parametrize("is_blocking", [False, True])
def test_each_attempt_that_is_followed_by_another_is_logged(
    is_blocking: bool, caplog: pytest.LogCaptureFixture
) -> None:
    @workflow
    async def order(ctx: WorkflowContext) -> str:
        try:
            await (pay_blocking.submit() if is_blocking else pay())
        except RuntimeError as error:
            ctx.sleep("1h")  # a replay logs nothing
            return "".join(traceback.format_exception(error))
        return "paid"

    told = create_test_handler(order)({})
    first, second = logged(caplog)  # what the third one raised reaches the workflow
    name = "pay_blocking" if is_blocking else "pay"
    assert first.getMessage() == f"step {name!r} failed in attempt 1 and is tried again in 1 s"
    assert second.getMessage() == f"step {name!r} failed in attempt 2 and is tried again in 2 s"
    assert (vars(first)["step"], vars(first)["attempt"]) == (name, 1)
    for text in (chain_of(first), chain_of(second), told):
        assert "bank.example:443 refused" in text
        assert "direct cause" in text
        assert "RuntimeError: could not pay" in text


def test_what_is_not_tried_again_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    @step
    async def declined() -> None:
        raise FatalError("no money")

    @workflow
    async def order() -> None:
        await declined()

    with pytest.raises(FatalError):
        create_test_handler(order)({})
    assert logged(caplog) == []


def test_a_check_and_a_submitter_are_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    @workflow
    async def order(ctx: WorkflowContext) -> bool:
        return await ctx.wait_for_condition(look, every="5s", max_attempts=2)

    with pytest.raises(ConditionTimeoutError):
        create_test_handler(order)({})
    (record,) = logged(caplog)
    assert record.getMessage() == "step 'look' failed in attempt 1 and is tried again in 5 s"
    assert "ConnectionRefusedError: refused" in chain_of(record)

    caplog.clear()
    sent: list[str] = []

    async def submit(callback_id: str) -> None:
        sent.append(callback_id)
        if len(sent) < 2:
            refuse()

    @workflow
    async def asking(ctx: WorkflowContext) -> str:
        return str(await ctx.wait_for_callback(submit, name="ask"))

    mock_ctx = MockDurableContext()
    mock_ctx.complete_callback("ask", "yes")
    assert create_test_handler(asking, mock_ctx)({}) == "yes"
    (record,) = logged(caplog)
    assert "bank.example:443 refused" in chain_of(record)
