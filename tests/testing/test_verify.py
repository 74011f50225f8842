from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow import WorkflowContext, step, workflow
from pyworkflow._engine.messages import Suspended
from pyworkflow._values.exceptions import KnownErrors
from pyworkflow.aws.testing import MockDurableContext, create_test_handler
from pyworkflow.errors import ReplayHazardError
from pyworkflow.testing._verify import Replay, check_replay

if TYPE_CHECKING:
    from pyworkflow import Workflow

BEGINNING = "the finished workflow was replayed from its record, and did something else."


@step
async def double(number: int) -> int:
    return 2 * number


@step
async def triple(number: int) -> int:
    return 3 * number


class Counter:
    """Counts how often it was asked: what no replay repeats."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> int:
        self.count += 1
        return self.count


def hazard_of(flow: Workflow[..., Any]) -> str:
    with pytest.raises(ReplayHazardError) as caught:
        create_test_handler(flow)({})
    text = str(caught.value)
    assert text.startswith(BEGINNING)
    return text


def test_code_that_does_the_same_again_is_fine() -> None:
    runs = Counter()

    @workflow
    async def main(ctx: WorkflowContext) -> int:
        runs()
        number, _ = await asyncio.gather(double(1), triple(1))
        ctx.sleep(60)
        return await double(number)

    assert create_test_handler(main)({}) == 4
    assert runs.count == 3  # two invocations and the replay


def test_an_operation_more() -> None:
    asked = Counter()

    @workflow
    async def main() -> None:
        for _ in range(asked()):
            await double(1)

    assert "it asked for something that is not recorded: double" in hazard_of(main)


def test_a_sleep_more() -> None:
    asked = Counter()

    @workflow
    async def main(ctx: WorkflowContext) -> None:
        if asked() > 1:
            ctx.sleep(60)

    assert "it asked for something that is not recorded: an operation" in hazard_of(main)


def test_an_operation_less() -> None:
    asked = Counter()

    @workflow
    async def main() -> None:
        if asked() == 1:
            await double(1)

    assert "double" in hazard_of(main)


def test_another_operation() -> None:
    asked = Counter()

    @workflow
    async def main() -> None:
        await (double if asked() == 1 else triple)(1)

    text = hazard_of(main)
    assert "double" in text
    assert "triple" in text


def test_another_result() -> None:
    asked = Counter()

    @workflow
    async def main() -> int:
        return asked()

    text = hazard_of(main)
    assert "it ended otherwise: ('succeeded', '2'), first: ('succeeded', '1')" in text


def test_another_error() -> None:
    asked = Counter()

    @workflow
    async def main() -> None:
        raise ValueError(f"number {asked()}")

    text = hazard_of(main)
    assert (
        "('failed', 'ValueError', 'number 2'), first: ('failed', 'ValueError', 'number 1')" in text
    )


def test_without_strictness_nothing_is_replayed() -> None:
    asked = Counter()

    @workflow
    async def main() -> int:
        return asked()

    assert create_test_handler(main, MockDurableContext(strict=False))({}) == 1
    assert asked.count == 1


def test_another_kind_of_end() -> None:
    @workflow
    async def main() -> int:
        return 1

    mock = MockDurableContext()
    create_test_handler(main, mock)({})
    assert mock._seen._service is not None
    history = mock._seen._service.operations(mock.execution_id)

    async def check() -> None:
        replay = Replay(main, history, KnownErrors.snapshot())
        await check_replay(replay, Suspended())

    with pytest.raises(ReplayHazardError, match=r"\('succeeded', '1'\), first: \('Suspended',\)"):
        asyncio.run(check())


def test_an_exit_in_the_replay_is_a_hazard() -> None:
    asked = Counter()

    @workflow
    async def main() -> None:
        if asked() > 1:
            raise SystemExit("only on the replay")

    with pytest.raises(ReplayHazardError, match="only on the replay"):
        create_test_handler(main)({})


def test_where_an_object_lies_decides_nothing() -> None:
    @workflow
    async def main() -> None:
        raise ValueError(f"no way to handle {[object() for _ in range(9)]}")

    with pytest.raises(ValueError, match="no way to handle .*object at 0x"):
        create_test_handler(main)({})
