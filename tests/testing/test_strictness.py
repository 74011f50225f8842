from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow import ReplayHazardError, WorkflowContext, step, workflow
from pyworkflow.aws.testing import MockDurableContext, create_test_handler

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyworkflow import Workflow


@dataclass
class Order:
    id: str
    lines: int = 1


def hazard_of(flow: Workflow[..., Any]) -> str:
    """The complaint about a workflow that is fine without strictness."""
    create_test_handler(flow, MockDurableContext(strict=False))({})
    with pytest.raises(ReplayHazardError) as caught:
        create_test_handler(flow)({})
    return str(caught.value)


# -- results -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (Order("a"), r"$: Order came back as dict"),
        ({1: "a"}, r"$: 1 came back as another value or type"),
        ({"at": [(1, 2)]}, r"$.at[0]: tuple came back as list"),
        ({3}, r"$: set came back as list"),
    ],
    ids=["dataclass", "int key", "tuple", "set"],
)
def test_a_result_without_annotation_that_comes_back_otherwise(value: Any, complaint: str) -> None:
    @step
    def make():  # type: ignore[no-untyped-def] # noqa: ANN202
        return value

    @workflow
    async def main() -> None:
        await make.submit()

    text = hazard_of(main)
    assert text.startswith("the result of step 'make' does not come back as it was: " + complaint)
    assert "annotate the return type" in text


def test_annotated_results_are_fine() -> None:
    @step
    async def order() -> Order:
        return Order("a")

    @step
    async def counts() -> dict[int, tuple[int, ...]]:
        return {1: (1, 2)}

    @workflow
    async def main() -> str:
        return f"{await order()} {await counts()}"

    assert create_test_handler(main)({}) == "Order(id='a', lines=1) {1: (1, 2)}"


def test_the_result_of_a_fake_is_looked_at_too() -> None:
    @step
    async def make() -> Any:
        return None

    @workflow
    async def main() -> None:
        await make()

    mock = MockDurableContext()
    mock.mock_step("make", result=(1, 2))
    with pytest.raises(ReplayHazardError, match="'make'.*tuple came back as list"):
        create_test_handler(main, mock)({})


# -- arguments -----------------------------------------------------------------------------------


def _sync_append(items: list[int]) -> None:
    items.append(3)


async def _async_append(items: list[int]) -> None:
    items.append(3)


@pytest.mark.parametrize("body", [_sync_append, _async_append])
def test_a_body_that_changes_its_arguments(body: Callable[..., Any]) -> None:
    append = step(name="append")(body)

    @workflow
    async def main() -> None:
        await append.submit([1, 2])

    assert hazard_of(main) == (
        "step 'append' changed its arguments.\n"
        "  before: [[[1,2]],{}]\n  after:  [[[1,2,3]],{}]\n"
        "On a replay the body does not run, so the workflow would see the old value. Copy the "
        "argument, and return what changed."
    )


def test_a_body_that_changes_its_arguments_and_fails() -> None:
    @step(retry=False)
    def pop(items: list[int]) -> None:
        items.pop()
        raise ValueError

    @workflow
    async def main() -> None:
        try:
            await pop.submit([1])
        except ValueError:
            return

    assert hazard_of(main).startswith("step 'pop' changed its arguments.")


def test_a_body_that_takes_time_is_watched_too() -> None:
    @step
    def append(items: list[int]) -> None:
        items.append(3)

    @workflow
    async def main() -> None:
        await append.submit([1, 2])

    mock = MockDurableContext()
    mock.mock_step("append", takes="1h")
    with pytest.raises(ReplayHazardError, match="changed its arguments"):
        create_test_handler(main, mock)({})


def test_arguments_that_are_no_values_are_not_compared() -> None:
    class Client:
        def __init__(self) -> None:
            self.calls = 0

        def __repr__(self) -> str:
            raise AssertionError("nobody looks")

    @step
    async def call(client: Any) -> int:
        client.calls += 1
        return 1

    @workflow
    async def main() -> int:
        return await call(Client())

    assert create_test_handler(main)({}) == 1


def test_the_order_of_a_set_argument_does_not_count() -> None:
    @step
    async def count(names: set[str]) -> int:
        return len(names)

    @workflow
    async def main(ctx: WorkflowContext) -> int:
        names = {str(number) for number in range(50)}
        ctx.sleep(1)
        return await count(names)

    assert create_test_handler(main)({}) == 50


# -- code ----------------------------------------------------------------------------------------


@step
async def note(value: Any) -> None:
    """Do nothing."""


def test_state_that_a_child_changes_in_its_closure() -> None:
    @workflow
    async def main() -> None:
        seen: list[int] = []

        @workflow
        async def child() -> None:
            seen.append(1)

        await child()
        await note(len(seen))

    text = hazard_of(main)
    assert "step 'note' " in text
    assert "was called with other arguments on a replay." in text
    assert "first:    [[1],{}]\n  replayed: [[0],{}]" in text


def test_time_and_chance_in_arguments() -> None:
    @workflow
    async def timed() -> None:
        await note(time.perf_counter_ns())  # noqa: TID251

    @workflow
    async def thrown() -> None:
        await note(random.random())

    for flow in (timed, thrown):
        assert "other arguments on a replay" in hazard_of(flow)


class Unsteady:
    """A set whose order is another one each time, as that of objects is by their addresses."""

    def __init__(self) -> None:
        self.runs = 0

    def order(self) -> list[str]:
        self.runs += 1
        return ["a", "b"] if self.runs % 2 else ["b", "a"]


def test_the_order_of_a_set() -> None:
    unsteady = Unsteady()

    @workflow
    async def main() -> None:
        for name in unsteady.order():
            await note(name)

    with pytest.raises(ReplayHazardError, match="the order of a set") as caught:
        create_test_handler(main)({})
    assert 'first:    [["a"],{}]' in str(caught.value)


def test_what_was_seen_first_is_told() -> None:
    unsteady = Unsteady()

    @step
    async def pair() -> Any:
        return (1, 2)

    @workflow
    async def main() -> None:
        await pair()
        for name in unsteady.order():
            await note(name)

    with pytest.raises(ReplayHazardError, match="'pair' does not come back"):
        create_test_handler(main)({})


def test_a_hazard_of_a_failed_workflow_has_its_error_as_the_cause() -> None:
    @step
    async def pair() -> Any:
        return (1, 2)

    @workflow
    async def main() -> None:
        raise ValueError(await pair())

    with pytest.raises(ReplayHazardError, match="'pair' does not come back") as caught:
        create_test_handler(main)({})
    assert isinstance(caught.value.__cause__, ValueError)
