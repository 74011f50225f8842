from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, Field

import pyworkflow
from pyworkflow import (
    AsyncClient,
    Client,
    FatalError,
    InputError,
    SerializationError,
    StepError,
    UsageError,
    Workflow,
    WorkflowContext,
    step,
    workflow,
)
from pyworkflow._protocol.executions import ExecutionStatus, Paged
from pyworkflow.aws import aws_workflow_handler
from pyworkflow.aws.testing import MockDurableContext, create_test_handler
from pyworkflow.errors import (
    CallbackAlreadyCompletedError,
    CallbackError,
    CallbackNotFoundError,
    ExecutionAlreadyStartedError,
    ExecutionEndedError,
    ExecutionFailedError,
    ExecutionNotFoundError,
    ExecutionStatusError,
    ExecutionStoppedError,
    ExecutionTimedOutError,
    RequestRefusedError,
    ServiceError,
)
from tests.runtime.local import on_a_loop, open_callback


@dataclass
class Receipt:
    order: str
    amount: Decimal
    paid: datetime


class OutOfStockError(Exception):
    def __init__(self, item: str, left: int) -> None:
        super().__init__(f"{item}: {left} left")
        self.item = item
        self.left = left


@step
async def charge(order: str) -> Receipt:
    return Receipt(order, Decimal("49.90"), datetime(2026, 1, 2, tzinfo=UTC))


@workflow
async def order_workflow(ctx: WorkflowContext, order: str) -> Receipt:
    receipt = await charge(order)
    ctx.sleep("7d")
    return receipt


@workflow
async def asks(ctx: WorkflowContext, question: str = "well?") -> str:
    return str(await ctx.callback("answer", timeout="30d", result_type=str).result())


@workflow
def fails(item: str) -> None:
    raise OutOfStockError(item, 0)


@workflow
def echo(value: Any) -> Any:
    return value


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "executions.db"


@pytest.fixture
def client() -> Iterator[Client]:
    with Client.memory(skip_time=True) as client:
        yield client


@pytest.fixture
def talking(file: Path) -> Iterator[Client]:
    """A client without a worker: nothing runs."""
    with Client.local(file, worker=False) as client:
        yield client


# -- results -------------------------------------------------------------------------------------


def test_a_result_has_the_workflows_type(client: Client) -> None:
    handle = client.start(order_workflow, {"order": "A"}, execution_name="order-A")
    expected = Receipt("A", Decimal("49.90"), datetime(2026, 1, 2, tzinfo=UTC))
    assert handle.result() == expected
    assert (handle.name, handle.workflow_name) == ("order-A", "order_workflow")
    assert handle.status() is ExecutionStatus.SUCCEEDED
    assert client.get("order-A").result() == expected
    assert client.get(handle.id, order_workflow).result() == expected


@pytest.mark.parametrize("value", [None, True, 3, 1.5, "text", [1, None], {"a": {"b": []}}])
def test_any_json_value_goes_in_and_comes_out(client: Client, value: Any) -> None:
    assert client.start(echo, {"value": value}).result() == value


def test_without_the_workflow_a_result_is_plain_json(file: Path) -> None:
    with Client.local(file, skip_time=True) as client:
        client.start(order_workflow, "A", execution_name="order-A").result()
    with Client.local(file, worker=False) as client:
        plain = {"order": "A", "amount": "49.90", "paid": "2026-01-02T00:00:00Z"}
        assert client.get("order-A").result() == plain
        assert isinstance(client.get("order-A", order_workflow).result(), Receipt)


def test_the_workflows_own_error_is_raised(client: Client) -> None:
    handle = client.start(fails, {"item": "book"})
    with pytest.raises(OutOfStockError, match="book: 0 left") as caught:
        handle.result()
    assert (caught.value.item, caught.value.left) == ("book", 0)
    assert handle.status() is ExecutionStatus.FAILED


