from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyworkflow._engine.ops.base import Op
from pyworkflow._protocol.records import Action, Operation, OperationType, Status, SubType
from tests.engine.harness import Run


class Bare(Op):
    type = OperationType.STEP
    subtype = SubType.STEP


RECORD = Operation(id="x", type=OperationType.STEP, status=Status.STARTED, start_ms=0)


def issued(name: str | None = None, key: str | None = None) -> tuple[Op, Run]:
    made: list[Op] = []

    async def main(ctx: Any) -> None:
        made.append(Bare(ctx._execution, name, key))

    run = Run(main)
    return made[0], run


def test_an_operation_starts_replays_and_delivers_in_its_own_way() -> None:
    op, _ = issued()
    with pytest.raises(NotImplementedError):
        op.start()
    with pytest.raises(NotImplementedError):
        op.replay(RECORD)
    with pytest.raises(NotImplementedError):
        op.deliver(RECORD)


def test_changes_and_cancellation_mean_nothing_unless_it_says_so() -> None:
    op, run = issued()
    op.on_change(RECORD)
    op.abandon()
    assert not run.execution.outbox.is_waiting


@pytest.mark.parametrize(
    ("name", "key", "position", "awaits"),
    [
        (None, None, "position 1", "Step"),
        ("n", None, "position 1", "Step 'n'"),
        ("n", "k", "key 'k'", "Step 'n'"),
    ],
)
def test_messages_say_where_and_what_it_is(
    name: str | None, key: str | None, position: str, awaits: str
) -> None:
    op, _ = issued(name, key)
    assert op.position == position
    assert op.awaits() == awaits
    assert str(op) == f"the recorded result of {awaits}"


def test_updates_carry_its_identity() -> None:
    op, run = issued("n")
    op.write(Action.RETRY, urgent=True, delay_seconds=3)
    (update,) = run.execution.outbox.take_batch()
    assert (update.id, update.type, update.subtype, update.name, update.parent_id) == (
        op.id,
        "STEP",
        "Step",
        "n",
        None,
    )
    assert update.delay_seconds == 3


def test_nothing_durable_is_made_in_a_run_that_is_disposed_of() -> None:
    seen: list[str] = []

    async def main(ctx: Any) -> None:
        try:
            await asyncio.sleep(5)
        finally:
            try:
                Bare(ctx._execution, None)
            except BaseException as error:
                seen.append(type(error).__name__)
                raise

    Run(main).close()
    assert seen == ["Closing"]
