from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from pyworkflow import step, workflow
from pyworkflow._engine.messages import Broken
from pyworkflow._engine.mismatch import mismatch_error, unconsumed_error
from pyworkflow._protocol.records import Operation, OperationType, Status, SubType
from pyworkflow.errors import NonDeterminismError
from tests.engine.harness import Run, Service


@step
async def a() -> Any: ...


@step
async def b() -> Any: ...


async def one() -> Any:
    return await a()


def broken(run: Run) -> str:
    assert isinstance(run.end, Broken), run.end
    assert isinstance(run.end.error, NonDeterminismError)
    assert run.launched == []
    assert run.in_flight is None
    assert (run.turn.launch, run.turn.write, run.turn.cancel) == ((), (), ())
    return str(run.end.error)


def recorded(function: Callable[..., Any] = one, **steps: Any) -> Service:
    run = Run(function)
    for name, value in (steps or {"a": 1}).items():
        run.done(name, value)
    run.close()
    return run.service


def changed(service: Service, step_name: str, /, **fields: Any) -> Service:
    operation = service.named(step_name)[0]
    service.operations[operation.id] = replace(operation, **fields)
    return service


# -- one operation -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"type": OperationType.WAIT}, "WAIT (Step) 'a'"),
        ({"subtype": SubType.WAIT_FOR_CONDITION}, "STEP (WaitForCondition) 'a'"),
        ({"subtype": None}, "STEP 'a'"),
        ({"name": "other"}, "STEP (Step) 'other'"),
        ({"name": None}, "STEP (Step) without a name"),
        ({"parent_id": "0123456789"}, "STEP (Step) 'a' in child context 01234567…"),
    ],
)
def test_each_difference_is_told(fields: dict[str, Any], expected: str) -> None:
    text = broken(Run(one, changed(recorded(), "a", **fields)))
    assert "history and code disagree at position 1." in text
    assert f"  recorded:  {expected}\n" in text
    assert "  attempted: STEP (Step) 'a'\n" in text


def test_the_error_says_causes_and_remedies() -> None:
    text = str(mismatch_error("this"))
    assert text.startswith("this\n")
    for word in ("Usual causes", "Python", "Remedies", "ctx.patched", "key", "Nothing was run"):
        assert word in text


def test_a_key_is_the_position_of_a_keyed_operation() -> None:
    async def keyed() -> Any:
        return await a.options(key="k")()

    text = broken(Run(keyed, changed(recorded(keyed), "a", name="other")))
    assert "disagree at key 'k'." in text


# -- where it is found ---------------------------------------------------------------------------


def test_inside_gather() -> None:
    async def before() -> Any:
        await asyncio.gather(a(), b())

    async def after() -> Any:
        await asyncio.gather(b(), a())

    assert "position 1-1" in broken(Run(after, recorded(before, a=1, b=2)))


def test_inside_a_child() -> None:
    inside = a

    @workflow
    async def child() -> Any:
        return await inside()

    async def main() -> Any:
        await child()

    run = Run(main)
    run.ok("a")
    run.write()
    run.close()
    inside = b
    assert "in child context" in broken(Run(main, run.service))


def test_a_child_that_became_a_step() -> None:
    @workflow
    async def child() -> Any:
        return None

    async def main() -> Any:
        await child.options(name="a")()

    run = Run(main)
    run.settle()
    run.close()
    assert "CONTEXT (RunInChildContext) 'a'" in broken(Run(one, run.service))


@pytest.mark.parametrize("kind", ["child", "sync child"])
def test_a_step_that_became_a_child_does_not_run_the_child(kind: str) -> None:
    ran: list[str] = []

    @workflow
    async def child() -> Any:
        ran.append("async")

    @workflow
    def sync_child() -> Any:
        ran.append("sync")

    async def main() -> Any:
        if kind == "child":
            await child.options(name="a")()
        sync_child.options(name="a")()

    run = Run(main, recorded())
    broken(run)
    run.close()
    assert ran == []


def test_in_blocked_sync_code() -> None:
    seen: list[BaseException] = []

    def main(ctx: Any) -> Any:
        try:
            ctx.sleep(5)
        except BaseException as error:
            seen.append(error)
            raise

    run = Run(main, recorded())
    assert "attempted: WAIT (Wait) without a name" in broken(run)
    assert seen == []
    run.close()
    assert [type(error).__name__ for error in seen] == ["Closing"]


def test_user_code_sees_nothing_of_it_until_the_run_is_disposed_of() -> None:
    log: list[str] = []

    async def main() -> Any:
        try:
            await b()
        except BaseException as error:
            log.append(type(error).__name__)
            raise
        finally:
            log.append("finally")

    run = Run(main, recorded())
    broken(run)
    assert log == []
    run.advance()
    broken(run)
    run.close()
    assert log == ["Closing", "finally"]


def test_the_first_difference_is_the_one_that_is_told() -> None:
    async def both() -> Any:
        futures = [a.options(name=n).submit() for n in "ab"]
        await asyncio.gather(*futures)

    service = recorded(both, a=1, b=2)
    changed(changed(service, "a", name="first"), "b", name="second")
    text = broken(Run(both, service))
    assert "'first'" in text
    assert "'second'" not in text


# -- history that nobody consumes ----------------------------------------------------------------


def test_it_is_told_when_the_workflow_returned() -> None:
    async def empty() -> Any:
        return 1

    text = broken(Run(empty, recorded()))
    assert "history has 1 operation(s) that the code no longer performs" in text
    assert "(the workflow returned)" in text
    assert "  recorded:  STEP (Step) 'a', SUCCEEDED\n" in text


def test_it_is_told_before_anything_new_is_launched() -> None:
    async def before() -> Any:
        await a()
        await b()
        await asyncio.Event().wait()

    async def after() -> Any:
        await a()
        await b.options(key="new")()

    text = broken(Run(after, recorded(before, a=1, b=2)))
    assert "(it waits for something new)" in text


def test_history_of_a_child_that_did_not_end_is_told() -> None:
    @workflow
    async def child(steps: tuple[Any, ...]) -> Any:
        for each in steps:
            await each()
        await a.options(name="last")()

    async def before() -> Any:
        await child((a, b))

    async def after() -> Any:
        await child(())

    service = recorded(before, a=1, b=2)
    assert "disagree" in broken(Run(after, service))


def test_only_a_few_are_listed() -> None:
    records = [
        Operation(id=str(n), type=OperationType.STEP, status=Status.STARTED, start_ms=0)
        for n in range(6)
    ]
    text = str(unconsumed_error(records, "here"))
    assert text.count("  recorded:  ") == 5
    assert "attempted: nothing (further ones left out)" in text
    assert "further" not in str(unconsumed_error(records[:5], "here"))
