from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from pyworkflow import (
    FatalError,
    InputError,
    NonDeterminismError,
    SerializationError,
    UsageError,
    Workflow,
    WorkflowContext,
    sleep,
    step,
    workflow,
)
from pyworkflow._protocol.records import OperationType
from pyworkflow.aws import aws_workflow_handler
from pyworkflow.aws.testing import MockDurableContext, create_test_handler
from pyworkflow.errors import ReplayHazardError


@dataclass
class Receipt:
    order: str
    amount: int


@step
async def charge(order: str, amount: int = 1) -> Receipt:
    return Receipt(order, amount)


@step
def parse(text: str) -> int:
    return int(text)


# -- the handler ---------------------------------------------------------------------------------


@workflow
async def shop(ctx: WorkflowContext, order: str, amount: int = 2) -> Receipt:
    ctx.sleep("5m")
    return await charge(order, amount)


def test_it_returns_the_result() -> None:
    handler = create_test_handler(shop)
    assert handler({"order": "a"}) == Receipt("a", 2)
    assert handler({"order": "b", "amount": 3}) == Receipt("b", 3)


def test_a_lambda_handler_is_its_workflow() -> None:
    assert create_test_handler(aws_workflow_handler(shop))({"order": "a"}) == Receipt("a", 2)


def test_it_wants_a_workflow() -> None:
    with pytest.raises(UsageError, match="create_test_handler takes a function with @workflow"):
        create_test_handler(parse)  # type: ignore[arg-type]


def test_an_event_that_does_not_fit() -> None:
    mock = MockDurableContext()
    handler = create_test_handler(shop, mock)
    with pytest.raises(InputError) as caught:
        handler({"order": 1, "amuont": 3})
    assert len(caught.value.problems) == 2
    assert mock.operations == ()
    assert mock.invocations == 1
    with pytest.raises(SerializationError, match=r"The event can't be stored as JSON: \$\.order"):
        handler({"order": object()})


def test_the_workflows_own_error_object_is_raised() -> None:
    error = ValueError("mine")
    error.order = ["a"]  # type: ignore[attr-defined]

    @workflow
    async def main() -> None:
        raise error

    with pytest.raises(ValueError, match="mine") as caught:
        create_test_handler(main)({})
    assert caught.value is error


def test_the_error_of_a_step_is_of_its_own_class() -> None:
    @step(retry=False)
    async def fail() -> None:
        raise FileNotFoundError(2, "No such file", "order.json")

    @workflow
    async def main() -> None:
        await fail()

    mock = MockDurableContext()
    with pytest.raises(FileNotFoundError) as caught:
        create_test_handler(main, mock)({})
    assert caught.value.filename == "order.json"
    assert mock.checkpoints == {}
    assert [event.type for event in mock.history()][-1] == "ExecutionFailed"


def test_history_and_code_that_disagree() -> None:
    runs: list[int] = []

    @workflow
    async def main(ctx: WorkflowContext) -> None:
        runs.append(1)
        if len(runs) == 1:
            parse("1")
        ctx.sleep(60)

    with pytest.raises(NonDeterminismError):
        create_test_handler(main, MockDurableContext())({})


def test_it_works_inside_a_running_loop_and_on_threads() -> None:
    handler = create_test_handler(shop)

    async def main() -> object:
        return handler({"order": "loop"})

    assert asyncio.run(main()) == Receipt("loop", 2)

    barrier = threading.Barrier(4, timeout=60)
    results: dict[int, object] = {}

    def run(number: int) -> None:
        barrier.wait()
        results[number] = create_test_handler(shop)({"order": str(number)})

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {number: Receipt(str(number), 2) for number in range(4)}


def test_it_works_inside_a_step_of_another() -> None:
    inner = create_test_handler(shop)

    @step
    async def nested() -> int:
        receipt: Receipt = inner({"order": "nested"})
        return receipt.amount

    @workflow
    async def main() -> int:
        return await nested()

    assert create_test_handler(main)({}) == 2


# -- what the mock shows -------------------------------------------------------------------------


def test_nothing_before_the_first_execution() -> None:
    mock = MockDurableContext()
    assert mock.checkpoints == {}
    assert (mock.operations, mock.history(), mock.waits) == ((), (), [])
    assert (mock.wait_count, mock.invocations, mock.execution_id) == (0, 0, "")


def test_checkpoints_are_named_by_step_in_the_order_of_their_delivery() -> None:
    @step(retry=False)
    async def fail() -> None:
        raise FatalError

    @workflow
    async def child() -> int:
        return parse("4")

    @workflow
    async def main(ctx: WorkflowContext) -> None:
        await charge("a")
        parse("1")
        try:
            await fail()
        except FatalError:
            parse("2")
        ctx.patched("new")
        await child()
        await charge.options(name="refund")("a")
        await charge("b")

    mock = MockDurableContext()
    create_test_handler(main, mock)({})
    assert list(mock.checkpoints.items()) == [
        ("charge", Receipt("a", 1)),
        ("parse", 1),
        ("parse#2", 2),
        ("parse#3", 4),
        ("refund", Receipt("a", 1)),
        ("charge#2", Receipt("b", 1)),
    ]


def test_a_result_that_was_not_delivered_is_no_checkpoint() -> None:
    @step
    async def slow() -> int:
        await asyncio.Event().wait()
        return 1

    @workflow
    async def main() -> str:
        losing = slow.submit()
        await charge("a")
        losing.cancel()
        return "done"

    mock = MockDurableContext()
    assert create_test_handler(main, mock)({}) == "done"
    assert list(mock.checkpoints) == ["charge"]


