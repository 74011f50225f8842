"""Errors that have the function invoked again, instead of being recorded."""

from __future__ import annotations

from typing import Any

import pytest
from aws_durable_execution_sdk_python.config import (
    CallbackConfig,
    ChildConfig,
    Duration,
    InvokeConfig,
    MapConfig,
    StepConfig,
)
from aws_durable_execution_sdk_python.exceptions import (
    ExecutionError,
    InvocationError,
    RetryableSerDesError,
)
from aws_durable_execution_sdk_python.serdes import JsonSerDes
from aws_durable_execution_sdk_python.waits import WaitForConditionConfig, WaitForConditionDecision

from tests.aws.sdk.sdk_context_programs import answer
from tests.aws.sdk.sdk_runs import Case, differences, run

SECOND = Duration.from_seconds(1)


class Flaky(JsonSerDes[Any]):
    """Fails once to write, or to read."""

    def __init__(self, verb: str) -> None:
        self._verb = verb

    def serialize(self, value: Any, context: Any) -> str:
        self._pass("write")
        return super().serialize(value, context)

    def deserialize(self, data: str, context: Any) -> Any:
        self._pass("read")
        return super().deserialize(data, context)

    def _pass(self, verb: str) -> None:
        if verb == self._verb:
            self._verb = ""
            raise RetryableSerDesError("not now")


def step(context: Any, serdes: Any) -> Any:
    return context.step(lambda _: 1, name="s", config=StepConfig(serdes=serdes))


def child(context: Any, serdes: Any) -> Any:
    config = ChildConfig[Any](serdes=serdes)
    return context.run_in_child_context(
        lambda inner: inner.step(lambda _: 1), name="c", config=config
    )


def virtual(context: Any, serdes: Any) -> Any:
    config = ChildConfig[Any](serdes=serdes, is_virtual=True)
    return context.run_in_child_context(lambda inner: inner.step(lambda _: 1), config=config)


def branches(context: Any, serdes: Any) -> Any:
    config: Any = MapConfig(item_serdes=serdes, max_concurrency=1)
    batch = context.map([1, 2], lambda inner, item, i, items: item, name="m", config=config)
    return batch.get_results()


def condition(context: Any, serdes: Any) -> Any:
    config = WaitForConditionConfig[int](
        lambda state, attempt: WaitForConditionDecision.stop_polling(), 0, serdes
    )
    return context.wait_for_condition(lambda state, check: state + 1, config, name="w")


def payload_of_an_invoke(context: Any, serdes: Any) -> Any:
    return context.invoke("same", 7, config=InvokeConfig(serdes_payload=serdes))


def callback(context: Any, serdes: Any) -> Any:
    return context.create_callback("ask", CallbackConfig(serdes=serdes)).result()


def result_of_an_invoke(context: Any, serdes: Any) -> Any:
    return context.invoke("same", 7, config=InvokeConfig(serdes_result=serdes))


@pytest.mark.parametrize("verb", ["write", "read"])
@pytest.mark.parametrize(
    "program",
    [
        step,
        child,
        virtual,
        branches,
        condition,
        callback,
        payload_of_an_invoke,
        result_of_an_invoke,
    ],
)
def test_a_serdes_that_fails_for_a_while(program: Any, verb: str) -> None:
    runs = []
    for engine in ("sdk", "ours"):
        serdes = Flaky(verb)

        def function(event: Any, context: Any, serdes: Any = serdes) -> Any:
            try:
                context.step(lambda _: 0, name="before")
                found = program(context, serdes)
            except RetryableSerDesError:  # the SDK lets it pass through the code, ours does not
                raise
            context.wait(SECOND)
            return found

        invokes = {"same": lambda event, context: event}
        sends: Any = {"ask": answer(b"7")} if program is callback else {}
        runs.append(run(Case(function, sends=sends, invokes=invokes), engine))
    theirs, ours = runs
    assert theirs.status == "SUCCEEDED"
    assert ours.outcome == theirs.outcome
    assert len(ours.invocations) == len(theirs.invocations)
    assert not differences(theirs, ours), "".join(differences(theirs, ours))


@pytest.mark.parametrize("place", ["top", "child", "branch"])
def test_a_function_may_ask_to_be_invoked_again(place: str) -> None:
    runs = []
    for engine in ("sdk", "ours"):
        asked: list[int] = []

        def fails_once(context: Any, *_: Any, asked: list[int] = asked) -> int:
            asked.append(1)
            if len(asked) == 1:
                raise InvocationError("again")
            return len(asked)

        def function(event: Any, context: Any, fails_once: Any = fails_once) -> Any:
            context.step(lambda _: 0, name="before")
            match place:
                case "top":
                    return fails_once(context)
                case "child":
                    return context.run_in_child_context(fails_once, name="c")
                case _:
                    return context.map([1], fails_once, name="m").get_results()

        runs.append(run(Case(function), engine))
    theirs, ours = runs
    assert len(theirs.invocations) == 2
    assert ours.outcome == theirs.outcome
    assert ours.invocations == ["ours", "ours"]
    assert not differences(theirs, ours), "".join(differences(theirs, ours))


@pytest.mark.parametrize("place", ["child", "branch", "flat"])
def test_an_execution_error_ends_the_execution(place: str) -> None:
    def fatal(*_: Any) -> None:
        raise ExecutionError("all is lost")

    def function(event: Any, context: Any) -> Any:
        if place == "child":
            return context.run_in_child_context(fatal, name="c")
        return context.map([1], fatal, name="m")

    theirs, ours = (run(Case(function), engine) for engine in ("sdk", "ours"))
    assert theirs.status == "FAILED"
    assert ours.outcome == theirs.outcome


def test_what_else_runs_is_recorded_before_the_invocation_ends() -> None:
    ran: list[str] = []

    def function(event: Any, context: Any) -> Any:
        def one(inner: Any) -> Any:
            return inner.step(lambda _: ran.append("one"), name="one")

        def other(inner: Any) -> Any:
            if len(ran) < 2:
                ran.append("other")
                raise InvocationError("again")

        return context.parallel([one, other], name="both").completion_reason.value

    found = run(Case(function), "ours")
    assert found.outcome == ("SUCCEEDED", "ALL_COMPLETED", None)
    assert ran.count("one") == 1
