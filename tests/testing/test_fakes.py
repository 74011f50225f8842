from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow import (
    FatalError,
    Retry,
    SerializationError,
    StepError,
    StepTimeoutError,
    UsageError,
    WorkflowContext,
    current_step,
    sleep,
    step,
    workflow,
)
from pyworkflow.aws.testing import MockDurableContext, create_test_handler
from pyworkflow.testing._fakes import Fake

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_SECONDS = 60
"""How long a test waits for a thread before it gives up."""

real: list[str] = []


@pytest.fixture(autouse=True)
def no_real_calls() -> None:
    real.clear()


@step
async def fetch(name: str) -> str:
    real.append(name)
    return f"real {name}"


@step
def compute(name: str, *, loud: bool = False) -> str:
    real.append(name)
    return name.upper() if loud else name


async def noop() -> None:
    """Do nothing."""


@workflow
async def both() -> list[str]:
    return [await fetch("a"), compute("b", loud=True)]


# -- what runs instead ---------------------------------------------------------------------------


def test_results() -> None:
    mock = MockDurableContext()
    mock.mock_step("fetch", result="fake")
    mock.mock_step("compute", result="fake, too")
    assert create_test_handler(both, mock)({}) == ["fake", "fake, too"]
    assert real == []
    assert mock.checkpoints == {"fetch": "fake", "compute": "fake, too"}


def test_none_is_a_result() -> None:
    @workflow
    async def main() -> Any:
        return await fetch.options(name="nothing")("a")

    mock = MockDurableContext()
    mock.mock_step("nothing", result=None)
    with pytest.raises(SerializationError, match="does not fit its type str"):
        create_test_handler(main, mock)({})
    assert real == []


@pytest.mark.parametrize("error", [LookupError("no"), LookupError])
def test_errors_are_raised_at_each_attempt(error: LookupError | type[LookupError]) -> None:
    mock = MockDurableContext()
    mock.mock_step("fetch", error=error)
    with pytest.raises(LookupError):
        create_test_handler(both, mock)({})
    assert [event.type for event in mock.history()].count("StepFailed") == 3
    assert mock.checkpoints == {}


def test_side_effects_are_called_with_the_arguments() -> None:
    calls: list[tuple[str, bool, int]] = []

    def sync_effect(name: str, *, loud: bool = False) -> str:
        calls.append((name, loud, current_step().attempt))
        return "sync"

    async def async_effect(name: str) -> str:
        await asyncio.sleep(0)
        calls.append((name, False, current_step().attempt))
        return "async"

    mock = MockDurableContext()
    # Either kind of function may stand for either kind of step.
    mock.mock_step("fetch", side_effect=sync_effect)
    mock.mock_step("compute", side_effect=sync_effect)
    assert create_test_handler(both, mock)({}) == ["sync", "sync"]
    mock.mock_step("fetch", side_effect=async_effect)
    assert create_test_handler(both, mock)({}) == ["async", "sync"]
    assert calls == [("a", False, 1), ("b", True, 1)] * 2
    assert real == []


def test_one_of_the_three() -> None:
    mock = MockDurableContext()
    for options in (
        {"result": 1, "error": ValueError},
        {"result": 1, "side_effect": len},
        {"error": ValueError, "side_effect": len},
    ):
        with pytest.raises(UsageError, match="one of result=, error= and side_effect="):
            mock.mock_step("fetch", **options)  # type: ignore[arg-type]
    assert Fake().seconds == 0


def test_a_later_fake_replaces_an_earlier_one() -> None:
    mock = MockDurableContext()
    mock.mock_step("fetch", error=ValueError)
    mock.mock_step("fetch", result="fake")
    assert create_test_handler(both, mock)({}) == ["fake", "B"]


def test_a_fake_for_a_step_that_never_runs_is_told() -> None:
    mock = MockDurableContext()
    mock.mock_step("fetsh", result="fake")
    mock.fail_step("comput")
    with pytest.warns(UserWarning, match="changed nothing") as caught:
        assert create_test_handler(both, mock)({}) == ["real a", "B"]
    assert [str(each.message) for each in caught] == [
        f"mock_step or fail_step of {name!r} changed nothing, for no step of that name has run. "
        "Steps that have: 'fetch', 'compute'. Correct the name, or leave it out"
        for name in ("comput", "fetsh")
    ]
    assert {each.filename for each in caught} == {__file__}


