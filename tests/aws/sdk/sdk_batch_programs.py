"""Maps and parallels."""

from __future__ import annotations

import threading
from typing import Any

from aws_durable_execution_sdk_python import (
    ChildContextError,
    ParallelBranch,
    ValidationError,
    complete_batch,
    continue_batch,
    durable_parallel_branch,
)
from aws_durable_execution_sdk_python.config import (
    CompletionConfig,
    CompletionOutcome,
    MapConfig,
    NestingType,
    ParallelConfig,
    StepConfig,
)

from tests.aws.sdk.sdk_context_programs import answer
from tests.aws.sdk.sdk_programs import (
    CASES,
    LARGE,
    QUICK,
    SECOND,
    Reversed,
    ShopError,
    attempts,
    case,
    described,
)
from tests.aws.sdk.sdk_runs import Case


def told(batch: Any) -> list[Any]:
    return [
        [[item.index, item.status.value, item.result] for item in batch.all],
        [None if error is None else error.to_dict() for error in batch.get_errors()],
        batch.completion_reason.value,
        [batch.success_count, batch.failure_count, batch.started_count, batch.total_count],
    ]


def work(child: Any, item: Any, index: int, items: Any) -> Any:
    child.step(lambda _: item, name="before")
    child.wait(SECOND)
    return [child.step(lambda _: item, name="work"), index, len(items)]


@case()
def maps(event: Any, context: Any) -> Any:
    first = context.map([10, 20, 30], work, name="all")
    config: Any = MapConfig(max_concurrency=2, item_namer=lambda item, index: f"{item}@{index}")
    second = context.map(["a", "b", "c"], work, name="two at once", config=config)
    context.wait(SECOND)
    return [told(first), told(second), told(context.map([], work))]


@durable_parallel_branch(name="decorated")
def branch(child: Any, number: int) -> Any:
    return child.step(lambda _: number)


@case()
def parallels(event: Any, context: Any) -> Any:
    first = context.parallel([branch(1), lambda child: child.step(lambda _: (2,))], name="both")
    context.wait(SECOND)
    named = [ParallelBranch(lambda child: child.wait(SECOND), name="sleeps"), branch(3)]
    return [told(first), told(context.parallel(named))]


def sometimes(child: Any, item: Any, index: int, items: Any) -> Any:
    child.step(lambda _: item, name="before")
    if item < 0:
        raise ShopError(f"{item} is negative")
    return item


Completion: Any = CompletionConfig  # its factories have no types
COMPLETIONS = {
    "fail_fast": CompletionConfig(),
    "all_completed": Completion.all_completed(),
    "all_successful": Completion.all_successful(),
    "first_successful": Completion.first_successful(),
    "two_successful": CompletionConfig(min_successful=2),
    "one_failure": CompletionConfig(tolerated_failure_count=1),
    "half": CompletionConfig(tolerated_failure_percentage=50),
    "both": CompletionConfig(min_successful=2, tolerated_failure_count=1),
    "own": CompletionConfig(
        should_complete=lambda status: (
            complete_batch(CompletionOutcome.FAILED)
            if status.completed_count >= 2
            else continue_batch()
        )
    ),
    "own_quorum": CompletionConfig(
        should_complete=lambda status: (
            complete_batch()
            if [item.status and item.status.value for item in status.items[:2]]
            == ["SUCCEEDED", "FAILED"]
            else continue_batch()
        )
    ),
}


def _completes(name: str, nesting: NestingType) -> None:
    def function(event: Any, context: Any) -> Any:
        config: Any = MapConfig(
            max_concurrency=1, completion_config=COMPLETIONS[name], nesting_type=nesting
        )
        batch = context.map([1, -2, 3, -4, 5], sometimes, name="items", config=config)
        context.wait(SECOND)
        return told(batch)

    CASES[f"completes_{name}_{nesting.value.lower()}"] = Case(function, is_handed_over=False)


for _name in COMPLETIONS:
    _completes(_name, NestingType.NESTED)
    _completes(_name, NestingType.FLAT)


@case()
def races(event: Any, context: Any) -> Any:
    def waits(child: Any) -> Any:
        child.step(lambda _: "asked", name="ask")
        return child.create_callback(name="never").result()

    def quick(child: Any) -> Any:
        child.wait(SECOND)
        return child.step(lambda _: 1, name="work")

    found = []
    for nesting in NestingType:
        config = ParallelConfig(
            completion_config=Completion.first_successful(), nesting_type=nesting
        )
        found.append(told(context.parallel([waits, quick], name=nesting.value, config=config)))
        context.wait(SECOND)
    return found


@case()
def races_of_large_results(event: Any, context: Any) -> Any:
    def branches(child: Any, item: Any, index: int, items: Any) -> Any:
        if index == 1:
            child.create_callback(name="never").result()
        child.wait(SECOND)
        child.step(lambda _: index, name="work")
        return LARGE

    found = []
    for nesting in NestingType:
        config: Any = MapConfig(
            max_concurrency=2, completion_config=COMPLETIONS["two_successful"], nesting_type=nesting
        )
        batch = context.map([1, 2, 3, 4], branches, name=nesting.value, config=config)
        context.wait(SECOND)
        found.append([[i.index, i.status.value, i.result and len(i.result)] for i in batch.all])
    return found


