"""The part of the exam about workers: claims, leases, suspects, and when to look again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pyworkflow._protocol.executions import LEASE_MS, ExecutionStatus
from pyworkflow._protocol.records import ErrorRecord, Status
from pyworkflow.errors import ExecutionNotFoundError, StaleTokenError
from pyworkflow.testing._updates import ERROR, RETRY, SUCCEED, callback, end, invoke, step, wait
from pyworkflow.testing.conformance._driver import Driver, scenario

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyworkflow._protocol.executions import Invocation


def ids_of(invocations: Sequence[Invocation]) -> list[str]:
    return [each.execution_id for each in invocations]


class QueueConformance:
    """The needs of workers. ``keeps_leases`` is false where nobody knows if a process lives."""

    page_size: int
    keeps_leases = True

    # -- claims ----------------------------------------------------------------------------------

    @scenario
    async def test_a_claim_takes_what_is_due_once(self, driver: Driver) -> None:
        """The longest due first, up to the limit, of the given workflows, for one owner."""
        service = driver.service
        started = []
        for n in range(6):
            started.append(await service.start(f"w{n % 2}", str(n), execution_name=f"n{n}"))
            driver.advance(1)
        other = await service.start("other", "1")
        assert await service.claim_due("me", [], 9) in ((), [])
        claimed = await service.claim_due("me", ["w0", "w1"], 4)
        assert ids_of(claimed) == started[:4]
        assert [each.execution_name for each in claimed] == ["n0", "n1", "n2", "n3"]
        assert {each.workflow_name for each in claimed} == {"w0", "w1"}
        assert [each.operations[0].payload for each in claimed] == ["0", "1", "2", "3"]
        assert {each.losses for each in claimed} == {0}
        assert ids_of(await service.claim_due("you", ["w0", "w1"], 9)) == started[4:]
        assert ids_of(await service.claim_due("you", ["w0", "w1"], 9)) == []
        assert ids_of(await service.claim_due("you", ["other"], 9)) == [other]
        (first, *_) = claimed
        assert (await service.commit(first.execution_id, first.token, [])).token is not None

    @scenario
    async def test_a_claim_begins_an_invocation(self, driver: Driver) -> None:
        """Older tokens are void, what is due has fired, and the history is there in pages."""
        service, count = driver.service, self.page_size + 1
        await driver.begin()
        await driver.commit(wait("w", wait_seconds=5), *(step(f"s{n}") for n in range(count)))
        stale = driver.token
        assert await driver.lease("me") == [], "nobody has it, and it is not due"
        driver.advance(5_000)
        (invocation,) = await driver.lease("me")
        assert invocation.execution_id == driver.execution_id
        assert len(invocation.operations) == self.page_size
        assert invocation.marker is not None
        assert invocation.operations[1].status is Status.SUCCEEDED
        with pytest.raises(StaleTokenError):
            await service.commit(driver.execution_id, stale, [])
        rest = await service.load(driver.execution_id, invocation.token, invocation.marker)
        assert len(invocation.operations) + len(rest.operations) == count + 2

    @scenario
    async def test_a_sleeping_execution_is_due_when_its_timer_is(self, driver: Driver) -> None:
        """Not sooner, whoever asks."""
        holder = await driver.start_leased("me")
        started = await holder.commit(wait("w", wait_seconds=5))
        await holder.release()
        assert await driver.service.next_due() == started["w"].scheduled_end_ms
        driver.advance(4_999)
        assert await driver.lease("me") == []
        driver.advance(1)
        assert len(await driver.lease("me")) == 1

    @scenario
    async def test_an_outside_event_makes_a_sleeping_execution_due(self, driver: Driver) -> None:
        """At the time of the event."""
        holder = await driver.start_leased("me")
        opened = (await holder.commit(callback("k", heartbeat_timeout_seconds=10)))["k"]
        await holder.release()
        assert await driver.service.next_due() == opened.start_ms + 10_000
        driver.advance(7_000)
        await driver.service.heartbeat_callback(opened.callback_id or "")
        assert await driver.service.next_due() == opened.start_ms + 17_000
        await driver.service.complete_callback(opened.callback_id or "", "raw")
        due_ms = await driver.service.next_due()
        assert due_ms == opened.start_ms + 7_000
        assert (await driver.service.get(holder.execution_id)).wake_ms == due_ms
        (again,) = await driver.lease("me")
        assert again.operations[1].payload == "raw"

    # -- leases ----------------------------------------------------------------------------------

    @scenario
    async def test_a_lease_runs_out_unless_it_is_renewed(self, driver: Driver) -> None:
        """Only its owner renews it; losing it is losing the token."""
        service = driver.service
        kept, lost = await driver.start_leased("me"), await driver.start_leased("me")
        await lost.commit(step("a"))
        driver.advance(LEASE_MS - 1)
        await service.renew("me", [kept.execution_id, "unknown"])
        await service.renew("you", [lost.execution_id])
        assert await driver.lease("you") == []
        driver.advance(1)
        (found,) = await driver.lease("you")
        assert found.execution_id == lost.execution_id
        with pytest.raises(StaleTokenError):
            await lost.commit(step("a", SUCCEED))
        assert list(await kept.commit(step("a"))) == ["a"]
        assert await driver.lease("them") == []

    @scenario
    async def test_an_execution_that_lost_its_process_is_a_suspect(self, driver: Driver) -> None:
        """It says so, is due later each time, and is cleared by an invocation in good order."""
        holder = await driver.start_leased("me")
        driver.advance(LEASE_MS)
        (second,) = await driver.lease("next")
        assert second.losses == 1
        summary = await driver.service.get(holder.execution_id)
        assert summary.problem is not None
        assert (summary.problem.type, summary.failed_invocations) == ("WorkerLost", 1)
        assert "'me'" in summary.problem.message
        driver.advance(LEASE_MS)
        assert await driver.lease("next") == [], "the second time it waits"
        due_ms = await driver.service.next_due()
        assert due_ms is not None
        delay_ms = due_ms - (await driver.service.get(holder.execution_id)).start_ms - 2 * LEASE_MS
        assert 500 <= delay_ms <= 1_000
        driver.advance(delay_ms)
        third = await driver.take("next")
        assert third.invocation.losses == 2
        await third.commit(step("a"))
        assert (await driver.service.get(holder.execution_id)).failed_invocations == 2, (
            "no progress yet"
        )
        await third.commit(step("a", SUCCEED))
        cleared = await driver.service.get(holder.execution_id)
        assert (cleared.failed_invocations, cleared.problem) == (0, None)
        await third.release(is_unfinished=True)
        assert (await driver.take("next")).invocation.losses == 0

    @scenario
    async def test_suspects_are_claimed_apart(self, driver: Driver) -> None:
        """At most as many as asked for, and others beside them."""
        service = driver.service
        for _ in range(3):
            await driver.start_leased("me")
        driver.advance(LEASE_MS)
        started = await service.start("greet", "1")
        assert await service.next_due(suspects=False) is not None
        found = await service.claim_due("you", ["greet"], 9, suspects=0)
        assert ids_of(found) == [started]
        assert await service.next_due(suspects=False) is None
        assert await service.next_due(["greet"]) is not None
        found = await service.claim_due("you", ["greet"], 9, suspects=2)
        assert [each.losses for each in found] == [1, 1]
        assert len(await service.claim_due("you", ["greet"], 9, suspects=None)) == 1

    @scenario
    async def test_a_lease_that_is_kept_outlasts_its_time(self, driver: Driver) -> None:
        """Until its owner retires; the execution shows who keeps it."""
        if not self.keeps_leases:
            pytest.skip("nobody knows whether this process lives")
        service = driver.service
        await service.start("greet", "1")
        (invocation,) = await service.claim_due("me", ["greet"], 1, keep=True)
        driver.advance(3 * LEASE_MS)
        assert await driver.lease("you") == []
        problem = (await service.get(invocation.execution_id)).problem
        assert problem is not None
        assert problem.type == "LeaseKept"
        (listed,) = await service.list()
        assert listed.problem is not None
        assert await service.leased_by("me", late=True) == [(invocation.execution_id, 1)]
        await service.retire("me")
        assert len(await driver.lease("you")) == 1

    @scenario
    async def test_a_retired_owner_keeps_its_leases_for_their_time(self, driver: Driver) -> None:
        """Retiring gives up nothing that still runs, and a stranger may retire."""
        holder = await driver.start_leased("me")
        await driver.service.retire("me")
        await driver.service.retire("nobody")
        assert list(await holder.commit(step("a"))) == ["a"]
        assert await driver.lease("you") == []
        driver.advance(LEASE_MS)
        assert len(await driver.lease("you")) == 1

    @scenario
    async def test_an_owner_hands_back_what_does_not_run(self, driver: Driver) -> None:
        """Not what was recorded since it was looked at, nor what others have."""
        service = driver.service
        idle, busy, foreign = (
            await driver.start_leased("me"),
            await driver.start_leased("me"),
            await driver.start_leased("you"),
        )
        leased = await service.leased_by("me")
        assert sorted(leased) == sorted([(idle.execution_id, 1), (busy.execution_id, 1)])
        assert await service.leased_by("nobody") in ([], ())
        assert await service.leased_by("me", late=True) in ([], ())
        await busy.commit(step("a"))
        assert (busy.execution_id, 2) in await service.leased_by("me")
        await service.hand_back("me", [*leased, (foreign.execution_id, 1)])
        (again,) = await driver.lease("next")
        assert (again.execution_id, again.losses) == (idle.execution_id, 0)
        with pytest.raises(StaleTokenError):
            await idle.commit()
        assert list(await foreign.commit(step("a"))) == ["a"]
        assert await busy.commit() == {}
        driver.advance(LEASE_MS)
        assert [each for each, _ in await service.leased_by("me", late=True)] == [busy.execution_id]

    @scenario
    async def test_an_owner_reports_why_it_does_not_go_on(self, driver: Driver) -> None:
        """The report is the problem of all that it has leased, until it is taken back."""
        service = driver.service
        mine, other = await driver.start_leased("me"), await driver.start_leased("you")
        await service.report("me", ERROR)
        await service.report("nobody", ERROR)
        assert (await service.get(mine.execution_id)).problem == ERROR
        assert [each.problem for each in await service.list()] == [None, ERROR]
        assert (await service.get(other.execution_id)).problem is None
        assert (await service.get(mine.execution_id)).failed_invocations == 0
        await service.report("me", None)
        assert (await service.get(mine.execution_id)).problem is None

    # -- releases --------------------------------------------------------------------------------

    @scenario
    async def test_a_release_voids_the_token(self, driver: Driver) -> None:
        """Unfinished, it is due now; and a stale token releases nothing."""
        holder = await driver.start_leased("me")
        await holder.release(is_unfinished=True)
        assert await driver.service.leased_by("me") in ([], ())
        with pytest.raises(StaleTokenError):
            await holder.commit(step("a"))
        assert await driver.service.next_due() is not None
        again = await driver.take("you")
        await holder.release(problem=ERROR)
        await driver.service.release(holder.execution_id, "invented")
        assert list(await again.commit(step("a"))) == ["a"]
        assert (await driver.service.get(holder.execution_id)).failed_invocations == 0
        with pytest.raises(ExecutionNotFoundError):
            await driver.service.release("none", "token")

    @scenario
    async def test_what_nobody_has_read_makes_it_due_at_its_release(self, driver: Driver) -> None:
        """Nothing that came while it was leased is forgotten; without that it sleeps."""
        holder = await driver.start_leased("me")
        opened = (await holder.commit(callback("k")))["k"]
        await driver.service.complete_callback(opened.callback_id or "", "raw")
        assert await driver.service.next_due() is None
        await holder.release()
        again = await driver.take("you")
        assert again.invocation.operations[1].payload == "raw"
        await again.release()
        assert await driver.service.next_due() is None
        assert await driver.lease("you") == []

    @scenario
    async def test_a_release_with_a_problem_is_put_off(self, driver: Driver) -> None:
        """For longer each time; what happens meanwhile makes it due no sooner."""
        delays: list[int] = []
        holder = await driver.start_leased("me")
        for _ in range(3):
            await holder.release(problem=ERROR)
            summary = await driver.service.get(holder.execution_id)
            assert (summary.problem, summary.failed_invocations) == (ERROR, len(delays) + 1)
            due_ms = await driver.service.next_due()
            assert due_ms is not None
            assert due_ms == summary.wake_ms
            delays.append(due_ms - summary.start_ms)
            assert await driver.lease("me") == []
            driver.advance(due_ms - summary.start_ms - sum(delays[:-1]))
            delays[-1] -= sum(delays[:-1])
            holder = await driver.take("me")
        assert delays == [1_000, 2_000, 4_000]
        assert holder.invocation.losses == 0, "a problem is not a loss"
        opened = (await holder.commit(callback("k")))["k"]
        assert (await driver.service.get(holder.execution_id)).failed_invocations == 0
        await holder.release(problem=ERROR)
        await driver.service.complete_callback(opened.callback_id or "", None)
        assert await driver.service.next_due() == opened.start_ms + 1_000
        driver.advance(1_000)
        await (await driver.take("me")).release()
        assert (await driver.service.get(holder.execution_id)).problem is None

    # -- when to look ----------------------------------------------------------------------------

    @scenario
    async def test_next_due_is_the_first_of_the_workflows(self, driver: Driver) -> None:
        """Those that somebody has leased don't count."""
        service = driver.service
        assert await service.next_due(["greet"]) is None
        first_ms = (await service.get(await service.start("greet", "1"))).start_ms
        driver.advance(5)
        await service.start("bill", "1")
        assert await service.next_due(["greet"]) == first_ms
        assert await service.next_due(["bill"]) == first_ms + 5
        assert await service.next_due(["bill", "greet"]) == first_ms
        assert await service.next_due() == first_ms
        assert await service.next_due([]) is None
        await driver.lease("me")
        assert await service.next_due(["greet"]) is None
        assert await service.next_due() == first_ms + 5

    @scenario
    async def test_an_execution_ends_when_its_timeout_is_over(self, driver: Driver) -> None:
        """Leased or not, and whoever looks; until then the deadline is a time to look."""
        service = driver.service
        assert await service.next_deadline() is None
        leased = await service.start("greet", "1", timeout_seconds=3)
        (invocation,) = await driver.lease("me")
        start_ms = (await service.get(leased)).start_ms
        asleep = await service.start("greet", "1", timeout_seconds=2)
        await service.start("greet", "1")
        assert await service.next_deadline() == start_ms + 2_000
        driver.advance(2_000)
        assert asleep not in ids_of(await driver.lease("me"))
        ended = await service.get(asleep)
        assert (ended.status, ended.end_ms) == (ExecutionStatus.TIMED_OUT, start_ms + 2_000)
        assert ended.error is not None
        assert await service.next_deadline() == start_ms + 3_000
        assert await service.next_due() == start_ms + 3_000
        driver.advance(5_000)
        assert list(await service.changed("me", [leased])) == [leased]
        ended = await service.get(leased)
        assert (ended.status, ended.end_ms) == (ExecutionStatus.TIMED_OUT, start_ms + 3_000)
        assert (await service.next_deadline(), await service.next_due()) == (None, None)
        with pytest.raises(StaleTokenError):
            await service.commit(leased, invocation.token, [])

    @scenario
    async def test_what_no_worker_takes_is_found(self, driver: Driver) -> None:
        """Of each other workflow, the one that is due the longest and that nobody has."""
        service = driver.service
        assert list(await service.unserved([])) == []
        mine = await driver.start_leased("me", "mine")
        oldest = await service.start("other", "1")
        driver.advance(1)
        await service.start("other", "2")
        await service.start("greet", "1")
        asleep = await driver.start_leased("me", "asleep")
        await asleep.commit(wait("w", wait_seconds=60))
        await asleep.release()
        found = await service.unserved(["greet"])
        assert [(each.id, each.workflow_name) for each in found] == [(oldest, "other")]
        assert len(await service.unserved([])) == 2
        assert list(await service.unserved(["other", "greet"])) == []
        assert mine.execution_id not in {each.id for each in await service.unserved([])}

    @scenario
    async def test_news_is_what_the_owner_has_not_read(self, driver: Driver) -> None:
        """Outside events, ends, and leases that somebody else has."""
        service = driver.service
        quiet, called, stopped, lost = [await driver.start_leased("me") for _ in range(4)]
        mine = [each.execution_id for each in (quiet, called, stopped, lost)]
        assert list(await service.changed("me", mine)) == []
        opened = (await called.commit(callback("k"), step("a")))["k"]
        await service.complete_callback(opened.callback_id or "", "raw")
        await service.stop(stopped.execution_id, ERROR)
        expected = sorted([called.execution_id, stopped.execution_id])
        assert sorted(await service.changed("me", mine)) == expected
        assert list(await service.changed("me", [quiet.execution_id])) == []
        assert list(await called.commit()) == ["k"]
        assert list(await service.changed("me", mine)) == [stopped.execution_id]
        driver.advance(LEASE_MS)
        assert list(await service.changed("me", mine[:3])) == [stopped.execution_id]
        (taken,) = await driver.lease("you")
        assert taken.execution_id == lost.execution_id, "asking renewed the other leases"
        assert sorted(await service.changed("me", mine)) == sorted(mine[2:])

    @scenario
    async def test_subscribers_hear_of_work_of_news_and_of_ends(self, driver: Driver) -> None:
        """Not of each checkpoint, and not after they end it."""
        service, calls = driver.service, 0

        def on_change() -> None:
            nonlocal calls
            calls += 1

        def fail() -> None:
            raise ValueError

        async def heard() -> bool:
            nonlocal calls
            for _ in range(2):  # a change is announced before the next but one is answered
                await service.renew("nobody", [])
            found, calls = calls > 0, 0
            return found

        end_failing, unsubscribe = service.subscribe(fail), service.subscribe(on_change)
        await heard()
        await service.start("greet", "1")
        assert await heard(), "after a start, whatever other subscribers raise"
        end_failing()
        holder = await driver.take("me")
        await heard()
        opened = (await holder.commit(callback("k"), step("a")))["k"]
        await holder.commit(step("a", RETRY, delay_seconds=5, error=ERROR))
        assert not await heard(), "a checkpoint is not news"
        await service.complete_callback(opened.callback_id or "", None)
        assert await heard(), "after a change from outside"
        await holder.commit()
        assert not await heard()
        await holder.release(is_unfinished=True)
        assert await heard(), "after a release"
        holder = await driver.take("me")
        await heard()
        await service.hand_back("me", await service.leased_by("me"))
        assert await heard(), "after leases were handed back"
        holder = await driver.take("me")
        await heard()
        await holder.commit(end(holder.execution_id))
        assert await heard(), "after an end"
        unsubscribe()
        unsubscribe()
        await service.start("greet", "2")
        assert not await heard()

    # -- executions that others invoke -----------------------------------------------------------

    @scenario
    async def test_an_invoke_starts_an_execution_whose_end_is_its_own(self, driver: Driver) -> None:
        """Its name is made of the parent's and the operation's; the parent is due then."""
        service = driver.service
        await service.start("parent", "1", execution_name="order-1")
        parent = await driver.take("me", "parent")
        await parent.commit(
            invoke("i", name="charge", function_name="child", payload='{"a": 1}'),
            invoke("j", name="charge", function_name="child"),
        )
        await parent.release()
        children = {
            each.name: each for each in await service.list(workflow_name="child", payloads=True)
        }
        assert set(children) == {"order-1.charge", "order-1.charge.2"}
        assert children["order-1.charge"].input_payload == '{"a": 1}'
        assert children["order-1.charge.2"].input_payload == "null"
        child = await driver.take("me", "child")
        assert child.invocation.execution_name == "order-1.charge"
        assert await driver.lease("me", "parent") == []
        driver.advance(9)
        await child.commit(end(child.execution_id, payload='"out"'))
        (again,) = await driver.lease("me", "parent")
        ended = again.operations[1]
        assert (ended.status, ended.payload) == (Status.SUCCEEDED, '"out"')
        assert ended.end_ms == ended.start_ms + 9
        stopped = children["order-1.charge.2"].id
        await service.stop(stopped, ErrorRecord(message="enough"))
        other = (await service.operations(again.execution_id))[2]
        assert (other.status, other.error) == (Status.STOPPED, ErrorRecord(message="enough"))
