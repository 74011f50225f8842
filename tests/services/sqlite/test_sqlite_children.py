from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow._protocol.executions import ExecutionStatus
from pyworkflow._protocol.records import Action, Status
from pyworkflow.errors import ExecutionEndedError, InvalidUpdateError, StaleTokenError, StorageError
from pyworkflow.testing._updates import ERROR, FAIL, SUCCEED, callback, end, invoke, step, wait
from tests.services.sqlite.sqlite_world import Holder, Place, begin, lease, play
from tests.services.sqlite.test_sqlite_groups import Gate

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=[":memory:", "x.db"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.param if request.param == ":memory:" else str(tmp_path / request.param)


async def _invoked(here: Place, **options: Any) -> tuple[Holder, Holder]:
    """A parent that sleeps, and its child, claimed."""
    service = here.open(**options)
    await service.start("parent", "1", execution_name="order-1")
    (parent,) = await lease(service, "me", "parent")
    await parent.commit(
        invoke("i", name="charge", function_name="child", payload='{"a": 1}', tenant_id="t")
    )
    await parent.release()
    (child,) = await lease(service, "me", "child")
    return parent, child


def test_an_invoke_starts_an_execution(path: str) -> None:
    async def scene(here: Place) -> None:
        parent, child = await _invoked(here)
        service = parent.service
        assert child.invocation.operations[0].payload == '{"a": 1}'
        assert child.invocation.execution_name == "order-1.charge"
        assert child.invocation.workflow_name == "child"
        started = (await service.history(parent.id))[-1]
        assert (started.type, started.function_name) == ("ChainedInvokeStarted", "child")
        assert (started.tenant_id, started.payload) == ("t", '{"a": 1}')
        (found,) = await service.list(execution_name="order-1.charge")
        assert (found.id, found.workflow_name) == (child.id, "child")

    play(path, scene)


def test_names_of_children_take_none_from_anybody(path: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        holder = await begin(service)
        await holder.commit(
            invoke("i", function_name="child"), invoke("j", name=None, function_name="child")
        )
        names = {one.name for one in await service.list(workflow_name="child")}
        assert names == {f"{holder.id}.the chained_invoke", f"{holder.id}.j"}
        assert {
            one.input_payload for one in await service.list(workflow_name="child", payloads=True)
        } == {"null"}

    play(path, scene)


def test_two_invokes_of_one_workflow_have_two_names(path: str) -> None:
    """In one checkpoint and in several, also of an operation with a name made like ours."""

    async def scene(here: Place) -> None:
        parent, _ = await _invoked(here)
        holder = Holder(parent.service, await parent.service.claim(parent.id))
        await holder.commit(
            *(invoke(i, name=name, function_name="child") for i, name in [("j", "charge.2")]),
            *(invoke(i, name="charge", function_name="child") for i in "kl"),
            invoke("m", name="charge", function_name="another"),
        )
        await holder.commit(invoke("n", name="charge", function_name="child"))
        found = [one.name for one in await parent.service.list(workflow_name="child")]
        assert sorted(found) == [
            "order-1.charge",
            "order-1.charge.2",
            "order-1.charge.3",
            "order-1.charge.4",
            "order-1.charge.6",
        ]
        (other,) = await parent.service.list(workflow_name="another")
        assert other.name == "order-1.charge.5"

    play(path, scene)


def test_names_stay_apart_after_the_file_was_opened_anew(tmp_path: Path) -> None:
    async def first(here: Place) -> None:
        parent, _ = await _invoked(here)
        assert parent.id

    async def second(here: Place) -> None:
        service = here.open()
        (summary,) = await service.list(workflow_name="parent")
        holder = Holder(service, await service.claim(summary.id))
        await holder.commit(invoke("j", name="charge", function_name="child"))
        found = [one.name for one in await service.list(workflow_name="child")]
        assert sorted(found) == ["order-1.charge", "order-1.charge.2"]

    for scene in (first, second):
        play(str(tmp_path / "x.db"), scene)


@pytest.mark.parametrize(
    ("action", "content", "status"),
    [
        (SUCCEED, {"payload": '"out"'}, Status.SUCCEEDED),
        (FAIL, {"error": ERROR}, Status.FAILED),
    ],
)
def test_the_end_of_a_child_is_the_end_of_the_invoke(
    path: str, action: Action, content: dict[str, Any], status: Status
) -> None:
    async def scene(here: Place) -> None:
        parent, child = await _invoked(here)
        service = parent.service
        here.clock.advance(500)
        assert await service.next_due() is None
        await child.commit(end(child.id, action, **content))
        (again,) = await lease(service, "me", "parent")
        _, ended = again.invocation.operations
        assert (ended.status, ended.sequence) == (status, 1)
        assert (ended.payload, ended.error) == (content.get("payload"), content.get("error"))
        assert ended.end_ms == here.clock.ms
        told = (await service.history(parent.id))[-1]
        assert told.type == f"ChainedInvoke{status.capitalize()}"

    play(path, scene)


def test_a_stopped_child_ends_the_invoke_too(path: str) -> None:
    async def scene(here: Place) -> None:
        parent, child = await _invoked(here)
        await parent.service.stop(child.id, ERROR)
        (again,) = await lease(parent.service, "me", "parent")
        ended = again.invocation.operations[1]
        assert (ended.status, ended.error) == (Status.STOPPED, ERROR)

    play(path, scene)


def test_a_holder_hears_that_its_invoke_ended(path: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        await service.start("parent", "1")
        (parent,) = await lease(service, "me", "parent")
        await parent.commit(invoke("i", function_name="child"))
        (child,) = await lease(service, "you", "child")
        await child.commit(end(child.id, payload="7"))
        assert list(await service.changed("me", [parent.id])) == [parent.id]
        assert (await parent.commit())["i"].payload == "7"

    play(path, scene)


def test_a_child_does_not_end_without_a_parent_that_can_not_be_read(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        parent, child = await _invoked(here)
        service = parent.service
        vandal = sqlite3.connect(here.path)
        vandal.execute("UPDATE operations SET record = x'c1' WHERE key >> 32 = 1")
        vandal.execute("UPDATE executions SET version = 99 WHERE number = 1")
        vandal.commit()
        vandal.close()
        gate = await Gate.shut(service)
        pending = [
            asyncio.ensure_future(job)
            for job in (
                child.commit(end(child.id, payload="1")),
                service.start("greet", "1", execution_name="saves-the-group-so-far"),
            )
        ]
        await gate.open()
        told, started = await asyncio.gather(*pending, return_exceptions=True)
        assert isinstance(told, StorageError)
        assert isinstance(started, str)  # of the same group, and no affair of its
        assert (await service.get(child.id)).status is ExecutionStatus.RUNNING

    play(tmp_path / "x.db", scene)


def test_a_parent_that_is_over_takes_nothing(path: str) -> None:
    async def scene(here: Place) -> None:
        parent, child = await _invoked(here)
        service = parent.service
        await service.stop(parent.id, ERROR)
        await child.commit(end(child.id, payload="7"))
        assert (await service.operations(parent.id))[1].status is Status.STARTED
        assert (await service.get(child.id)).status is ExecutionStatus.SUCCEEDED

    play(path, scene)


def test_an_invoke_may_be_ended_before_its_child(path: str) -> None:
    async def scene(here: Place) -> None:
        parent, child = await _invoked(here)
        service = parent.service
        await service.complete_invoke(parent.id, "i", '"sooner"')
        await child.commit(end(child.id, payload='"later"'))
        assert (await service.operations(parent.id))[1].payload == '"sooner"'

    play(path, scene)


def test_a_refused_batch_starts_no_child(path: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        holder = await begin(service)
        with pytest.raises(InvalidUpdateError):
            await holder.commit(invoke("i", function_name="child"), step("a"), step("a"))
        assert len(await service.list()) == 1

    play(path, scene)


# -- timeouts of executions ------------------------------------------------------------------------


def test_an_execution_times_out_asleep(path: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        execution_id = await service.start("greet", "1", timeout_seconds=10)
        (holder,) = await lease(service, "me")
        opened = await holder.commit(
            wait("w", wait_seconds=9), wait("v", wait_seconds=11), callback("k")
        )
        await holder.release()
        assert await service.next_due() == (opened["w"].start_ms or 0) + 9_000
        here.clock.advance(12_000)
        assert await lease(service, "me") == []
        summary = await service.get(execution_id)
        assert summary.status is ExecutionStatus.TIMED_OUT
        assert summary.end_ms == summary.start_ms + 10_000
        assert summary.error is not None
        assert summary.error.type == "Execution.Timeout"
        records = {one.id: one for one in await service.operations(execution_id)}
        assert records["w"].status is Status.SUCCEEDED
        assert records["v"].status is Status.STARTED
        assert (await service.next_due(), summary.wake_ms) == (None, None)
        with pytest.raises(ExecutionEndedError):
            await service.complete_callback(opened["k"].callback_id or "", None)
        assert (await service.history(execution_id))[-1].type == "ExecutionTimedOut"

    play(path, scene)


def test_an_execution_times_out_while_it_is_held(path: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        execution_id = await service.start("greet", "1", timeout_seconds=10)
        (holder,) = await lease(service, "me")
        assert await service.next_due(["greet"]) == here.clock.ms + 10_000
        here.clock.advance(10_000)
        assert list(await service.changed("me", [execution_id])) == [execution_id]
        with pytest.raises(StaleTokenError, match="TIMED_OUT"):
            await holder.commit(step("a"))
        assert (await service.get(execution_id)).status is ExecutionStatus.TIMED_OUT
        assert await service.next_due() is None

    play(path, scene)


def test_a_commit_after_the_timeout_finds_it(path: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        execution_id = await service.start("greet", "1", timeout_seconds=10)
        holder = Holder(service, await service.claim(execution_id))
        here.clock.advance(9_999)
        assert list(await holder.commit(step("a"))) == ["a"]
        here.clock.advance(1)
        with pytest.raises(StaleTokenError):
            await holder.commit(step("a", SUCCEED))
        # The refused commit told the file what was due.
        assert (await service.get(execution_id)).status is ExecutionStatus.TIMED_OUT
        with pytest.raises(StaleTokenError):
            await service.claim(execution_id)

    play(path, scene)


def test_an_execution_that_ends_in_time_has_no_timeout(path: str) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        execution_id = await service.start("greet", "1", timeout_seconds=10)
        holder = Holder(service, await service.claim(execution_id))
        await holder.commit(end(execution_id, payload="7"))
        assert await service.next_due() is None
        here.clock.advance(60_000)
        assert await lease(service, "me") == []
        assert (await service.get(execution_id)).result == "7"

    play(path, scene)


def test_a_child_that_times_out_ends_the_invoke(path: str) -> None:
    """And a parent whose own time is over by then ends, too."""

    async def scene(here: Place) -> None:
        service = here.open()
        for seconds in (60, 5):
            await service.start("parent", str(seconds), timeout_seconds=seconds)
        holders = await lease(service, "me", "parent")
        for holder in holders:
            await holder.commit(invoke("i", function_name="child"))
            await holder.release()
        sql = service._unit.sql
        sql._connection.execute(
            "UPDATE executions SET deadline_ms = ? WHERE workflow = 'child'",
            (here.clock.ms + 9_000,),
        )
        service._unit._started.forget()  # as it would if this were another connection's doing
        here.clock.advance(10_000)
        (again,) = await lease(service, "me", "parent")
        ended = again.invocation.operations[1]
        assert (ended.status, ended.end_ms) == (Status.TIMED_OUT, here.clock.ms - 1000)
        statuses = [one.status.value for one in await service.list()]
        assert statuses == ["TIMED_OUT", "TIMED_OUT", "TIMED_OUT", "RUNNING"]

    play(path, scene)