@case()
def stragglers(event: Any, context: Any) -> Any:
    found = []
    for nesting in NestingType:
        release = threading.Event()

        def slow(child: Any, release: threading.Event = release) -> Any:
            return child.step(lambda _: release.wait(60), name="slow")

        config = ParallelConfig(
            completion_config=Completion.first_successful(), nesting_type=nesting
        )
        branches: list[Any] = [slow, branch(1)]
        found.append(told(context.parallel(branches, name=nesting.value, config=config)))
        release.set()
        context.wait(SECOND)
    return found


@case(suspends=False)
def inputs_without_a_length(event: Any, context: Any) -> Any:
    def one(child: Any, item: int, index: int, items: Any) -> int:
        return child.step(lambda _: item)  # type: ignore[no-any-return]

    return told(context.map((number for number in [1, 2]), one, name="numbers"))


@case(sends={"one": answer(b"1"), "two": answer(b"2"), "three": answer(b"3")})
def branches_wait_for_callbacks(event: Any, context: Any) -> Any:
    def ask(child: Any, name: str, index: int, items: Any) -> Any:
        answer = child.create_callback(name=name).result()
        return child.step(lambda _: [name, answer], name="note")

    config: Any = MapConfig(max_concurrency=1)
    return told(context.map(["one", "two", "three"], ask, name="ask", config=config))


@case()
def branches_retry(event: Any, context: Any) -> Any:
    def flaky(child: Any, failures: int, index: int, items: Any) -> Any:
        config = StepConfig(retry_strategy=QUICK)
        return child.step(attempts(failures, ValueError("v")), name="flaky", config=config)

    return told(context.map([0, 2, 1], flaky, name="flaky"))


@case(suspends=False)
def failed_batch_raises(event: Any, context: Any) -> Any:
    config: Any = MapConfig(max_concurrency=1)
    batch = context.map([1, -2], sometimes, name="items", config=config)
    try:
        batch.throw_if_error()
    except ChildContextError as error:
        return described(error)


@case(suspends=False)
def predicate_that_raises(event: Any, context: Any) -> Any:
    def broken(status: Any) -> Any:
        raise ShopError("can't decide")

    config: Any = MapConfig(completion_config=CompletionConfig(should_complete=broken))
    try:
        context.map([1], sometimes, name="items", config=config)
    except ChildContextError as error:
        return described(error)


@case(suspends=False)
def what_a_predicate_sees(event: Any, context: Any) -> Any:
    seen: list[Any] = []

    def watch(status: Any) -> Any:
        counts = status.success_count, status.failure_count, status.completed_count
        items = [[i.index, i.name, i.status and i.status.value] for i in status.items]
        if [*counts, status.total_count, items] not in seen:
            seen.append([*counts, status.total_count, items])
        return continue_batch()

    completion = CompletionConfig(should_complete=watch)
    config: Any = MapConfig(max_concurrency=1, completion_config=completion)
    context.map([1, -2], sometimes, name="without names", config=config)
    config = MapConfig(
        max_concurrency=1, completion_config=completion, item_namer=lambda item, index: f"n{item}"
    )
    context.map([1, -2], sometimes, name="with names", config=config)
    return seen


@case(suspends=False)
def impossible_batch(event: Any, context: Any) -> Any:
    config: Any = MapConfig(completion_config=CompletionConfig(min_successful=3))
    try:
        context.map([1], sometimes, config=config)
    except ValidationError as error:
        return str(error)


@case()
def flat_batches(event: Any, context: Any) -> Any:
    config: Any = MapConfig(max_concurrency=2, nesting_type=NestingType.FLAT)
    first = context.map([10, 20, 30], work, name="flat", config=config)
    context.wait(SECOND)
    parallel = ParallelConfig(nesting_type=NestingType.FLAT)
    return [told(first), told(context.parallel([branch(1), branch(2)], config=parallel))]


@case()
def nested_batches(event: Any, context: Any) -> Any:
    def outer(child: Any, item: Any, index: int, items: Any) -> Any:
        return child.map([item, item + 1], work, name="inner").get_results()

    return told(context.map([1, 5], outer, name="outer"))


def _large(nesting: NestingType, completion: CompletionConfig) -> Any:
    def large(child: Any, item: int, index: int, items: Any) -> Any:
        child.step(lambda _: item, name="work")
        if item < 0:
            raise ShopError("negative")
        return LARGE[: 100_000 + item]

    def function(event: Any, context: Any) -> Any:
        config: Any = MapConfig(
            max_concurrency=1,
            nesting_type=nesting,
            completion_config=completion,
            summary_generator=lambda batch: f"{batch.success_count} done",
        )
        batch = context.map([1, 2, -3, 4, 5], large, name="large", config=config)
        context.wait(SECOND)
        sizes = [[i.index, i.status.value, i.result and len(i.result)] for i in batch.all]
        return [sizes, batch.completion_reason.value, told(batch)[1]]

    return function


for _nesting in NestingType:
    for _name in ("all_completed", "both"):
        _key = f"large_batch_{_name}_{_nesting.value.lower()}"
        CASES[_key] = Case(_large(_nesting, COMPLETIONS[_name]))


@case()
def batch_serdes(event: Any, context: Any) -> Any:
    config: Any = MapConfig(item_serdes=Reversed())
    first = context.map([1, 2], sometimes, name="items", config=config)
    config = MapConfig(completion_config=Completion.all_completed())
    second = context.map(
        [object(), 2], lambda c, item, i, items: item, name="objects", config=config
    )
    context.wait(SECOND)
    errors = [error.type for error in second.get_errors()]
    return [told(first), errors, second.get_results()]