def test_an_error_whose_class_is_not_known_here_says_what_it_was(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = client.start(fails, {"item": "book"})
    with pytest.raises(OutOfStockError):
        handle.result()
    monkeypatch.delattr(sys.modules[__name__], "OutOfStockError")
    with pytest.raises(ExecutionFailedError, match="book: 0 left") as caught:
        handle.result()
    assert caught.value.error_type.endswith("OutOfStockError")


def test_a_result_that_takes_too_long_is_told(talking: Client) -> None:
    handle = talking.start(echo, 1, execution_name="slow")
    with pytest.raises(TimeoutError, match="'slow' of workflow 'echo'> did not end within 0.01s"):
        handle.result(timeout=0.01)
    assert handle.status() is ExecutionStatus.RUNNING


def test_a_stopped_execution_has_no_result() -> None:
    # Its time is not skipped, or its callback's timeout may come first.
    with Client.memory() as client:
        handle = client.start(asks, execution_name="stopped")
        assert handle.stop("not wanted any more").status is ExecutionStatus.STOPPED
        with pytest.raises(ExecutionStoppedError, match="not wanted any more"):
            handle.result()


def test_a_reason_that_nobody_could_read_is_not_recorded(file: Path) -> None:
    with Client.local(file, workflows=[asks]) as client:
        handle = client.start(asks, execution_name="wanted")
        callback_id = open_callback(handle)
        for reason in (None, 5, b"x"):
            with pytest.raises(UsageError, match="reported as text"):
                handle.stop(reason)  # type: ignore[arg-type]
            with pytest.raises(UsageError, match="reported as text"):
                client.fail_callback(callback_id, error_type=reason or 404)  # type: ignore[arg-type]
        assert handle.status() is ExecutionStatus.RUNNING
        client.complete_callback(callback_id, "fine")
        assert handle.result() == "fine"


def test_an_execution_times_out(client: Client) -> None:
    with pytest.raises(ExecutionTimedOutError):
        client.start(asks, timeout="1h").result()


def test_a_lambda_handler_is_started_as_its_workflow(client: Client) -> None:
    handled = aws_workflow_handler(echo)
    assert client.start(handled, [1]).result() == [1]


# -- starting ------------------------------------------------------------------------------------


def test_the_same_name_and_input_are_the_same_execution(talking: Client) -> None:
    first = talking.start(echo, {"value": {"a": 1, "b": 2}}, execution_name="one")
    again = talking.start(echo, {"value": {"b": 2, "a": 1}}, execution_name="one")
    assert again.id == first.id
    with pytest.raises(ExecutionAlreadyStartedError, match="'one' and another input"):
        talking.start(echo, {"value": {"a": 1}}, execution_name="one")
    assert talking.start(asks, execution_name="one").id != first.id
    assert len(talking.list()) == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [({"ordr": "A"}, "order: missing"), (None, "order"), ({"order": 5}, "order"), ([], "order")],
)
def test_an_input_that_does_not_fit_is_refused_before_anything_is_recorded(
    talking: Client, given: Any, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        talking.start(order_workflow, given)
    assert talking.list() == ()


def test_an_input_that_can_not_be_stored_is_refused(talking: Client) -> None:
    with pytest.raises(SerializationError, match="The input of workflow 'echo'"):
        talking.start("echo", object())


def test_a_name_that_this_clients_worker_does_not_know_is_refused(file: Path) -> None:
    with Client.local(file, workflows=[echo]) as client:
        assert client.start("echo", "by name").result() == "by name"
        with pytest.raises(UsageError, match="'ecko'; registered here: 'echo'"):
            client.start("ecko", 1)
    with Client.local(file, worker=False) as client:
        assert client.start("ecko", 1).status() is ExecutionStatus.RUNNING


def test_another_workflow_of_the_same_name_is_refused(client: Client) -> None:
    @workflow(name="echo")
    def impostor(value: Any) -> Any: ...

    assert client.start(echo, 1).result() == 1
    with pytest.raises(UsageError, match="two workflows have the name 'echo'"):
        client.start(impostor, 1)


@pytest.mark.parametrize("given", [print, 5, None, charge])
def test_what_is_no_workflow_is_refused(client: Client, given: Any) -> None:
    with pytest.raises(UsageError, match="expected a function with @workflow"):
        client.start(given)


@pytest.mark.parametrize("name", [5, b"one", "", "a b", "x" * 65])
def test_a_name_that_no_execution_can_have_is_refused(talking: Client, name: Any) -> None:
    with pytest.raises(ServiceError, match=f"of 1-64 of A-Z .*, found {name!r}; choose another"):
        talking.start(echo, 1, execution_name=name)
    assert talking.list() == ()


@pytest.mark.parametrize("timeout", [0, "0s", 0.0])
def test_an_execution_that_has_no_time_is_refused(talking: Client, timeout: Any) -> None:
    with pytest.raises(UsageError, match=f"of a second or more, found {timeout!r}; .* leave"):
        talking.start(echo, 1, timeout=timeout)
    assert talking.list() == ()


@pytest.mark.parametrize("number", [0, -1, "many", True])
def test_a_client_that_could_run_nothing_is_refused(number: Any) -> None:
    with pytest.raises(UsageError, match="max_concurrent of a client must be .* from 1, not"):
        Client.memory(max_concurrent=number)


# -- looking -------------------------------------------------------------------------------------


def test_executions_are_found_by_id_and_by_name(talking: Client) -> None:
    one = talking.start(echo, 1, execution_name="one")
    assert talking.get(one.id).id == talking.get("one").id == talking.get("one", "echo").id
    with pytest.raises(ExecutionNotFoundError, match="'two'"):
        talking.get("two")
    with pytest.raises(ExecutionNotFoundError):
        talking.get("one", asks)
    with pytest.raises(UsageError, match="is one of 'echo', not of 'asks'"):
        talking.get(one.id, asks)
    talking.start(asks, execution_name="one")
    with pytest.raises(UsageError, match="several workflows have the name 'one': 'asks', 'echo'"):
        talking.get("one")
    assert talking.get("one", echo).id == one.id


def test_executions_are_listed_newest_first(talking: Client) -> None:
    for number in range(3):
        talking.start(echo, number, execution_name=f"n{number}")
    talking.start(asks, execution_name="n1").stop()

    def names(**filters: Any) -> list[str]:
        return [each.name for each in talking.list(**filters)]

    assert names(workflow=echo) == ["n2", "n1", "n0"]
    assert names(workflow="asks") == ["n1"]
    assert names(status=ExecutionStatus.STOPPED) == ["n1"]
    assert len(names(status="RUNNING")) == 3
    with pytest.raises(ValueError, match="'WAITING'"):
        names(status="WAITING")
    assert names(execution_name="n2") == ["n2"]
    assert names(limit=2) == ["n1", "n2"]


@pytest.mark.parametrize("status", ["running", "WAITING", "", 5])
def test_a_status_that_there_is_none_of_is_refused(talking: Client, status: Any) -> None:
    with pytest.raises(ExecutionStatusError) as caught:
        talking.list(status=status)
    assert str(caught.value) == (
        "expected a status, one of RUNNING, SUCCEEDED, FAILED, TIMED_OUT, STOPPED, found "
        f"{status!r}; for executions in any of them leave status= out"
    )


@pytest.mark.parametrize("limit", [-1, "2", 1.5])
def test_a_limit_that_is_no_number_of_executions_is_refused(talking: Client, limit: Any) -> None:
    with pytest.raises(UsageError, match=r"limit of list\(\) must be a whole number from 0, not"):
        talking.list(limit=limit)
    assert talking.list(limit=0) == ()


def test_operations_history_and_summary_are_shown(client: Client) -> None:
    handle = client.start(order_workflow, {"order": "A"})
    handle.result()
    assert [operation.type for operation in handle.operations()] == ["EXECUTION", "STEP", "WAIT"]
    assert handle.history()[-1].type == "ExecutionSucceeded"
    summary = handle.summary()
    assert summary.input_payload == '{"order":"A"}'
    assert summary.end_ms is not None
    assert summary.end_ms - summary.start_ms >= 7 * 86_400_000


# -- callbacks -----------------------------------------------------------------------------------


def test_callbacks_are_answered(file: Path) -> None:
    with Client.local(file, workflows=[asks]) as client, Client.local(file, worker=False) as other:
        first, second = client.start(asks, "1"), client.start(asks, "2")
        answered = open_callback(first)
        other.heartbeat_callback(answered)
        other.complete_callback(answered, "fine")
        assert first.result() == "fine"
        other.fail_callback(open_callback(second), ValueError("no idea"))
        with pytest.raises(CallbackError, match="no idea") as caught:
            second.result()
        assert caught.value.error_type == "ValueError"
        third = client.start(asks, "3")
        ended = open_callback(third)
        third.stop("no need")
        for answer in (other.complete_callback, other.fail_callback, other.heartbeat_callback):
            with pytest.raises(CallbackAlreadyCompletedError, match="'answer'.*SUCCEEDED"):
                answer(answered)
            with pytest.raises(CallbackNotFoundError, match="nobody"):
                answer("nobody's")
            with pytest.raises(ExecutionEndedError, match="'answer'.*STOPPED"):
                answer(ended)


def test_bytes_are_sent_for_a_callback_as_they_are(file: Path) -> None:
    mock_ctx = MockDurableContext()
    with Client.local(file, workflows=[asks]) as client:
        for sent in (b"raw text", '"a JSON text ☺"'.encode()):
            handle = client.start(asks, "1")
            client.complete_callback(open_callback(handle), sent)
            mock_ctx.complete_callback("answer", sent)
            assert handle.result() == create_test_handler(asks, mock_ctx)("1")
        asked = open_callback(client.start(asks, "2"))
        for answer, callback_id in (
            (client.complete_callback, asked),
            (mock_ctx.complete_callback, "other"),
        ):
            with pytest.raises(UsageError, match=r"UTF-8.*0xff at 1"):
                answer(callback_id, b"a\xff")


@pytest.mark.parametrize("given", [5, None, b"x"])
def test_what_is_no_id_of_a_callback_is_refused(talking: Client, given: Any) -> None:
    for answer in (talking.complete_callback, talking.fail_callback, talking.heartbeat_callback):
        with pytest.raises(ServiceError, match=f"the id of a callback, found {given!r}, which"):
            answer(given)


def test_a_text_that_can_not_be_stored_as_it_is_is_told_in_other_letters(file: Path) -> None:
    with Client.local(file, workflows=[asks]) as client:
        failed, stopped = client.start(asks, "1"), client.start(asks, "2")
        client.fail_callback(open_callback(failed), FileNotFoundError("no caf\udce9"))
        with pytest.raises(CallbackError, match=r"no caf\\udce9"):
            failed.result()
        problem = stopped.stop("no caf\udce9").error
        assert problem is not None
        assert problem.message == r"no caf\udce9"


# -- open and closed -----------------------------------------------------------------------------


def test_a_client_is_used_inside_of_with(file: Path) -> None:
    client = Client.local(file)
    with pytest.raises(UsageError, match="not open"):
        client.list()
    with client:
        handle = client.start(echo, 1)
        assert handle.result() == 1
        with pytest.raises(UsageError, match="open already"), client:
            pass
    with pytest.raises(UsageError, match="not open"):
        handle.result()
    with client:  # it may be opened again
        assert client.get(handle.id).result() == 1


def test_a_file_that_is_none_is_told_and_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    bad = tmp_path / "text.db"
    bad.write_text("no database at all, but long enough to be looked at " * 20, "utf-8")
    with pytest.raises(ServiceError, match=r"text\.db"), Client.local(bad):
        pass
    assert threading.active_count() == before


def test_whoever_waits_when_the_client_closes_is_told(file: Path) -> None:
    errors: list[BaseException] = []
    client = Client.local(file, worker=False)
    with client:
        handle = client.start(echo, 1)
        asked = threading.Event()

        def wait() -> None:
            asked.set()
            try:
                handle.result()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        asked.wait()
    thread.join()
    (error,) = errors
    assert isinstance(error, UsageError)


def test_it_works_on_a_running_loop() -> None:
    async def cell_of_a_notebook() -> Any:
        with Client.memory(skip_time=True) as client:
            return client.start(order_workflow, "A").result().order

    assert asyncio.run(cell_of_a_notebook()) == "A"


def test_a_sync_step_may_use_the_client_and_an_async_one_may_not(client: Client) -> None:
    @step
    def from_a_thread() -> Any:
        return client.start(echo, "inner").result()

    @step(retry=False)
    async def from_the_loop() -> Any:
        return client.start(echo, "inner").result()

    @workflow
    def good() -> Any:
        return from_a_thread()

    @workflow
    async def bad() -> Any:
        return await from_the_loop()

    assert client.start(good).result() == "inner"
    with pytest.raises(UsageError, match="In an async step, use a client of your own"):
        client.start(bad).result()


def test_workflow_code_may_not_use_a_client(client: Client) -> None:
    @workflow
    def main() -> Any:
        return client.start(echo, "inner").id

    with pytest.raises(UsageError, match="called in workflow code"):
        client.start(main).result()


def test_a_step_that_exits_has_failed_and_the_worker_goes_on(file: Path) -> None:
    @step
    async def exits() -> None:
        sys.exit(3)

    @step
    async def whose_subtask_exits() -> None:
        async def leave() -> None:
            await asyncio.sleep(0)
            raise KeyboardInterrupt("by the code")

        await asyncio.gather(leave(), asyncio.sleep(0.01))

    @workflow
    async def main() -> list[str]:
        errors = []
        for each in (exits, whose_subtask_exits):
            with pytest.raises(StepError) as caught:
                await each()
            errors.append(str(caught.value))
        return errors

    @workflow
    async def leaves() -> None:
        sys.exit("by the workflow")

    with Client.local(file) as client:
        assert client.start(main).result() == [
            "SystemExit: 3",
            "KeyboardInterrupt: by the code",
        ]
        with pytest.raises(ExecutionFailedError, match="SystemExit: by the workflow"):
            client.start(leaves).result()
        assert client.start(echo, 1).result() == 1


@on_a_loop
async def test_a_worker_that_can_not_go_on_is_told_to_whoever_waits(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyworkflow.services.sqlite import SqliteService

    async def refuse(*args: object, **kwargs: object) -> None:
        raise RequestRefusedError("the file is damaged")

    monkeypatch.setattr(SqliteService, "claim_due", refuse)
    async with AsyncClient.local(file) as client:
        handle = await client.start(echo, 1)
        with pytest.raises(RequestRefusedError, match="damaged"):
            await handle.result()
        with pytest.raises(RequestRefusedError, match="damaged"):
            await client.join()


@on_a_loop
async def test_the_async_client_does_the_same(file: Path) -> None:
    async with AsyncClient.local(file, skip_time=True) as client:
        handle = await client.start(order_workflow, {"order": "A"}, execution_name="A")
        again = await client.start(order_workflow, "A", execution_name="B")
        receipts = await asyncio.gather(handle.result(), again.result())
        assert [receipt.order for receipt in receipts] == ["A", "A"]
        assert await (await client.get("A")).status() is ExecutionStatus.SUCCEEDED
    with pytest.raises(UsageError, match="not open"):
        await client.list()
    async with AsyncClient.local(file, worker=False) as client:
        with pytest.raises(UsageError, match="has no worker"):
            await client.join()


@on_a_loop
async def test_many_wait_at_once(file: Path) -> None:
    async with (
        AsyncClient.local(file, skip_time=True, workflows=[order_workflow]),
        AsyncClient.local(file, worker=False) as client,
    ):
        handles = [await client.start(order_workflow, str(number)) for number in range(50)]
        receipts = await asyncio.gather(*(handle.result() for handle in handles))
    assert [receipt.order for receipt in receipts] == [str(number) for number in range(50)]


# -- run -----------------------------------------------------------------------------------------


def test_run_returns_the_result_or_raises_the_error() -> None:
    assert pyworkflow.run(order_workflow, "A", skip_time=True).order == "A"
    with pytest.raises(OutOfStockError, match="book"):
        pyworkflow.run(fails, {"item": "book"})
    with pytest.raises(InputError):
        pyworkflow.run(fails)


def test_run_knows_the_workflows_that_are_invoked() -> None:
    @workflow
    async def asking(ctx: WorkflowContext) -> Any:
        return await ctx.invoke("echo", 1)

    assert pyworkflow.run(asking, workflows=[echo]) == 1


def counting() -> tuple[Workflow[..., Any], list[str], list[Exception]]:
    """Return a workflow of two steps, what ran of it, and errors to raise in the second."""
    ran: list[str] = []
    errors: list[Exception] = []

    @step
    async def first() -> None:
        ran.append("first")

    @step
    async def second() -> str:
        ran.append("second")
        if errors:
            raise errors.pop()
        return "done"

    @workflow(name="counting")
    async def main() -> str:
        await first()
        return await second()

    return main, ran, errors


def test_run_again_under_a_name_returns_what_is_recorded(file: Path) -> None:
    main, ran, _ = counting()
    assert pyworkflow.run(main, db=file, execution_name="one") == "done"
    assert pyworkflow.run(main, db=file, execution_name="one") == "done"
    assert ran == ["first", "second"]
    assert pyworkflow.run(main, db=file, execution_name="two") == "done"
    assert len(ran) == 4


def test_run_again_raises_the_recorded_error(file: Path) -> None:
    main, ran, errors = counting()
    errors.append(FatalError("no"))
    for _ in range(2):
        with pytest.raises(FatalError, match="no"):
            pyworkflow.run(main, db=file, execution_name="one")
    assert ran == ["first", "second"]


def test_run_goes_on_with_what_another_client_started(file: Path) -> None:
    main, ran, _ = counting()
    with Client.local(file, worker=False) as client:
        client.start(main, execution_name="one")
    assert pyworkflow.run(main, db=file, execution_name="one") == "done"
    assert ran == ["first", "second"]
    with Client.local(file, worker=False) as client:
        assert len(client.list()) == 1


class Day:
    today = datetime(2026, 1, 1, tzinfo=UTC)


def not_over(value: datetime) -> datetime:
    if value < Day.today:
        raise ValueError("is over")
    return value


@workflow
async def remind(ctx: WorkflowContext, at: Annotated[datetime, AfterValidator(not_over)]) -> str:
    return str(at.year)


def test_an_input_that_was_accepted_names_its_execution_later_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"at": "2026-02-01T00:00:00Z"}
    with Client.local(tmp_path / "shop.db", workflows=[remind]) as client:
        assert client.start(remind, given, execution_name="one").result() == "2026"
        monkeypatch.setattr(Day, "today", datetime(2026, 3, 1, tzinfo=UTC))
        assert client.start(remind, given, execution_name="one").result() == "2026"
        with pytest.raises(InputError, match="at: .*is over"):
            client.start(remind, given, execution_name="two")
        with pytest.raises(InputError, match="at: .*is over"):
            client.start(remind, given)


class Hidden(BaseModel):
    name: str
    token: str = Field("none", exclude=True)


def test_what_a_callback_would_lose_is_not_sent(tmp_path: Path) -> None:
    with Client.local(tmp_path / "shop.db", worker=False) as client:
        with pytest.raises(SerializationError, match="'token', which is excluded|\\.token"):
            client.complete_callback("any", Hidden(name="a", token="T"))
        with pytest.raises(SerializationError, match="'token', which is excluded|\\.token"):
            client.start("remind", {"at": [Hidden(name="a", token="T")]})


def test_a_service_that_repeats_a_marker_ends_no_client_in_a_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its defect is told, whatever is read in pages."""
    monkeypatch.setattr("pyworkflow._local.async_client.READ_AT_ONCE", 1)

    async def main() -> None:
        async with AsyncClient.local(tmp_path / "x.db", worker=False) as client:
            handle = await client.start("greet", 1)
            await client.start("greet", 2)
            service = client._opened.service

            def begins_at_the_start(sound: Any) -> Any:
                async def read(*given: Any, after: str | None = None, **options: Any) -> Any:
                    return Paged(await sound(*given, **options), "7")

                return read

            for name in ("list", "operations", "history"):
                monkeypatch.setattr(service, name, begins_at_the_start(getattr(service, name)))
            for read in (client.list, handle.operations, handle.history):
                with pytest.raises(ServiceError, match="'7' again after 1 pages"):
                    await read()
            with pytest.raises(ServiceError, match="again"):
                await client.list(limit=9)
            page = await client.list(limit=1)
            assert (len(page), page.marker) == (1, "7")

    asyncio.run(main())