def test_a_fake_is_of_use_once_it_was_in_any_execution() -> None:
    @workflow
    async def one(name: str) -> str:
        return await fetch(name) if name == "a" else compute(name)

    mock = MockDurableContext()
    mock.mock_step("fetch", result="fake")
    handler = create_test_handler(one, mock)
    assert [handler({"name": name}) for name in "ab"] == ["fake", "b"]


def test_a_fake_for_a_step_behind_a_failure_is_none_too_many() -> None:
    mock = MockDurableContext()
    mock.mock_step("fetch", error=FatalError("down"))
    mock.mock_step("compute", result="never reached")
    with pytest.raises(FatalError, match="down"):
        create_test_handler(both, mock)({})


@pytest.mark.parametrize("error", [asyncio.CancelledError("odd"), GeneratorExit("odd")])
def test_a_fake_may_raise_what_is_no_exception(error: BaseException) -> None:
    mock = MockDurableContext()
    mock.mock_step("fetch", error=error)
    with pytest.raises(Exception, match=r"odd|cancelled") as caught:
        create_test_handler(both, mock)({})
    assert type(error).__name__ in getattr(caught.value, "error_type", "")


SYNC_ODD = [
    SystemExit(3),
    SystemExit,
    KeyboardInterrupt(),
    asyncio.CancelledError("odd"),
    GeneratorExit("odd"),
    StopIteration("odd"),
    ValueError("plain"),
]
WAYS = ["error", "side_effect", "async side_effect", "fail_step", "takes"]


@pytest.mark.parametrize(
    ("how", "error"),
    [
        (how, error)
        for how in WAYS
        for error in SYNC_ODD
        # No coroutine can raise it.
        if not (how == "async side_effect" and isinstance(error, StopIteration))
    ],
    ids=str,
)
@pytest.mark.parametrize("inline", [True, False])
def test_the_fake_of_a_sync_step_raises_as_its_body_would(
    how: str, inline: bool, error: BaseException | type[BaseException]
) -> None:
    def raises() -> None:
        raise error

    async def raises_later() -> None:
        await asyncio.sleep(0)
        raises()

    body = step(inline=inline, name="body", retry=False)(raises)

    @workflow
    def main() -> str:
        try:
            body()
        except (StepError, ValueError, StopIteration) as failure:
            return getattr(failure, "error_type", repr(failure))
        return "nothing was raised"

    expected = create_test_handler(main)({})
    mock = MockDurableContext()
    match how:
        case "error":
            mock.mock_step("body", error=error)
        case "side_effect":
            mock.mock_step("body", side_effect=raises)
        case "async side_effect":
            mock.mock_step("body", side_effect=raises_later)
        case "fail_step":
            mock.fail_step("body", error=error)
        case "takes":
            mock.mock_step("body", takes="10m")
    assert create_test_handler(main, mock)({}) == expected
    assert expected != "nothing was raised"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_the_fake_of_an_async_step_fails_with_an_exit_as_its_body_would(
    error: BaseException,
) -> None:
    mock = MockDurableContext()
    mock.mock_step("fetch", error=error)
    with pytest.raises(StepError, match=type(error).__name__):
        create_test_handler(both, mock)({})


# -- ordered failures ----------------------------------------------------------------------------


def test_ordered_failures_come_first() -> None:
    mock = MockDurableContext()
    mock.fail_step("fetch", 2)
    assert create_test_handler(both, mock)({}) == ["real a", "B"]
    assert real == ["a", "b"]
    failed = [event.error for event in mock.history() if event.type == "StepFailed"]
    assert [error.message for error in failed if error] == ["injected failure of fetch"] * 2
    # They are used up.
    create_test_handler(both, mock)({})
    assert "StepFailed" not in [event.type for event in mock.history()]


