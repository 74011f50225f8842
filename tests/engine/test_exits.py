from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest

from pyworkflow import StepError, WorkflowContext, workflow
from pyworkflow._engine.exits import is_from_signal, pass_on_signal
from pyworkflow.aws.testing import create_test_handler
from pyworkflow.errors import ChildContextError


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def interrupt_and_clean_up() -> None:
    try:
        interrupt()
    except KeyboardInterrupt:
        raise


def interrupt_and_exit() -> None:
    try:
        interrupt()
    except KeyboardInterrupt:
        sys.exit(130)


def interrupt_and_fail() -> None:
    try:
        interrupt()
    except KeyboardInterrupt as error:
        raise ValueError from error


def raise_interrupt() -> None:
    raise KeyboardInterrupt


def exit_after_an_error() -> None:
    try:
        raise ValueError
    except ValueError:
        sys.exit(2)


def raise_one_that_was_raised_before() -> None:
    try:
        raise_interrupt()
    except KeyboardInterrupt as error:
        raise SystemExit from error


def raised_by(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("function", [interrupt, interrupt_and_clean_up, interrupt_and_exit])
def test_what_a_signal_raised_is_known(function: Callable[[], object]) -> None:
    error = raised_by(function)
    assert is_from_signal(error)
    with pytest.raises(type(error)):
        pass_on_signal(error)


@pytest.mark.parametrize(
    "function",
    [
        interrupt_and_fail,
        raise_interrupt,
        exit_after_an_error,
        raise_one_that_was_raised_before,
        sys.exit,
    ],
)
def test_what_code_raised_is_its_own(function: Callable[[], object]) -> None:
    error = raised_by(function)
    assert not is_from_signal(error)
    pass_on_signal(error)


def test_one_that_was_never_raised_is_nobodys() -> None:
    assert not is_from_signal(KeyboardInterrupt())
    assert not is_from_signal(None)


def test_causes_that_go_round_in_a_circle_end() -> None:
    one, two = SystemExit(), SystemExit()
    one.__cause__, two.__cause__ = two, one
    assert not is_from_signal(one)


def handle(number: int, frame: object) -> None:
    sys.exit(number)


@pytest.mark.parametrize("handler", [handle, lambda *_: sys.exit(3), lambda _, f: handle(0, None)])
def test_a_handler_of_ones_own_is_known_by_the_frame_that_it_was_given(handler: Any) -> None:
    former = signal.signal(signal.SIGINT, handler)
    try:
        assert is_from_signal(raised_by(interrupt))
    finally:
        signal.signal(signal.SIGINT, former)


def test_exits_in_whatever_a_workflow_calls_are_failures() -> None:
    @workflow
    async def child(ctx: WorkflowContext) -> None:
        sys.exit(1)

    async def leaves() -> None:
        raise KeyboardInterrupt("by a branch")

    async def stays() -> int:
        return 1

    @workflow
    async def main(ctx: WorkflowContext) -> list[str]:
        batch = await ctx.parallel([leaves, stays], tolerated_failure_count=1)
        errors = [str(item.error) for item in batch.failed]
        for call in (
            lambda: child(ctx),
            lambda: ctx.wait_for_condition(lambda: sys.exit(2), every="1s"),
            lambda: ctx.wait_for_condition(lambda: 0, every="1s", until=lambda _: sys.exit(3)),
            lambda: ctx.wait_for_callback(lambda _: sys.exit(4)),
        ):
            try:
                await call()
            except (StepError, ChildContextError) as error:
                errors.append(str(error))
        return errors

    assert create_test_handler(main)({}) == [
        "KeyboardInterrupt: by a branch",
        "SystemExit: 1",
        "SystemExit: 2",
        "SystemExit: 3",
        "SystemExit: 4",
    ]
