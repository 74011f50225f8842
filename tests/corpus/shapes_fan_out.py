"""Shapes of fan-outs whose branches suspend: each completion option, and all kinds side by side.

Timers far apart settle which branch ends first, so these are no races. Each shape has a twin whose
code blocks.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, NamedTuple

from pyworkflow import BatchError, SyncWorkflowContext, WorkflowContext, sleep, workflow
from tests.corpus.registry import act, act_blocking, act_fail, act_flaky, add, fail, flaky

APART = 1_000
"""Seconds between the ends of two branches: more than all attempts of a body take."""

ANSWERS = (("answer", 1.5 * APART),)
"""The one who is asked answers between the first and the second branch."""


class Case(NamedTuple):
    """A branch a letter: g(ood), b(ad), r(etried), a(sks), w(aits in vain)."""

    branches: str
    options: dict[str, Any]
    reason: str
    statuses: str


ALL, ENOUGH = "ALL_COMPLETED", "MIN_SUCCESSFUL_REACHED"
TOO_MANY = "FAILURE_TOLERANCE_EXCEEDED"

CASES = {
    "first_failure": Case("gbg", {}, TOO_MANY, "SFR"),
    "all_succeed": Case("rga", {}, ALL, "SSS"),
    "enough_with_an_answer": Case("gwag", {"min_successful": 2}, ENOUGH, "SRSR"),
    "too_few": Case("bbg", {"min_successful": 2}, ALL, "FFS"),
    "one_failure_too_many": Case("brbg", {"tolerated_failure_count": 1}, TOO_MANY, "FSFR"),
    "half_tolerated": Case("bgbr", {"tolerated_failure_percentage": 50}, ALL, "FSFS"),
    "one_slot": Case("gab", {"max_concurrency": 1}, TOO_MANY, "SSF"),
    "two_slots": Case("wgbrg", {"max_concurrency": 2, "min_successful": 2}, ENOUGH, "RSFSN"),
}
LETTERS = {"SUCCEEDED": "S", "FAILED": "F", "STARTED": "R", "NOT_STARTED": "N"}


async def branch(ctx: WorkflowContext, place: int, kind: str) -> Any:
    name = f"{place} {kind}"
    if kind in "aw":
        seen = await ctx.callback("answer" if kind == "a" else "in vain").result()
        return await act(name, seen)
    seen = await act(f"{name} before")
    await sleep((place + 1) * APART, name=name)
    if kind == "b":
        return await act_fail(name, seen)
    return await (act_flaky(name, 2, seen) if kind == "r" else act(name, seen))


def blocking_branch(ctx: SyncWorkflowContext, place: int, kind: str) -> Any:
    name = f"{place} {kind}"
    if kind in "aw":
        seen = ctx.callback("answer" if kind == "a" else "in vain").result()
        return act_blocking(name, seen)
    seen = act_blocking(f"{name} before")
    ctx.sleep((place + 1) * APART, name=name)
    if kind == "b":
        return fail.options(name=name).submit(name, seen).result()
    if kind == "r":
        return flaky.options(name=name).submit(name, 2, seen).result()
    return act_blocking(name, seen)


def told(batch: Any) -> list[Any]:
    return [
        str(batch.completion_reason),
        "".join(LETTERS[item.status] for item in batch.items),
        batch.results,
        [str(error) for error in batch.errors],
    ]


def expected(case: Case) -> list[Any]:
    places = list(enumerate(zip(case.branches, case.statuses, strict=True)))
    done = [f"{place} {kind}!" for place, (kind, status) in places if status == "S"]
    failed = [f"{place} {kind} failed" for place, (kind, status) in places if status == "F"]
    return [[case.reason, case.statuses, done, failed], "after!"]


def add_case(name: str, case: Case) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        branches = [partial(branch, ctx, *each) for each in enumerate(case.branches)]
        try:
            batch = await ctx.parallel(branches, **case.options)
        except BatchError as error:
            batch = error.result
        return [told(batch), await act("after")]

    def blocking(ctx: SyncWorkflowContext) -> Any:
        def one(kind: str, index: int) -> Any:
            return blocking_branch(ctx, index, kind)

        try:
            batch = ctx.map(one, case.branches, **case.options)
        except BatchError as error:
            batch = error.result
        return [told(batch), act_blocking("after")]

    for function, label in ((main, "parallel"), (blocking, "blocking_map")):
        add(
            workflow(name=f"{label}_{name}")(function),
            is_race=False,
            outcomes=(expected(case),),
            callbacks=ANSWERS,
        )


for _name, _case in CASES.items():
    add_case(_name, _case)


# -- a wait, a retrying step, a callback, a condition, and a timeout around all --------------------


def add_mixed(name: str, limit: int, outcome: list[Any], *asked: tuple[str, float]) -> None:
    async def main(ctx: WorkflowContext) -> Any:
        kinds = {kind: partial(branch, ctx, 0, kind) for kind in "gra"}
        try:
            async with asyncio.timeout(limit):
                batch = await ctx.parallel(kinds, name="mixed")
        except TimeoutError:
            return ["late", await act("after")]
        return [batch.results, await act("after")]

    def blocking(ctx: SyncWorkflowContext) -> Any:
        kinds = {kind: partial(blocking_branch, ctx, 0, kind) for kind in "gra"}

        async def limited() -> Any:
            async with asyncio.timeout(limit):
                return ctx.parallel(kinds, name="mixed").results

        try:
            results = ctx.child(limited)
        except TimeoutError:
            return ["late", act_blocking("after")]
        return [results, act_blocking("after")]

    for function, label in ((main, "mixed"), (blocking, "blocking_mixed")):
        add(
            workflow(name=f"{label}_{name}")(function),
            is_race=False,
            outcomes=(outcome,),
            callbacks=asked,
        )


add_mixed("in_time", 5 * APART, [["0 g!", "0 r!", "0 a!"], "after!"], ("answer", 2.5 * APART))
add_mixed("and_the_answer_is_late", 3 * APART, ["late", "after!"], ("answer", 4.5 * APART))
add_mixed("and_nobody_answers", 3 * APART, ["late", "after!"])