def test_ordered_failures_may_be_of_any_class() -> None:
    mock = MockDurableContext()
    mock.fail_step("fetch", error=ConnectionError("down"))
    mock.fail_step("fetch", times=2, error=KeyError)
    with pytest.raises(KeyError):
        create_test_handler(both, mock)({})
    failed = [event.error for event in mock.history() if event.type == "StepFailed"]
    assert [error.type for error in failed if error] == ["ConnectionError", "KeyError", "KeyError"]


def test_a_fake_follows_its_failures_and_they_take_its_time() -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> float:
        begin = ctx.now()
        await fetch.options(retry=Retry(delay=10, jitter=False))("a")
        return (ctx.now() - begin).total_seconds()

    mock = MockDurableContext()
    mock.mock_step("fetch", result="fake", takes=60)
    mock.fail_step("fetch")
    assert create_test_handler(main, mock)({}) == 60 + 10 + 60
    assert mock.checkpoints == {"fetch": "fake"}


# -- virtual time --------------------------------------------------------------------------------


def elapsed(mock: MockDurableContext, *bodies: Callable[[], Any]) -> list[float]:
    """When each of several concurrent branches of a workflow came to its end, in seconds."""

    @workflow
    async def main(ctx: WorkflowContext) -> list[float]:
        begin = ctx.now()

        async def branch(body: Callable[[], Any]) -> float:
            await body()
            return (ctx.now() - begin).total_seconds()

        return await asyncio.gather(*map(branch, bodies))

    times: list[float] = create_test_handler(main, mock)({})
    return times


def test_a_real_step_takes_no_time() -> None:
    assert elapsed(MockDurableContext(), lambda: fetch("a")) == [0]


def test_a_fake_takes_its_time_and_so_does_a_real_body() -> None:
    mock = MockDurableContext()
    mock.mock_step("fetch", result="fake", takes="10m")
    mock.mock_step("compute", takes="1h")
    times = elapsed(mock, lambda: fetch("a"), lambda: compute.submit("b"))
    assert times == [600, 3600]
    assert real == ["b"]
    assert mock.invocations == 1


@pytest.mark.parametrize("takes", [0, "1h"])
@pytest.mark.parametrize("inline", [True, False])
def test_a_real_body_that_takes_its_time_runs_where_it_always_does(
    inline: bool, takes: str | int
) -> None:
    @step(inline=inline)
    def body() -> str:
        name = current_step().name
        return f"{name}: {threading.current_thread().name.partition('_')[0]}"

    @workflow
    def main() -> str:
        return body()

    mock = MockDurableContext()
    mock.mock_step("body", takes=takes)
    expected = "body: MainThread" if inline else "body: pyworkflow-step"
    assert create_test_handler(main)({}) == expected
    assert create_test_handler(main, mock)({}) == expected


def test_a_sync_body_that_takes_its_time_is_left_to_itself_when_it_is_cancelled() -> None:
    has_begun, go_on, has_ended = threading.Event(), threading.Event(), threading.Event()

    @step
    def stuck() -> str:
        has_begun.set()
        assert go_on.wait(PATIENCE_SECONDS)
        has_ended.set()
        return "too late"

    @step
    async def sees_it_begin() -> None:
        assert await asyncio.to_thread(has_begun.wait, PATIENCE_SECONDS)

    @workflow
    async def main() -> str:
        begun = stuck.submit()
        await sees_it_begin()
        begun.cancel()
        return "done"

    mock = MockDurableContext()
    mock.mock_step("stuck")  # a time that it takes would not pass while the other one runs
    assert create_test_handler(main, mock)({}) == "done"
    assert not has_ended.is_set()
    go_on.set()
    assert has_ended.wait(PATIENCE_SECONDS)


def test_chains_of_fakes_keep_their_times_apart() -> None:
    async def chain() -> None:
        for name in "abc":
            await fetch(name)

    mock = MockDurableContext()
    mock.mock_step("fetch", takes=1)
    mock.mock_step("compute", takes=10)
    assert elapsed(mock, chain, lambda: compute.submit("z"), chain) == [3, 10, 3]
    assert real == ["a", "a", "b", "b", "c", "c", "z"]


