"""What the handler does with one invocation, over a service in memory."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow import (
    NonDeterminismError,
    RetryableError,
    UsageError,
    WorkflowContext,
    current_step,
    step,
    workflow,
)
from pyworkflow._protocol.executions import ExecutionStatus
from pyworkflow._protocol.limits import MAX_RESPONSE_BYTES
from pyworkflow._runtime.clock import SystemClock
from pyworkflow.aws import aws_workflow_handler, handler
from pyworkflow.aws._logging import InvocationFilter
from pyworkflow.errors import (
    OutOfTimeError,
    RequestRefusedError,
    ServiceError,
    StaleTokenError,
)
from pyworkflow.services import awslambda
from pyworkflow.services.memory import ImmediateMemoryService
from tests.architecture import loaded_by_import
from tests.aws.lambda_world import ROOT
from tests.runtime.world import WatchedService

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyworkflow.aws.handler import WorkflowHandler

INPUT = {"order": "A"}


class Context:
    """What Lambda says of an invocation."""

    aws_request_id = "request-1"

    def __init__(self, remaining_ms: int = 900_000) -> None:
        self._remaining_ms = remaining_ms

    def get_remaining_time_in_millis(self) -> int:
        return self._remaining_ms


class Lambda:
    """The service and the function's process in one."""

    def __init__(self) -> None:
        self.memory = ImmediateMemoryService(SystemClock().now_ms)
        self.service = WatchedService(self.memory)
        self.execution_id = ""
        self.name = "run-1"

    def invoke(
        self, function: WorkflowHandler[..., Any], context: Any = None, value: object = None
    ) -> dict[str, Any]:
        if not self.execution_id:
            payload = json.dumps(INPUT if value is None else value)
            self.execution_id = self.memory.start(
                function.workflow.name, payload, execution_name=self.name
            )
        answer = function(self.event(), context or Context())
        assert isinstance(answer, dict)
        return answer

    def event(self) -> dict[str, Any]:
        arn = self.execution_id
        return {"DurableExecutionArn": arn, "CheckpointToken": "t", "InitialExecutionState": {}}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Lambda:
    aws = Lambda()
    monkeypatch.setattr(handler, "lambda_service", lambda: aws.service)
    monkeypatch.setattr(
        awslambda,
        "invocation_from_event",
        lambda event: aws.memory.claim(event["DurableExecutionArn"]),
    )
    return aws


@step
async def ship(order: str) -> str:
    return f"{order} shipped"


# -- answers -------------------------------------------------------------------------------------


def test_a_result(aws: Lambda) -> None:
    @aws_workflow_handler
    @workflow
    async def main(order: str) -> dict[str, str]:
        return {"status": await ship(order)}

    assert aws.invoke(main) == {"Status": "SUCCEEDED", "Result": '{"status":"A shipped"}'}
    assert aws.service.moves() == [["STEP START ship", "STEP SUCCEED ship"]]


def test_an_error(aws: Lambda, caplog: pytest.LogCaptureFixture) -> None:
    @aws_workflow_handler
    @workflow
    async def main(order: str) -> None:
        raise LookupError(order)

    answer = aws.invoke(main)
    assert answer["Status"] == "FAILED"
    error = answer["Error"]
    assert set(error) == {"ErrorMessage", "ErrorType", "ErrorData", "StackTrace"}
    assert (error["ErrorMessage"], error["ErrorType"]) == ("A", "LookupError")
    assert error["StackTrace"][-1].endswith("raise LookupError(order)")
    assert all(isinstance(one, str) for one in [error["ErrorData"], *error["StackTrace"]])
    (record,) = caplog.records
    assert record.getMessage() == "'main' failed"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


class Leaving(BaseException):
    """An exit of a library's own, as pytest's and trio's are."""


EXITS = [SystemExit(2), KeyboardInterrupt("stop"), Leaving("left"), asyncio.CancelledError("mine")]