def test_waits() -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> None:
        ctx.sleep("5m")
        ctx.sleep(0)
        await charge("a")
        await asyncio.gather(sleep(1.2), sleep("1h", name="long"))

    mock = MockDurableContext()
    mock.fail_step("charge", 2)
    create_test_handler(main, mock)({})
    assert mock.waits == [300, 2, 3600]
    assert mock.wait_count == 3
    # One for each sleep, the two of the gather apart, one for each retry, and the last.
    assert mock.invocations == 6


def test_operations_and_history() -> None:
    mock = MockDurableContext()
    create_test_handler(shop, mock)({"order": "a"})
    wait, charged = mock.operations
    assert (wait.type, charged.type) == (OperationType.WAIT, OperationType.STEP)
    assert charged.name == "charge"
    assert [event.type for event in mock.history()] == [
        "ExecutionStarted",
        "WaitStarted",
        "WaitSucceeded",
        "StepStarted",
        "StepSucceeded",
        "ExecutionSucceeded",
    ]
    assert mock.execution_id == mock.history()[0].operation_id


def test_each_call_is_a_new_execution_and_the_mock_shows_the_last() -> None:
    mock = MockDurableContext()
    handler = create_test_handler(shop, mock)
    handler({"order": "a"})
    assert mock.checkpoints["charge"].order == "a"
    handler({"order": "b"})
    assert mock.checkpoints == {"charge": Receipt("b", 2)}
    assert mock.invocations == 2
    other = create_test_handler(children, mock)
    other({})
    assert mock.checkpoints == {}


@workflow
async def children() -> None:
    """Do nothing."""


def test_it_counts_invocations_of_a_failed_execution() -> None:
    mock = MockDurableContext()
    mock.fail_step("charge", 3)
    with pytest.raises(RuntimeError, match="injected failure of charge"):
        create_test_handler(shop, mock)({"order": "a"})
    assert mock.invocations == 4
    assert mock.waits == [300]


# -- options -------------------------------------------------------------------------------------


def test_numbers_count_from_one() -> None:
    mock = MockDurableContext()
    with pytest.raises(UsageError, match=r"crash_after takes .* from 1, not 0"):
        mock.crash_after(0)
    with pytest.raises(UsageError, match=r"fail_step\('charge'\) takes .* from 1, not 0"):
        mock.fail_step("charge", 0)


def test_fakes_and_faults() -> None:
    mock = MockDurableContext()
    handler = create_test_handler(shop, mock)
    mock.mock_step("charge", result={"order": "fake", "amount": 7}, takes="1h")
    mock.fail_step("charge", error=ConnectionError)
    mock.crash_after(1)
    with pytest.raises(ReplayHazardError, match="dict came back as Receipt"):
        handler({"order": "a"})
    mock.mock_step("charge", side_effect=Receipt)
    assert handler({"order": "a"}) == Receipt("a", 2)
    assert mock.invocations == 3  # a crash after the first checkpoint of this one, too


def test_a_workflow_that_does_something_else_on_the_replay() -> None:
    runs: list[int] = []

    @workflow
    async def main() -> int:
        runs.append(1)
        return len(runs)

    @workflow
    async def fails() -> None:
        raise ValueError(parse(str(await main())))

    with pytest.raises(ReplayHazardError, match="it ended otherwise") as caught:
        create_test_handler(main)({})
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    # A child's outcome is recorded: nothing differs.
    with pytest.raises(ValueError, match="3"):
        create_test_handler(fails)({})


def test_without_strictness_hazards_pass() -> None:
    @step
    async def loose() -> Any:
        return (1, 2)

    @workflow
    async def main() -> Any:
        return await loose()

    assert create_test_handler(main, MockDurableContext(strict=False))({}) == [1, 2]


# -- the ends of runs ----------------------------------------------------------------------------


def sleeper(seen: list[tuple[str, bool]]) -> Workflow[..., Any]:
    @workflow
    async def main(ctx: WorkflowContext) -> None:
        try:
            ctx.sleep(60)
            await sleep(60)
        except Exception:
            seen.append(("except", ctx.is_closing))
        finally:
            seen.append(("finally", ctx.is_closing))

    return main


def test_finally_runs_once_a_disposal_and_except_never() -> None:
    seen: list[tuple[str, bool]] = []
    mock = MockDurableContext(strict=False)
    create_test_handler(sleeper(seen), mock)({})
    assert seen == [("finally", True), ("finally", True), ("finally", False)]
    assert mock.invocations == 3
    assert mock.wait_count == 2


def test_the_strict_replay_runs_the_code_once_more() -> None:
    seen: list[tuple[str, bool]] = []
    create_test_handler(sleeper(seen))({})
    assert [is_closing for _, is_closing in seen] == [True, True, False, False]


def test_nothing_durable_happens_while_a_run_is_disposed_of() -> None:
    reached: list[str] = []

    @workflow
    async def main(ctx: WorkflowContext) -> int:
        try:
            ctx.sleep(60)
        finally:
            if ctx.is_closing:
                reached.append("closing")
                await charge("never")
                reached.append("behind")
        return 1

    mock = MockDurableContext()
    assert create_test_handler(main, mock)({}) == 1
    assert reached == ["closing"]
    assert [op.type for op in mock.operations] == [OperationType.WAIT]
