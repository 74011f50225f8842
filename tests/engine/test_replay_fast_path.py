"""Recall is a shortcut: whatever it gives, the long way would have given next."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyworkflow import UsageError, step, workflow
from pyworkflow._engine.messages import Broken
from tests.engine.harness import Run


@step(retry=False)
async def double(number: int) -> int:
    return 2 * number


@step()
def triple(number: int) -> int:
    return 3 * number


@step(name="double")
async def words(number: int) -> list[str]:
    return [str(number)]


@step(name="double")
async def unknown(number: int) -> Missing:  # type: ignore[name-defined]  # noqa: F821
    return number


@workflow
async def child(number: int) -> int:
    return await double(number) + await double(number)


def played(function: Any, *outcomes: tuple[str, Any]) -> Run:
    """Return a run of ``function`` in which these steps were done, in this order."""
    run = Run(function)
    run.settle()
    for name, value in outcomes:
        run.done(name, value)
    return run


def steps_issued(run: Run) -> list[str | None]:
    return [op.name for op in run.trace.issued]


async def sequence() -> list[int]:
    return [await double(1), triple(2), await double(3)]


def test_a_sequence_is_recalled_without_an_operation() -> None:
    first = played(sequence, ("double", 2), ("triple", 6), ("double", 6))
    again = first.crash(sequence)
    assert again.value == first.value == [2, 6, 6]
    assert steps_issued(again) == []
    assert again.trace.delivered == first.trace.delivered


def test_the_code_goes_on_live_where_the_record_ends() -> None:
    again = played(sequence, ("double", 2)).crash(sequence)
    assert [call.name for call in again.turn.launch] == ["triple"]
    assert steps_issued(again) == ["triple"]
    again.done("triple", 6)
    again.done("double", 6)
    whole = played(sequence, ("double", 2), ("triple", 6), ("double", 6))
    assert again.service.operations.keys() == whole.service.operations.keys()


def test_sync_code_recalls_too() -> None:
    def code() -> int:
        return triple(1) + triple(2)

    again = played(code, ("triple", 3), ("triple", 6)).crash(code)
    assert again.value == 9
    assert steps_issued(again) == []


def test_time_passes_as_it_would() -> None:
    async def code(ctx: Any) -> list[Any]:
        before = ctx.now()
        await double(1)
        return [before < ctx.now(), ctx.is_replaying]

    first = played(code)
    first.service.now_ms += 5_000
    first.done("double", 2)
    assert first.value == [True, False]
    assert first.crash(code).value == [True, False]


def test_steps_of_a_child_that_has_not_ended_are_recalled() -> None:
    async def code() -> int:
        return await child(1)

    again = played(code, ("double", 2)).crash(code)
    assert steps_issued(again) == ["child", "double"]
    again.done("double", 2)
    assert again.value == 4


def test_concurrent_steps_take_the_long_way() -> None:
    async def code() -> Any:
        return await asyncio.gather(double(1), double(2))

    again = played(code, ("double", 2), ("double", 4)).crash(code)
    assert again.value == [2, 4]
    assert steps_issued(again) == ["double", "double"]


def test_a_step_beside_a_wait_takes_the_long_way() -> None:
    async def code(ctx: Any) -> int:
        timer = asyncio.create_task(asyncio.sleep(100))
        await asyncio.sleep(0)
        found = await double(1)
        timer.cancel()
        return found

    first = played(code)
    first.lag()
    first.settle()
    first.done("double", 2)
    again = first.crash(code)
    assert again.value == 2
    assert steps_issued(again) == [None, "double"]


def test_a_keyed_step_takes_the_long_way() -> None:
    async def code() -> int:
        return await double.options(key="a")(1)

    again = played(code, ("double", 2)).crash(code)
    assert again.value == 2
    assert steps_issued(again) == ["double"]


def test_a_failure_takes_the_long_way() -> None:
    async def code() -> str:
        try:
            await double(1)
        except ValueError as error:
            return str(error)
        return "none"

    first = played(code)
    first.fail("double", ValueError("no"))
    first.settle()
    again = first.crash(code)
    assert again.value == "no"
    assert steps_issued(again) == ["double"]


def test_another_step_than_recorded_is_left_to_the_long_way() -> None:
    async def before() -> int:
        return await double(1)

    async def after() -> int:
        return triple(1)

    again = played(before, ("double", 2)).crash(after)
    assert isinstance(again.end, Broken)
    assert "'double'" in str(again.end.error)
    assert "'triple'" in str(again.end.error)


def test_a_result_that_no_longer_fits_is_left_to_the_long_way() -> None:
    async def before() -> int:
        return await double(1)

    async def after() -> list[str]:
        return await words(1)

    again = played(before, ("double", 2)).crash(after)
    assert isinstance(again.end, Broken)
    assert "list" in str(again.end.error)


def test_the_code_does_not_see_that_a_result_has_no_known_type_any_more() -> None:
    async def before() -> int:
        return await double(1)

    async def after() -> Any:
        try:
            return await unknown(1)
        except Exception:
            return "another path"

    first = played(before, ("double", 2))
    with pytest.raises(UsageError, match="'Missing' in the return annotation of unknown"):
        first.crash(after)


def test_in_a_bare_callback_a_sync_step_is_not_recalled() -> None:
    async def code() -> int:
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def call() -> None:
            try:
                done.set_result(triple(1))
            except Exception as error:
                done.set_exception(error)

        await double(1)
        loop.call_soon(call)
        return int(await done)

    # The second record is what the callback would find, if it could wait.
    async def two() -> int:
        return await double(1) + triple(1)

    again = played(two, ("double", 2), ("triple", 3)).crash(code)
    assert again.end is not None
    assert "bare callback" in str(getattr(again.end, "error", ""))