def exiting_bodies(error: BaseException) -> dict[str, Callable[[WorkflowContext], Any]]:
    """Return ways to run a body that raises ``error``, by the kind of the body."""

    def sync(*_: Any) -> None:
        raise error

    async def on_loop(*_: Any) -> None:
        raise error

    async def on_loop_later(*_: Any) -> None:
        await asyncio.sleep(0)
        raise error

    async def undo(ctx: WorkflowContext) -> None:
        async with ctx.saga() as saga:
            saga.add(step(retry=False)(sync))
            raise ValueError

    async def block(body: Callable[[], None]) -> None:
        body()

    return {
        "in a thread": lambda _: block(step(retry=False)(sync)),
        "in a thread, with a timeout": lambda _: block(step(retry=False, timeout="1m")(sync)),
        "inline": lambda _: block(step(retry=False, inline=True)(sync)),
        "on the loop": lambda _: step(retry=False)(on_loop)(),
        "on the loop, later": lambda _: step(retry=False)(on_loop_later)(),
        "check": lambda ctx: ctx.wait_for_condition(sync, every="1s", until=bool),
        "until": lambda ctx: ctx.wait_for_condition(lambda _: 0, 0, every="1s", until=sync),
        "submitter": lambda ctx: ctx.wait_for_callback(sync, retry=False),
        "compensation": undo,
    }


