"""Functions as users of AWS's SDK write them: what all have in common, and where they are kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from aws_durable_execution_sdk_python.config import Duration
from aws_durable_execution_sdk_python.retries import RetryPresets
from aws_durable_execution_sdk_python.serdes import JsonSerDes, PassThroughSerDes, SerDes

from tests.aws.sdk.sdk_runs import Case

SECOND = Duration.from_seconds(1)
LARGE = "x" * 300_000

F = TypeVar("F", bound=Callable[..., Any])

CASES: dict[str, Case] = {}


def case(**around: Any) -> Callable[[F], F]:
    """Add a function to the cases, under its name."""

    def add(function: F) -> F:
        CASES[function.__name__] = Case(function, **around)
        return function

    return add


def described(error: Any) -> list[Any]:
    """Tell all that a function can see of an operation's error."""
    cause = error.__cause__
    return [
        type(error).__name__,
        error.message,
        error.error_type,
        error.data,
        error.stack_trace,
        cause and [type(cause).__name__, str(cause), getattr(cause, "error_type", None)],
    ]


class ShopError(Exception):
    """An error of the application's own."""


def attempts(failures: int, error: Exception) -> Any:
    def body(step: Any) -> int:
        if step.attempt <= failures:
            raise error
        return int(step.attempt)

    return body


QUICK = RetryPresets.fixed(SECOND)


class Reversed(SerDes[Any]):
    """Text written backwards, with what it was told of its operation checked."""

    def serialize(self, value: Any, serdes_context: Any) -> str:
        assert len(serdes_context.operation_id) == 64
        assert serdes_context.durable_execution_arn
        return json.dumps(value)[::-1]

    def deserialize(self, data: str, serdes_context: Any) -> Any:
        return json.loads(data[::-1])


class Nothing(PassThroughSerDes[Any]):
    """Stores nothing at all."""

    def serialize(self, value: Any, _: Any) -> Any:
        return None


class Unreadable(JsonSerDes[Any]):
    """Writes what it can't read."""

    def deserialize(self, data: str, _: Any) -> Any:
        raise ValueError("can't be read")
