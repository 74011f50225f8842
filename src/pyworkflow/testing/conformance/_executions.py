"""The conformance suite's part about executions as a whole, and what reaches them from outside."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from pyworkflow._protocol.executions import ExecutionStatus
from pyworkflow._protocol.records import (
    Action,
    ErrorRecord,
    OperationType,
    Status,
)
from pyworkflow.errors import (
    CallbackAlreadyCompletedError,
    CallbackNotFoundError,
    ExecutionAlreadyStartedError,
    ExecutionEndedError,
    ExecutionNotFoundError,
    InvalidUpdateError,
    ServiceError,
    StaleTokenError,
    UsageError,
)
from pyworkflow.services.port import Capability
from pyworkflow.testing._updates import (
    ERROR,
    FAIL,
    RETRY,
    SUCCEED,
    callback,
    end,
    invoke,
    step,
    wait,
)
from pyworkflow.testing.conformance._driver import Driver, ServiceUnderTest, scenario

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyworkflow._protocol.executions import Paged

_MOST_PAGES = 100
"""More than any list of the exam has."""


class ExecutionConformance:
    """Callbacks, chained invokes, ends, names, lists, histories."""

    page_size: int

    # -- outside events --------------------------------------------------------------------------

    async def _open(self, driver: Driver, **options: Any) -> str:
        await driver.begin()
        found = (await driver.commit(callback("k", name="approval", **options)))["k"]
        assert found.callback_id
        return found.callback_id

    @scenario
    async def test_a_callback_is_completed_once(self, driver: Driver) -> None:
        """The result is the raw text; the second completion is refused."""
        callback_id = await self._open(driver)
        service = driver.service
        driver.advance(5)
        completed = service.complete_callback(callback_id, "raw text")
        assert await completed == driver.execution_id
        agains: tuple[Callable[[], Awaitable[str]], ...] = (
            lambda: service.complete_callback(callback_id, "other"),
            lambda: service.fail_callback(callback_id, ERROR),
            lambda: service.heartbeat_callback(callback_id),
        )
        for again in agains:
            with pytest.raises(CallbackAlreadyCompletedError, match=r"'approval'.*SUCCEEDED"):
                await again()
        found = (await driver.commit())["k"]
        assert (found.status, found.payload) == (Status.SUCCEEDED, "raw text")
        assert (found.sequence, found.end_ms) == (1, found.start_ms + 5)
        assert found.callback_id == callback_id

    @scenario
    async def test_a_callback_fails_with_the_senders_error(self, driver: Driver) -> None:
        """The error is kept as it was sent."""
        callback_id = await self._open(driver)
        driver.advance(5)
        assert await driver.service.fail_callback(callback_id, ERROR) == driver.execution_id
        found = (await driver.commit())["k"]
        assert (found.status, found.error) == (Status.FAILED, ERROR)
        assert (found.sequence, found.end_ms) == (1, found.start_ms + 5)
        with pytest.raises(CallbackAlreadyCompletedError, match="FAILED"):
            await driver.service.fail_callback(callback_id, ERROR)

    @scenario
    async def test_a_callback_times_out(self, driver: Driver) -> None:
        """At its deadline, after which it can't be completed, looked at or not."""
        callback_id = await self._open(driver, timeout_seconds=3, heartbeat_timeout_seconds=0)
        driver.advance(4_000)
        with pytest.raises(CallbackAlreadyCompletedError, match="TIMED_OUT"):
            await driver.service.complete_callback(callback_id, None)
        found = (await driver.commit())["k"]
        assert (found.status, found.end_ms) == (Status.TIMED_OUT, found.start_ms + 3_000)
        assert found.error is not None
        assert found.error.type == "Callback.Timeout"

    @scenario
    async def test_a_heartbeat_keeps_a_callback_open(self, driver: Driver) -> None:
        """It restarts the heartbeat timeout, not the timeout."""
        callback_id = await self._open(driver, timeout_seconds=60, heartbeat_timeout_seconds=3)
        start_ms = (await driver.stored())["k"].start_ms
        driver.advance(2_000)
        beat = driver.service.heartbeat_callback(callback_id)
        assert await beat == driver.execution_id
        assert await driver.service.next_due() == start_ms + 5_000
        driver.advance(2_000)
        assert await driver.commit() == {}
        driver.advance(2_000)
        found = (await driver.commit())["k"]
        assert (found.status, found.end_ms) == (Status.TIMED_OUT, start_ms + 5_000)
        assert found.error is not None
        assert found.error.type == "Callback.Heartbeat"

    @scenario
    async def test_an_unknown_callback_is_a_clear_error(self, driver: Driver) -> None:
        """Invented ids and ids of other operations are distinguished from callbacks."""
        await driver.begin()
        await driver.commit(step("a"))
        service = driver.service
        for unknown in ("", "nothing", f"{driver.execution_id}.a", f"{driver.execution_id}.none"):
            asks: tuple[Callable[[str], Awaitable[str]], ...] = (
                lambda unknown: service.complete_callback(unknown, None),
                lambda unknown: service.fail_callback(unknown, ERROR),
                service.heartbeat_callback,
            )
            for ask in asks:
                with pytest.raises(CallbackNotFoundError, match="callback"):
                    await ask(unknown)

    @scenario
    async def test_a_chained_invoke_ends_from_outside(self, driver: Driver) -> None:
        """Its input is not a result; it ends once, in any of four ways."""
        await driver.begin()
        names = [Status.SUCCEEDED, Status.FAILED, Status.TIMED_OUT, Status.STOPPED]
        started = await driver.commit(
            *(invoke(name, function_name="f", payload='"in"') for name in names)
        )
        assert {one.payload for one in started.values()} == {None}
        complete = driver.service.complete_invoke
        await complete(driver.execution_id, "SUCCEEDED", '"out"')
        for name in names[1:]:
            await complete(driver.execution_id, name, status=name, error=ERROR)
        changes = await driver.commit()
        assert [one.status for one in changes.values()] == names
        assert changes["SUCCEEDED"].payload == '"out"'
        assert changes["STOPPED"].error == ERROR
        with pytest.raises(InvalidUpdateError):
            await complete(driver.execution_id, "SUCCEEDED", None)
        with pytest.raises(ServiceError):
            await complete(driver.execution_id, "none", None)

    # -- executions ------------------------------------------------------------------------------

    @scenario
    async def test_the_history_begins_with_the_execution(self, driver: Driver) -> None:
        """Its payload is the input."""
        invocation = await driver.begin('{"a": 1}', "order-1")
        (root,) = invocation.operations
        assert (root.type, root.status) == (OperationType.EXECUTION, Status.STARTED)
        assert (root.payload, root.name) == ('{"a": 1}', "order-1")
        assert (invocation.execution_name, invocation.workflow_name) == ("order-1", "greet")
        assert invocation.execution_id == driver.execution_id
        assert invocation.marker is None

    @pytest.mark.parametrize("action", [SUCCEED, FAIL])
    def test_the_end_of_an_execution(
        self, factory: Callable[[int], ServiceUnderTest], action: Action
    ) -> None:
        """No token comes back, and nothing more is accepted."""

        async def play(_: object, driver: Driver) -> None:
            (root,) = (await driver.begin()).operations
            content = {"payload": '"out"'} if action is SUCCEED else {"error": ERROR}
            await driver.commit(wait("w", wait_seconds=1))
            committed = await driver.send(step("a", SUCCEED), end(root.id, action, **content))
            assert (committed.token, committed.marker) == (None, None)
            ended = committed.operations[-1]
            assert (ended.type, ended.payload) == (OperationType.EXECUTION, '"in"')
            assert (ended.sequence, ended.ended) == (2, True)
            summary = await driver.service.get(driver.execution_id)
            assert summary.status.value == ended.status.value
            assert (summary.result, summary.error) == (
                content.get("payload"),
                content.get("error"),
            )
            assert summary.end_ms == ended.end_ms
            driver.advance(5_000)
            with pytest.raises(StaleTokenError):
                await driver.commit()
            with pytest.raises(StaleTokenError):
                await driver.claim()
            assert (await driver.stored())["w"].status is Status.STARTED

        scenario(play)(self, factory)

    @scenario
    async def test_an_execution_may_be_ended_under_any_id(self, driver: Driver) -> None:
        """Senders that do not know the id of the EXECUTION operation use one of their own."""
        await driver.begin()
        committed = await driver.send(end("result", payload="1"))
        assert [one.id for one in committed.operations] == [driver.execution_id]
        assert await driver.stored() == {}

    @scenario
    async def test_stop_ends_an_execution(self, driver: Driver) -> None:
        """Due events still happen, callbacks close, and a second stop changes nothing."""
        callback_id = await self._open(driver)
        await driver.commit(wait("w", wait_seconds=1), wait("v", wait_seconds=9))
        driver.advance(2_000)
        stopped = await driver.service.stop(driver.execution_id, ERROR)
        assert (stopped.status, stopped.error) == (ExecutionStatus.STOPPED, ERROR)
        assert stopped.end_ms == stopped.start_ms + 2_000
        stored = await driver.stored()
        assert (stored["w"].status, stored["v"].status) == (Status.SUCCEEDED, Status.STARTED)
        driver.advance(2_000)
        other = ErrorRecord(message="again")
        assert await driver.service.stop(driver.execution_id, other) == stopped
        with pytest.raises(StaleTokenError):
            await driver.commit()
        with pytest.raises(ExecutionEndedError, match="STOPPED"):
            await driver.service.complete_callback(callback_id, None)

    @scenario
    async def test_a_name_stands_for_one_input(self, driver: Driver) -> None:
        """The same start finds the same execution; another input is refused."""
        service = driver.service

        async def start(workflow: str, payload: str, name: str | None) -> str:
            return await service.start(workflow, payload, execution_name=name)

        first = await start("greet", "1", "order-1")
        assert await start("greet", "1", "order-1") == first
        with pytest.raises(ExecutionAlreadyStartedError, match="order-1"):
            await start("greet", "2", "order-1")
        others = {await start("bill", "2", "order-1"), await start("greet", "1", None)}
        others.add(await start("greet", "1", None))
        assert len(others | {first}) == 4
        for malformed in ("", "a b", "é", "n" * 65, "a\n"):
            with pytest.raises(ServiceError, match="execution name"):
                await start("greet", "1", malformed)
        assert len(await service.list()) == 4

    @scenario
    async def test_a_start_says_what_it_started(self, driver: Driver) -> None:
        """It is running and due now, called by its name or else by its id."""
        service = driver.service
        plain = await service.start("greet", '"in"')
        named = await service.start("greet", "2", execution_name="order-1", timeout_seconds=60)
        driver.advance(7)
        found = await service.get(plain)
        assert (found.id, found.name, found.workflow_name) == (plain, plain, "greet")
        assert (found.status, found.end_ms) == (ExecutionStatus.RUNNING, None)
        assert (found.input_payload, found.result, found.error) == ('"in"', None, None)
        assert (found.problem, found.failed_invocations) == (None, 0)
        assert found.wake_ms == found.start_ms == await service.next_due()
        assert (await service.get(named)).name == "order-1"
        (root,) = await service.operations(named)
        assert (root.id, root.type, root.payload) == (named, OperationType.EXECUTION, "2")
        assert root.start_ms == found.start_ms
        driver.advance(60_000)
        await service.claim_due("me", ["greet"], 9)
        assert (await service.get(named)).status is ExecutionStatus.TIMED_OUT
        assert (await service.get(plain)).status is ExecutionStatus.RUNNING
        assert await service.start("greet", "2", execution_name="order-1") == named

    @scenario
    async def test_an_execution_is_taken_from_its_owner(self, driver: Driver) -> None:
        """Others go on with it now; one that nobody has is refused."""
        service = driver.service
        if Capability.RELEASE not in service.capabilities:
            with pytest.raises(UsageError):
                await service.revoke("any")
            return
        holder = await driver.start_leased("me")
        found = await service.revoke(holder.execution_id)
        assert (found.id, found.status) == (holder.execution_id, ExecutionStatus.RUNNING)
        assert found.problem is not None
        assert "'me'" in found.problem.message
        with pytest.raises(StaleTokenError):
            await holder.commit()
        with pytest.raises(ServiceError, match="no worker has it"):
            await service.revoke(holder.execution_id)
        again = await driver.take("you")
        assert again.invocation.losses == 0
        await again.commit(end(again.execution_id))
        with pytest.raises(ServiceError, match="SUCCEEDED"):
            await service.revoke(holder.execution_id)

    @scenario
    async def test_a_backup_is_whole_or_refused(self, driver: Driver) -> None:
        """It takes no file's place, and says how far it is."""
        service = driver.service
        assert service.capabilities <= set(Capability)
        await driver.begin()
        with tempfile.TemporaryDirectory() as folder:
            target, told = f"{folder}/copy.db", list[tuple[int, int]]()
            if Capability.BACKUP not in service.capabilities:
                with pytest.raises(UsageError):
                    await service.backup(target)
                assert os.listdir(folder) == []
                return
            await service.backup(target, lambda *progress: told.append(progress))
            copied = _content(target)
            assert driver.execution_id.encode() in copied
            assert told[-1][0] == told[-1][1] == len(copied)
            with pytest.raises(UsageError):
                await service.backup(target)
            assert _content(target) == copied

    @scenario
    async def test_a_closed_service_refuses_everything(self, driver: Driver) -> None:
        """Closing twice is harmless."""
        await driver.begin()
        service = driver.service
        await service.close()
        await service.close()
        asks: tuple[Callable[[], Any], ...] = (
            lambda: service.get(driver.execution_id),
            service.list,
            lambda: service.start("greet", "1"),
            lambda: service.claim_due("me", ["greet"], 1),
            service.next_due,
            driver.commit,
        )
        for ask in asks:
            with pytest.raises(ServiceError, match="closed"):
                await ask()

    @scenario
    async def test_executions_are_listed(self, driver: Driver) -> None:
        """The newest first, by workflow and by status."""
        service = driver.service
        await driver.begin("1", "one")
        await driver.commit(end(driver.execution_id, payload='"done"'))
        await service.start("greet", "2", execution_name="two")
        await service.start("bill", "3", execution_name="three")

        async def names(**wanted: Any) -> list[str]:
            return [summary.name for summary in await service.list(**wanted)]

        assert await names() == ["three", "two", "one"]
        assert await names(workflow_name="greet") == ["two", "one"]
        assert await names(status=ExecutionStatus.RUNNING) == ["three", "two"]
        both = {"workflow_name": "greet", "status": ExecutionStatus.RUNNING}
        assert await names(**both) == ["two"]
        assert await names(execution_name="two") == ["two"]
        assert await names(execution_name="two", workflow_name="bill") == []
        assert await names(limit=2) == ["three", "two"]
        assert await names(limit=0) == []
        _, second, first = await service.list(payloads=True)
        assert (first.input_payload, first.result) == ("1", '"done"')
        assert first == await service.get(first.id)
        bare = (await service.list())[2]
        assert (bare.input_payload, bare.result) == ("", None)
        assert bare == replace(first, input_payload="", result=None)
        assert (second.status, second.end_ms) == (ExecutionStatus.RUNNING, None)

    @scenario
    async def test_lists_have_pages(self, driver: Driver) -> None:
        """Each begins where the one before ended, whatever was started meanwhile."""
        service = driver.service
        assert (await service.list()).marker is None
        started = [await service.start(f"w{n % 3}", str(n)) for n in range(53)][::-1]
        first = await service.list()
        assert [each.id for each in first] == started[:50]
        assert first.marker is not None
        await service.start("w0", "later")
        second = await service.list(after=first.marker)
        assert [each.id for each in second] == started[50:]
        assert second.marker is None
        for filters in ({}, {"workflow_name": "w1"}, {"status": ExecutionStatus.RUNNING}):
            found = await _pages(partial(service.list, **filters), 7)
            assert found == [*await service.list(limit=99, **filters)]
        (whole, empty) = (await service.list(limit=54), await service.list(limit=0))
        assert (len(whole), whole.marker, len(empty)) == (54, None, 0)
        for marker in ("", "x", "-1", "٣"):
            with pytest.raises(ServiceError, match="marker"):
                await service.list(after=marker)

    @scenario
    async def test_lists_are_filtered(self, driver: Driver) -> None:
        """By every filter, alone and with the others."""
        service = driver.service

        async def names(**wanted: Any) -> str:
            return "".join(each.name[-1] for each in await service.list(**wanted))

        times = []
        for n, name in enumerate(("order-a", "order-b", "bill-c", "order-d")):
            started_id = await service.start(f"w{n % 2}", "1", execution_name=name)
            times.append((await service.get(started_id)).start_ms)
            driver.advance(1_000)
        await service.stop((await service.list(execution_name="order-b"))[0].id, ERROR)
        (holder,) = [await driver.take("me", "w0")]
        await holder.release(problem=ERROR)
        assert await names() == "dcba"
        assert await names(name_prefix="order-") == "dba"
        assert await names(name_prefix="order-", workflow_name="w1") == "db"
        assert await names(name_prefix="order-", status=ExecutionStatus.RUNNING) == "da"
        assert await names(name_prefix="order", limit=2) == "db"
        assert await names(name_prefix="bill-c") == "c"
        assert await names(name_prefix="") == "dcba"
        assert await names(name_prefix="r") == ""
        assert await names(name_prefix="\U0010ffff") == ""
        assert await names(started_from_ms=times[2]) == "dc"
        assert await names(started_before_ms=times[2]) == "ba"
        assert await names(started_from_ms=times[1], started_before_ms=times[3]) == "cb"
        assert await names(started_from_ms=times[1], workflow_name="w1") == "db"
        assert await names(started_from_ms=-5, started_before_ms=1 << 60) == "dcba"
        assert await names(has_problem=True) == "a"
        assert await names(has_problem=False) == "dcb"
        assert await names(has_problem=True, workflow_name="w1") == ""
        assert await names(has_problem=False, status=ExecutionStatus.RUNNING) == "dc"
        assert await names(status=ExecutionStatus.STOPPED) == "b"
        assert await names(status=ExecutionStatus.STOPPED, workflow_name="w0") == ""
        assert await names(workflow_name="unknown") == ""

    @scenario
    async def test_an_execution_is_found_by_the_beginning_of_its_id(self, driver: Driver) -> None:
        """By any beginning; none has one that is longer than an id."""
        service = driver.service
        ids = []
        for n in range(3):
            ids.append(await service.start("greet", str(n)))
            driver.advance(1_000)

        async def found(prefix: str, **options: Any) -> list[str]:
            return [each.id for each in await service.list(id_prefix=prefix, **options)]

        for each in ids:
            assert await found(each) == [each]
            assert await found(each[:20]) == [each]
            assert await found(each + "0") == []
        assert await found(ids[0][:5]) == ids[::-1]
        assert await found(ids[0][:5], limit=1) == ids[-1:]
        assert await found(ids[0][:20], workflow_name="bill") == []
        assert await found("~") == []

    @scenario
    async def test_operations_and_histories_have_pages(self, driver: Driver) -> None:
        """The same, piece by piece; ids of events go on."""
        await driver.begin()
        for n in range(5):
            await driver.commit(step(f"s{n}"), step(f"t{n}"), step(f"s{n}", SUCCEED))
        await driver.commit(end(driver.execution_id, payload='"out"'))
        for read in (driver.service.operations, driver.service.history):
            whole = await read(driver.execution_id)
            assert whole.marker is None
            for limit in (1, 2, 3, len(whole) - 1, len(whole), 99):
                assert await _pages(partial(read, driver.execution_id), limit) == [*whole]
            with pytest.raises(ServiceError, match="marker"):
                await read(driver.execution_id, after="x")
        assert len(await driver.service.operations(driver.execution_id)) == 11
        assert len(await driver.event_types()) == 17

    @scenario
    async def test_an_unknown_execution_is_a_clear_error(self, driver: Driver) -> None:
        """Whatever is asked of it."""
        service = driver.service
        asks: tuple[Callable[[], Any], ...] = (
            lambda: service.commit("none", "", ()),
            lambda: service.load("none", "", "1"),
            lambda: service.claim("none"),
            lambda: service.get("none"),
            lambda: service.operations("none"),
            lambda: service.history("none"),
            lambda: service.stop("none", ERROR),
            lambda: service.revoke("none"),
            lambda: service.complete_invoke("none", "a", None),
        )
        for ask in asks:
            with pytest.raises(ExecutionNotFoundError, match="'none'"):
                await ask()

    @scenario
    async def test_the_history_tells_every_change(self, driver: Driver) -> None:
        """Under AWS's names; a RETRY is a failure or a success with a delay."""
        callback_id = await self._open(driver, timeout_seconds=90)
        await driver.commit(wait("w", wait_seconds=1), step("a"))
        await driver.commit(step("a", RETRY, delay_seconds=1, error=ERROR))
        driver.advance(1_000)
        await driver.commit()
        await driver.commit(step("a"), step("a", RETRY, delay_seconds=1, payload="0"))
        await driver.service.complete_callback(callback_id, "done")
        await driver.commit(end(driver.execution_id, payload='"out"'))
        assert await driver.event_types() == (
            "ExecutionStarted",
            "CallbackStarted",
            "WaitStarted",
            "StepStarted",
            "StepFailed",
            "WaitSucceeded",
            "StepStarted",
            "StepSucceeded",
            "CallbackSucceeded",
            "ExecutionSucceeded",
        )
        events = await driver.service.history(driver.execution_id)
        assert (events[0].payload, events[-1].payload) == ('"in"', '"out"')
        assert (events[4].current_attempt, events[4].delay_seconds) == (1, 1)
        assert events[4].error == ERROR
        assert (events[5].time_ms, events[5].wait_seconds) == (events[2].time_ms + 1_000, 1)
        assert events[7].current_attempt == 2


async def _pages(read: Callable[..., Awaitable[Paged[Any]]], limit: int) -> list[Any]:
    """Return what all pages have; a page that leads back to one before fails, or none is last."""
    found: list[Any] = []
    markers: list[str] = []
    while True:
        page = await read(limit=limit, after=markers[-1] if markers else None)
        assert len(page) == limit or (page.marker is None and len(page) < limit)
        found += page
        if page.marker is None:
            return found
        assert page.marker not in markers, "a page leads back to one before"
        assert len(markers) < _MOST_PAGES, "no page is the last one"
        markers.append(page.marker)


def _content(path: str) -> bytes:
    return Path(path).read_bytes()