@pytest.mark.parametrize("error", [*EXITS, StopIteration()], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("kind", exiting_bodies(SystemExit()))
def test_a_body_that_leaves_fails_its_step(aws: Lambda, kind: str, error: BaseException) -> None:
    @aws_workflow_handler
    @workflow
    async def main(ctx: WorkflowContext) -> str:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever Exception the body gives
            await exiting_bodies(error)[kind](ctx)
        failure: Any = caught.value
        if isinstance(failure, ExceptionGroup):
            failure = failure.exceptions[-1]
        return str(failure)

    answer = aws.invoke(main, value={})
    assert answer["Status"] == "SUCCEEDED"
    assert type(error).__name__ in answer["Result"]


async def exit_of_a_task(error: BaseException) -> None:
    async def leave() -> None:
        raise error

    await asyncio.gather(leave())


@pytest.mark.parametrize("error", EXITS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("kind", ["async", "blocking", "child", "task"])
def test_workflow_code_that_leaves_fails_the_execution(
    aws: Lambda, kind: str, error: BaseException
) -> None:
    async def in_async_code(ctx: WorkflowContext) -> None:
        await ship("A")
        if kind == "child":
            await ctx.child(in_a_child)
        if kind == "task":
            await exit_of_a_task(error)
        raise error

    async def in_a_child() -> None:
        raise error

    def in_blocking_code() -> None:
        ship.submit("A").result()
        raise error

    code: Any = in_blocking_code if kind == "blocking" else in_async_code
    main: WorkflowHandler[..., Any] = aws_workflow_handler(workflow(name="main")(code))
    answer = aws.invoke(main, value={})
    assert answer["Status"] == "FAILED"
    assert answer["Error"]["ErrorType"].endswith(type(error).__name__)

    @aws_workflow_handler
    @workflow
    async def goes_on(order: str) -> str:
        return await ship(order)

    aws.execution_id, aws.name = "", "run-2"
    assert aws.invoke(goes_on)["Status"] == "SUCCEEDED"


def test_an_input_that_does_not_fit(aws: Lambda) -> None:
    @aws_workflow_handler
    @workflow
    async def main(ordre: str) -> None:
        raise AssertionError

    answer = aws.invoke(main)
    assert answer["Status"] == "FAILED"
    assert answer["Error"]["ErrorType"] == "pyworkflow.errors.InputError"


def test_a_wait(aws: Lambda) -> None:
    @aws_workflow_handler
    @workflow
    def main(ctx: WorkflowContext, order: str) -> None:
        ctx.sleep("5m")

    assert aws.invoke(main) == {"Status": "PENDING"}
    assert aws.invoke(main) == {"Status": "PENDING"}
    assert aws.service.moves() == [["WAIT START"]]


def test_a_revoked_token(aws: Lambda) -> None:
    @aws_workflow_handler
    @workflow
    async def main(order: str) -> str:
        return await ship(order)

    aws.service.revoke_at = 1
    assert aws.invoke(main) == {"Status": "PENDING"}
    assert aws.memory.operations(aws.execution_id)[1].payload == '"A shipped"'


def test_history_and_code_that_disagree_are_raised(aws: Lambda) -> None:
    @aws_workflow_handler
    @workflow(name="main")
    async def before(ctx: WorkflowContext, order: str) -> None:
        ctx.sleep("5m")

    @aws_workflow_handler
    @workflow(name="main")
    async def after(order: str) -> str:
        return await ship(order)

    aws.invoke(before)
    with pytest.raises(NonDeterminismError, match="ship"):
        aws.invoke(after)
    assert aws.invoke(before) == {"Status": "PENDING"}  # with code that fits it goes on


@pytest.mark.parametrize(
    ("text", "extra", "is_recorded"),
    [
        ("x", MAX_RESPONSE_BYTES // 12 + 1, False),
        ("x", MAX_RESPONSE_BYTES - 41, False),
        ("x", MAX_RESPONSE_BYTES - 40, True),
        ('"', MAX_RESPONSE_BYTES // 3, True),  # escaped twice
        ("€", MAX_RESPONSE_BYTES // 6, True),  # three bytes in the payload, six in the answer
        ("€", MAX_RESPONSE_BYTES // 7, False),
    ],
)
def test_a_result_too_large_for_an_answer(
    aws: Lambda, text: str, extra: int, is_recorded: bool
) -> None:
    @aws_workflow_handler
    @workflow
    async def main(order: str) -> str:
        return text * extra

    answer = aws.invoke(main)
    assert answer["Status"] == "SUCCEEDED"
    assert (answer["Result"] == "") == is_recorded
    assert aws.service.moves() == [["EXECUTION SUCCEED"]] * is_recorded
    assert len(json.dumps(answer)) <= MAX_RESPONSE_BYTES
    if is_recorded:
        summary = aws.memory.get(aws.execution_id)
        assert summary.status is ExecutionStatus.SUCCEEDED
        assert json.loads(summary.result or "") == text * extra


# -- the service ---------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [StaleTokenError("used"), ServiceError("no network")])
def test_what_another_invocation_may_solve_is_raised(aws: Lambda, error: ServiceError) -> None:
    @aws_workflow_handler
    @workflow
    async def main(order: str) -> str:
        return await ship(order)

    aws.service.faults[1] = error
    with pytest.raises(type(error)):
        aws.invoke(main)
    assert aws.invoke(main)["Status"] == "SUCCEEDED"


def test_what_the_service_refuses_for_good_fails_the_execution(aws: Lambda) -> None:
    @aws_workflow_handler
    @workflow
    async def main(order: str) -> str:
        return await ship(order)

    aws.service.faults[1] = RequestRefusedError("no such key", code="KMSNotFoundException")
    answer = aws.invoke(main)
    assert answer["Status"] == "FAILED"
    assert answer["Error"]["ErrorType"] == "pyworkflow.errors.RequestRefusedError"
    assert "no such key" in answer["Error"]["ErrorMessage"]


# -- time ----------------------------------------------------------------------------------------


def test_an_invocation_without_time_is_raised(aws: Lambda) -> None:
    runs: list[int] = []

    @step
    async def work() -> None:
        runs.append(1)

    @aws_workflow_handler
    @workflow
    async def main(order: str) -> None:
        await work()

    with pytest.raises(OutOfTimeError, match="steps wait to run"):
        aws.invoke(main, Context(remaining_ms=0))
    assert runs == []
    assert aws.invoke(main, Context())["Status"] == "SUCCEEDED"


@pytest.mark.parametrize(("retry_after", "is_soon"), [("30s", True), ("1h", False)])
def test_one_that_will_be_invoked_soon_is_pending(
    aws: Lambda, retry_after: str, is_soon: bool
) -> None:
    out_of_time = asyncio.Event()

    @step
    async def flaky() -> None:
        raise RetryableError(retry_after=retry_after)

    @step
    async def stuck() -> None:
        await out_of_time.wait()

    @aws_workflow_handler
    @workflow
    async def main(order: str) -> None:
        await asyncio.gather(flaky(), stuck())

    if is_soon:
        assert aws.invoke(main, Context(remaining_ms=200)) == {"Status": "PENDING"}
    else:
        with pytest.raises(OutOfTimeError):
            aws.invoke(main, Context(remaining_ms=200))


# -- events --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "found"),
    [
        ({"order": "A"}, "an object with the keys 'order'"),
        ({}, r"an object with the keys \(none\)"),
        ([1], "a list"),
        (None, "a NoneType"),
    ],
)
def test_an_event_that_is_no_invocation(event: object, found: str) -> None:
    @aws_workflow_handler
    @workflow
    async def main(order: str) -> None:
        raise AssertionError

    with pytest.raises(UsageError, match=rf"'main' was called outside .*{found}.*--durable-config"):
        main(event, Context())


def test_a_context_is_not_needed(aws: Lambda) -> None:
    @aws_workflow_handler
    @workflow
    async def main(order: str) -> str:
        return order

    aws.invoke(main)
    assert main(aws.event(), None) == {"Status": "SUCCEEDED", "Result": '"A"'}


# -- what stays from one invocation to the next --------------------------------------------------


def test_a_thread_has_one_loop_for_all_invocations(aws: Lambda) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    @step
    async def look() -> None:
        loops.append(asyncio.get_running_loop())
        asyncio.create_task(asyncio.Event().wait())  # noqa: RUF006 - it is left behind

    @aws_workflow_handler
    @workflow
    async def main(order: str) -> None:
        await look()

    numbers = itertools.count()  # a thread's id may be the one of a thread that is gone

    def thrice() -> None:
        for _ in range(3):
            aws.execution_id, aws.name = "", f"run-{next(numbers)}"
            aws.invoke(main)

    threads = [threading.Thread(target=thrice) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join(60)
    assert [loops[0]] * 3 == loops[:3]
    assert [loops[3]] * 3 == loops[3:]
    assert loops[0] is not loops[3]
    assert not any(asyncio.all_tasks(loop) for loop in loops)


def test_on_lambda_the_service_is_made_while_the_module_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []
    monkeypatch.setattr(handler, "lambda_service", lambda: made.append("service"))

    @workflow
    async def main() -> None:
        raise AssertionError

    aws_workflow_handler(main)
    assert made == []
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001")
    aws_workflow_handler(main)
    assert made == ["service"]


def test_there_is_one_service_for_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "us-west-2")
    handler.services.value.cache_clear()
    try:
        service = handler.lambda_service()
        assert isinstance(service, awslambda.LambdaService)
        assert handler.lambda_service() is service
    finally:
        handler.services.value.cache_clear()


def test_what_needs_no_lambda_needs_no_botocore() -> None:
    loaded = loaded_by_import("pyworkflow.aws.testing", ROOT / "src")
    assert "pyworkflow.aws.handler" in loaded
    assert "botocore" not in loaded


# -- logs ----------------------------------------------------------------------------------------


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[str, ...]]]:
    caplog.set_level(logging.INFO)

    def read() -> list[tuple[str, ...]]:
        names = ("execution_id", "execution_name", "aws_request_id")
        return [
            (record.name, record.getMessage(), *(getattr(record, name, "-") for name in names))
            for record in caplog.records
        ]

    return read


def test_each_record_says_where_it_belongs(
    aws: Lambda, records: Callable[[], list[tuple[str, ...]]]
) -> None:
    own = logging.getLogger("shop")

    @step
    def pay() -> None:
        own.info("thread")

    @step
    async def pack() -> None:
        own.info("task")
        current_step().logger.info("step")

    @aws_workflow_handler
    @workflow
    async def main(ctx: WorkflowContext, order: str) -> None:
        own.info("workflow")
        pay()
        await asyncio.gather(pack())
        ctx.logger.info("done")

    own.info("before")
    aws.invoke(main)
    own.info("after")
    ids = (aws.execution_id, "run-1", "request-1")
    assert records() == [
        ("shop", "before", "-", "-", "-"),
        ("shop", "workflow", *ids),
        ("shop", "thread", *ids),
        ("shop", "task", *ids),
        ("pyworkflow.step", "step", *ids),
        ("pyworkflow.workflow", "done", *ids),
        ("shop", "after", "-", "-", "-"),
    ]


def test_a_handler_has_the_filter_once(aws: Lambda, caplog: pytest.LogCaptureFixture) -> None:
    @aws_workflow_handler
    @workflow
    async def main(order: str) -> None:
        return None

    for _ in range(2):
        aws.invoke(main)
    assert sum(isinstance(one, InvocationFilter) for one in caplog.handler.filters) == 1


def test_payloads_are_logged_on_request(
    aws: Lambda, records: Callable[[], list[tuple[str, ...]]]
) -> None:
    @aws_workflow_handler(log_payloads=True)
    @workflow
    async def main(order: str) -> str:
        return await ship(order)

    aws.service.faults[1] = ServiceError("no network")
    with pytest.raises(ServiceError):
        aws.invoke(main)
    aws.invoke(main)
    assert [record[1] for record in records()] == [
        'input: {"order": "A"}',
        'input: {"order": "A"}',
        'result: "A shipped"',
    ]
    aws.invoke(main)
    assert [record[1] for record in records()][3:] == ['result: "A shipped"']


def test_payloads_are_not_logged_by_default(
    aws: Lambda, records: Callable[[], list[tuple[str, ...]]]
) -> None:
    @aws_workflow_handler()
    @workflow
    async def main(order: str) -> str:
        return order

    aws.invoke(main)
    assert records() == []
