"""The registry of the corpus: workflow shapes, the steps that they call, and what they must do.

A shape is told by how its outcome depends on what comes first:

* `always`: not at all. Whatever each step takes, the outcome is this one, and the operations whose
  ends reach the code are the same.
* `races`: it depends on who is faster. With ``one_of`` it is one of these, whoever that is.

Where steps may run at most once, a crash in their midst is an outcome of its own: ``interrupted``
lists those that it may lead to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyworkflow import FatalError, Retry, Workflow, current_step, step, workflow


@dataclass(frozen=True)
class Raises:
    """The outcome of a workflow that fails: the error's class and message."""

    type: str
    message: str


@dataclass(frozen=True)
class Shape:
    """A workflow of the corpus."""

    workflow: Workflow[..., Any]
    is_race: bool
    outcomes: tuple[Any, ...]
    """Those that it may have; empty: any."""
    interrupted: tuple[Any, ...] = ()
    callbacks: tuple[tuple[str, float], ...] = ()
    """Which callbacks somebody completes, and so many seconds after their creation."""

    @property
    def name(self) -> str:
        return self.workflow.name


SHAPES: dict[str, Shape] = {}

Function = Callable[..., Any]


def add(function: Function | Workflow[..., Any], **options: Any) -> Workflow[..., Any]:
    made = function if isinstance(function, Workflow) else workflow(function)
    assert made.name not in SHAPES, f"two shapes are named {made.name}"
    SHAPES[made.name] = Shape(made, **options)
    return made


def always(outcome: Any, **options: Any) -> Callable[[Function], Workflow[..., Any]]:
    return lambda function: add(function, is_race=False, outcomes=(outcome,), **options)


def races(*, one_of: tuple[Any, ...] = (), **options: Any) -> Callable[[Function], Any]:
    return lambda function: add(function, is_race=True, outcomes=one_of, **options)


# -- steps ---------------------------------------------------------------------------------------
# A step returns its name with a mark: the values of two steps differ, so that whoever is handed one
# shows whose outcome he has seen. What a step was given besides is what its caller had seen.


@step
async def do(name: str, *seen: Any) -> str:
    return f"{name}!"


@step(inline=True)
def do_inline(name: str, *seen: Any) -> str:
    return f"{name}!"


@step
def do_sync(name: str, *seen: Any) -> str:
    return f"{name}!"


@step(retry=Retry(max_attempts=4, delay="2s", jitter=False))
async def flaky(name: str, failures: int, *seen: Any) -> str:
    if current_step().attempt <= failures:
        raise ConnectionError(f"{name} failed")
    return f"{name}!"


@step
async def fail(name: str, *seen: Any) -> str:
    raise FatalError(f"{name} failed")


def act(name: str, *seen: Any, **options: Any) -> Any:
    return do.options(name=name, **options)(name, *seen)


def act_blocking(name: str, *seen: Any) -> str:
    return do_inline.options(name=name)(name, *seen)


def act_flaky(name: str, failures: int = 1, *seen: Any, **options: Any) -> Any:
    return flaky.options(name=name, **options)(name, failures, *seen)


def act_fail(name: str, *seen: Any) -> Any:
    return fail.options(name=name)(name, *seen)


def submit(name: str, *seen: Any, **options: Any) -> Any:
    return do.options(name=name, **options).submit(name, *seen)