def test_a_retry_becomes_due_while_another_fake_takes_its_time() -> None:
    @step(name="flaky", retry=Retry(delay=3, jitter=False))
    async def flaky() -> None:
        real.append(f"flaky {current_step().attempt}")

    mock = MockDurableContext()
    mock.fail_step("flaky", 2)
    mock.mock_step("fetch", takes=60)
    # 3 seconds and 6: both before the other's 60.
    assert elapsed(mock, flaky, lambda: fetch("a")) == [9, 60]
    assert real == ["flaky 3", "a"]
    assert mock.invocations == 1


def test_a_sleep_ends_while_a_fake_takes_its_time() -> None:
    mock = MockDurableContext()
    mock.mock_step("fetch", takes=60)
    slept, fetched = elapsed(mock, lambda: asyncio.sleep(10), lambda: fetch("a"))
    assert slept == pytest.approx(10, abs=0.2)  # its start lags
    assert fetched == 60


def test_a_fake_that_takes_longer_than_its_timeout() -> None:
    @step(timeout="5m", retry=Retry(max_attempts=2, delay=1, jitter=False))
    async def slow() -> str:
        real.append("slow")
        return "slow"

    @workflow
    async def main(ctx: WorkflowContext) -> list[Any]:
        begin = ctx.now()
        try:
            await slow()
        except StepTimeoutError as error:
            return [str(error), (ctx.now() - begin).total_seconds()]
        return []

    mock = MockDurableContext()
    mock.mock_step("slow", takes="10m")
    assert create_test_handler(main, mock)({}) == [
        "step 'slow' took longer than its timeout of 5m (attempt 2)",
        300 + 1 + 300,
    ]
    assert real == []
    mock.mock_step("slow", takes="5m")
    assert create_test_handler(main, mock)({}) == []
    assert real == ["slow"]


def test_asyncio_timeout_around_a_fake_that_takes_its_time() -> None:
    @workflow
    async def main(ctx: WorkflowContext) -> str:
        begin = ctx.now()
        try:
            async with asyncio.timeout(30):
                return await fetch("a")
        except TimeoutError:
            return f"{(ctx.now() - begin).total_seconds():.0f}"

    mock = MockDurableContext()
    mock.mock_step("fetch", takes="1h")
    assert create_test_handler(main, mock)({}) == "30"
    assert real == []
    (step_op,) = (op for op in mock.operations if op.name == "fetch")
    assert step_op.error is not None
    assert step_op.error.type.endswith("StepCancelledError")
    mock.mock_step("fetch", takes="20s")
    assert create_test_handler(main, mock)({}) == "real a"


def test_a_cancelled_step_is_cancelled_whatever_runs_for_it() -> None:
    @step
    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            real.append("cancelled")

    @workflow
    async def main() -> str:
        first, second = forever.submit(), fetch.submit("a")
        compute("b")
        first.cancel()
        second.cancel()
        return "done"

    mock = MockDurableContext()
    mock.mock_step("fetch", takes="1h")
    assert create_test_handler(main, mock)({}) == "done"
    assert real == ["b", "cancelled"]


def test_a_crash_gives_back_the_time_that_a_fake_would_have_taken() -> None:
    mock = MockDurableContext()
    mock.mock_step("compute", takes=10)
    mock.crash_after(1)
    assert elapsed(mock, lambda: fetch("a"), lambda: compute.submit("b")) == [0, 10]
    assert mock.invocations == 2


def test_no_time_passes_between_a_crash_and_the_next_invocation() -> None:
    @workflow
    async def main() -> None:
        async def begin_two() -> None:
            await sleep(10)
            await asyncio.gather(fetch("slow"), step(name="quick")(noop)())

        await asyncio.gather(step(name="hour")(noop)(), begin_two())

    for number in range(1, 6):
        mock = MockDurableContext()
        mock.mock_step("hour", result=None, takes="1h")
        mock.mock_step("fetch", result="", takes="10m")
        mock.crash_after(number)
        create_test_handler(main, mock)({})
        (fetched,) = (op for op in mock.operations if op.name == "fetch")
        assert fetched.end_ms == fetched.start_ms + 600_000, number
