"""The part of the exam about `History`: legal moves, tokens, pages and timers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pyworkflow._protocol.executions import Page
from pyworkflow._protocol.records import (
    Operation,
    OperationType,
    Status,
)
from pyworkflow.errors import (
    InvalidUpdateError,
    ServiceError,
    StaleTokenError,
)
from pyworkflow.testing._updates import (
    CANCEL,
    ERROR,
    FAIL,
    REFUSED,
    RETRY,
    START,
    SUCCEED,
    context,
    step,
    wait,
)
from pyworkflow.testing.conformance._driver import Driver, ServiceUnderTest, scenario

if TYPE_CHECKING:
    from collections.abc import Callable


class HistoryConformance:
    """The needs of a run. ``page_size`` is passed to the factory."""

    page_size = 5

    # -- moves ---------------------------------------------------------------------------------

    @pytest.mark.parametrize("case", REFUSED)
    def test_an_illegal_batch_is_refused_as_a_whole(
        self, factory: Callable[[int], ServiceUnderTest], case: str
    ) -> None:
        """Nothing of the batch is kept, and the token stays good."""
        before, illegal = REFUSED[case]

        async def play(_: object, driver: Driver) -> None:
            await driver.begin()
            for update in before:
                await driver.commit(update)
            stored = await driver.stored()
            told = await driver.event_types()
            with pytest.raises(InvalidUpdateError, match=r"expected .*found .*; "):
                await driver.commit(step("innocent"), *illegal)
            assert await driver.stored() == stored
            assert await driver.event_types() == told
            assert list(await driver.commit(step("innocent"))) == ["innocent"]

        scenario(play)(self, factory)

    @scenario
    async def test_a_step_from_start_to_end(self, driver: Driver) -> None:
        """START and the end may share a batch or not; times and attempts are kept."""
        await driver.begin()
        started = (await driver.commit(step("a")))["a"]
        assert (started.status, started.attempt, started.end_ms) == (Status.STARTED, 1, None)
        driver.advance(40)
        changes = await driver.commit(
            step("a", SUCCEED, payload="1"), step("b"), step("b", FAIL, error=ERROR)
        )
        a, b = changes["a"], changes["b"]
        assert (a.status, a.attempt, a.payload) == (Status.SUCCEEDED, 1, "1")
        assert a.end_ms == started.start_ms + 40
        assert (b.status, b.attempt, b.error) == (Status.FAILED, 1, ERROR)
        assert (a.name, a.subtype, a.sequence, b.sequence) == ("the step", "Step", 1, 2)
        assert await driver.stored() == changes

    @scenario
    async def test_the_times_of_a_body_are_kept(self, driver: Driver) -> None:
        """A step began and ended when its body did, not when that was sent."""
        root_ms = (await driver.begin()).operations[0].start_ms
        driver.advance(300)
        both = step("a", begin_ms=root_ms + 100), step("a", SUCCEED, end_ms=root_ms + 250)
        ended = (await driver.commit(*both))["a"]
        assert (ended.start_ms, ended.end_ms) == (root_ms + 100, root_ms + 250)
        assert (await driver.commit(step("b", begin_ms=root_ms + 290)))[
            "b"
        ].start_ms == root_ms + 290
        driver.advance(700)
        ended = (await driver.commit(step("b", FAIL, error=ERROR, end_ms=root_ms + 900)))["b"]
        assert (ended.start_ms, ended.end_ms) == (root_ms + 290, root_ms + 900)
        events = await driver.service.history(driver.execution_id)
        assert [event.time_ms - root_ms for event in events] == [0, 100, 250, 290, 900]
        assert (await driver.stored())["b"] == ended

    @scenario
    async def test_a_body_that_begins_late_began_then(self, driver: Driver) -> None:
        """A START may be recorded first: at most once, or while no thread is free."""
        root_ms = (await driver.begin()).operations[0].start_ms
        await driver.commit(step("a"))
        driver.advance(500)
        times = {"begin_ms": root_ms + 200, "end_ms": root_ms + 450}
        ended = (await driver.commit(step("a", SUCCEED, **times)))["a"]
        assert (ended.start_ms, ended.end_ms) == (root_ms + 200, root_ms + 450)

    @scenario
    async def test_each_attempt_has_its_times(self, driver: Driver) -> None:
        """The step began with its first attempt, and ended with its last one."""
        root_ms = (await driver.begin()).operations[0].start_ms
        driver.advance(100)
        times = {"begin_ms": root_ms + 10, "end_ms": root_ms + 40}
        retry = step("a", RETRY, delay_seconds=2, error=ERROR, **times)
        pending = (await driver.commit(step("a", begin_ms=root_ms + 10), retry))["a"]
        assert (pending.start_ms, pending.attempt) == (root_ms + 10, 1)
        assert pending.next_attempt_ms == root_ms + 2100, "timers count from the service's clock"
        driver.advance(2500)
        await driver.commit()
        again = step("a", begin_ms=root_ms + 2150)
        started = (await driver.commit(again))["a"]
        assert (started.attempt_start_ms, started.attempt) == (root_ms + 2150, 2)
        times = {"begin_ms": root_ms + 2150, "end_ms": root_ms + 2400}
        ended = (await driver.commit(step("a", SUCCEED, **times)))["a"]
        assert (ended.start_ms, ended.end_ms) == (root_ms + 10, root_ms + 2400)
        assert (ended.attempt_start_ms, ended.attempt) == (root_ms + 2150, 2)
        events = (await driver.service.history(driver.execution_id))[1:]
        assert [event.time_ms - root_ms for event in events] == [10, 40, 2150, 2400]
        assert [event.current_attempt for event in events] == [1, 1, 2, 2]

    @scenario
    async def test_a_sender_s_clock_moves_nothing_else(self, driver: Driver) -> None:
        """Its times are kept between the operation's last event and the service's own clock."""
        root_ms = (await driver.begin()).operations[0].start_ms
        driver.advance(100)
        early, late = root_ms - 9_000, root_ms + 9_000
        changes = await driver.commit(
            context("c", begin_ms=root_ms + 50),
            step("a", begin_ms=early, parent_id="c"),
            step("b", SUCCEED, begin_ms=early, end_ms=early - 1),
            step("d", SUCCEED, begin_ms=late, end_ms=late + 1),
        )
        assert [(each.start_ms - root_ms, each.end_ms) for each in changes.values()] == [
            (50, None),
            (50, None),
            (0, root_ms),
            (100, root_ms + 100),
        ]
        driver.advance(100)
        changes = await driver.commit(step("a", SUCCEED, end_ms=early, parent_id="c"))
        assert changes["a"].end_ms == root_ms + 50
        assert (changes["a"].sequence, changes["a"].start_ms) == (3, root_ms + 50)

    @scenario
    async def test_a_step_may_end_without_start(self, driver: Driver) -> None:
        """It starts when it ends."""
        await driver.begin()
        ended = (await driver.commit(step("a", SUCCEED, payload="1")))["a"]
        assert ended.start_ms == ended.end_ms
        assert ended.attempt == 1

    @scenario
    async def test_a_retry_goes_from_pending_to_ready_to_started(self, driver: Driver) -> None:
        """It becomes READY when due, which is not an end; only a READY that was read may start."""
        await driver.begin()
        started = (await driver.commit(step("a")))["a"]
        pending = (await driver.commit(step("a", RETRY, delay_seconds=2, error=ERROR)))["a"]
        assert (pending.status, pending.attempt) == (Status.PENDING, 1)
        assert pending.next_attempt_ms == started.start_ms + 2000
        assert await driver.service.next_due() == pending.next_attempt_ms
        driver.advance(1999)
        assert await driver.commit() == {}
        driver.advance(1)
        for illegal in (START, SUCCEED, FAIL):
            with pytest.raises(InvalidUpdateError):
                await driver.commit(step("a", illegal))
        ready = (await driver.commit())["a"]
        assert (ready.status, ready.attempt, ready.sequence) == (Status.READY, 2, None)
        assert (ready.next_attempt_ms, ready.error) == (None, ERROR)
        assert await driver.service.next_due() is None
        again = (await driver.commit(step("a"), step("a", SUCCEED, payload="2")))["a"]
        assert (again.attempt, again.sequence, again.error) == (2, 1, None)
        assert again.start_ms == started.start_ms

    @scenario
    async def test_a_retry_keeps_the_state_of_a_condition(self, driver: Driver) -> None:
        """The payload of a RETRY lives until the next outcome, through READY and START."""
        await driver.begin()
        await driver.commit(step("a", RETRY, delay_seconds=1, payload='"state"'))
        driver.advance(1000)
        invocation = await driver.claim()
        assert invocation.operations[1].status is Status.READY
        assert (await driver.commit(step("a")))["a"].payload == '"state"'
        assert (await driver.commit(step("a", FAIL, error=ERROR)))["a"].payload is None

    @scenario
    async def test_a_context_holds_operations(self, driver: Driver) -> None:
        """Parent and child may start in one batch; the parent ends last."""
        await driver.begin()
        changes = await driver.commit(
            context("c"),
            step("a", SUCCEED, parent_id="c"),
            context("c", SUCCEED, payload="[]", replay_children=True),
        )
        ended = changes["c"]
        assert (ended.status, ended.payload) == (Status.SUCCEEDED, "[]")
        assert ended.replay_children
        assert (changes["a"].sequence, ended.sequence) == (1, 2)
        assert list(changes) == ["a", "c"]
        assert list(await driver.stored()) == ["c", "a"]

    # -- tokens and pages ------------------------------------------------------------------------

    @scenario
    async def test_a_token_is_good_for_one_commit(self, driver: Driver) -> None:
        """A used token, one from before a claim, and an invented one are all stale."""
        first = (await driver.begin()).token
        await driver.commit(step("a"))
        second = driver.token
        await driver.claim()
        for stale in (first, second, "invented", ""):
            with pytest.raises(StaleTokenError):
                await driver.service.commit(driver.execution_id, stale, [step("b")])
            with pytest.raises(StaleTokenError):
                await driver.service.load(driver.execution_id, stale, "1")
        assert list(await driver.stored()) == ["a"]
        assert list(await driver.commit(step("b"))) == ["b"]

    @scenario
    async def test_a_token_belongs_to_one_execution(self, driver: Driver) -> None:
        """The token of another execution is stale, however alike the two are."""
        await driver.begin()
        other_token = driver.token
        await driver.begin()
        with pytest.raises(StaleTokenError):
            await driver.service.commit(driver.execution_id, other_token, [])

    async def _pages(self, driver: Driver, first: Page) -> list[Operation]:
        found, marker = list(first.operations), first.marker
        followed: set[str] = set()
        while marker is not None:
            assert len(found) % self.page_size == 0
            assert marker not in followed, "a page leads back to one before"
            followed.add(marker)
            page = await driver.service.load(driver.execution_id, driver.token, marker)
            found += page.operations
            marker = page.marker
        return found

    @scenario
    async def test_long_histories_and_answers_are_paged(self, driver: Driver) -> None:
        """Pages follow each other in order of start, whether the last one is full or not."""
        await driver.begin()
        for count in (self.page_size - 1, self.page_size, self.page_size + 2):
            total = len(await driver.stored())
            committed = await driver.send(*(step(f"s{total + n}") for n in range(count)))
            changed = await self._pages(driver, Page(committed.operations, committed.marker))
            assert [operation.id for operation in changed] == [
                f"s{total + n}" for n in range(count)
            ]
            invocation = await driver.claim()
            found = await self._pages(driver, Page(invocation.operations, invocation.marker))
            assert tuple(found) == await driver.service.operations(driver.execution_id)
            assert found[0].type is OperationType.EXECUTION
        for marker in ("0", "-1", "x", "9999"):
            with pytest.raises(ServiceError):
                await driver.service.load(driver.execution_id, driver.token, marker)

    @scenario
    async def test_an_answer_tells_each_change_once(self, driver: Driver) -> None:
        """In its latest state, in the order of the last change, and never again."""
        await driver.begin()
        changes = await driver.commit(step("a"), step("b"), step("a", SUCCEED))
        assert [(one.id, one.status) for one in changes.values()] == [
            ("b", Status.STARTED),
            ("a", Status.SUCCEEDED),
        ]
        assert await driver.commit() == {}

    # -- timers ----------------------------------------------------------------------------------

    @scenario
    async def test_a_wait_ends_when_it_is_due(self, driver: Driver) -> None:
        """Not when somebody looks; and the answer to any commit shows it."""
        await driver.begin()
        started = (await driver.commit(wait("w", wait_seconds=10)))["w"]
        assert (started.status, started.scheduled_end_ms) == (
            Status.STARTED,
            started.start_ms + 10_000,
        )
        assert await driver.service.next_due() == started.scheduled_end_ms
        driver.advance(9_999)
        assert await driver.commit() == {}
        driver.advance(100_000)
        fired = (await driver.commit())["w"]
        assert (fired.status, fired.end_ms) == (Status.SUCCEEDED, started.scheduled_end_ms)
        assert await driver.service.next_due() is None

    @scenario
    async def test_claim_fires_what_is_due_in_order(self, driver: Driver) -> None:
        """Due time decides, then the order of start."""
        await driver.begin()
        seconds = {"late": 3, "one": 2, "two": 2, "early": 1}
        await driver.commit(*(wait(name, wait_seconds=n) for name, n in seconds.items()))
        driver.advance(60_000)
        await driver.claim()
        by_end = sorted((await driver.stored()).values(), key=lambda wait: wait.sequence or 0)
        assert [wait.id for wait in by_end] == ["early", "one", "two", "late"]
        assert [wait.sequence for wait in by_end] == [1, 2, 3, 4]
        assert await driver.commit() == {}

    @scenario
    async def test_what_is_due_ends_before_the_batch(self, driver: Driver) -> None:
        """A timer that is due takes its number before the ends that the commit brings."""
        await driver.begin()
        await driver.commit(wait("w", wait_seconds=1), step("a"))
        driver.advance(1_000)
        changes = await driver.commit(step("a", SUCCEED), step("b", SUCCEED))
        assert {name: one.sequence for name, one in changes.items()} == {"w": 1, "a": 2, "b": 3}

    @scenario
    async def test_a_wait_is_cancelled_until_it_is_due(self, driver: Driver) -> None:
        """A CANCEL that the timer has overtaken is refused."""
        await driver.begin()
        await driver.commit(wait("w", wait_seconds=1), wait("v", wait_seconds=2))
        cancelled = (await driver.commit(wait("w", CANCEL)))["w"]
        assert (cancelled.status, cancelled.sequence) == (Status.CANCELLED, 1)
        due = await driver.service.next_due()
        assert due == (await driver.stored())["v"].scheduled_end_ms
        driver.advance(2_000)
        with pytest.raises(InvalidUpdateError, match="SUCCEEDED"):
            await driver.commit(wait("v", CANCEL))
        changes = await driver.commit()
        assert {name: one.status for name, one in changes.items()} == {"v": Status.SUCCEEDED}

    @scenario
    async def test_next_due_spans_executions(self, driver: Driver) -> None:
        """The earliest of all, and it moves on as timers fire or executions end."""
        service = driver.service
        assert await service.next_due() is None
        await driver.begin()
        first = (await driver.commit(wait("w", wait_seconds=5), wait("x", wait_seconds=9)))["w"]
        first_id = driver.execution_id
        await driver.begin()
        await driver.commit(wait("w", wait_seconds=7))
        await driver.commit(wait("v", wait_seconds=3))
        start_ms = first.start_ms
        assert await service.next_due() == start_ms + 3_000
        driver.advance(7_000)
        await driver.commit()
        assert await service.next_due() == start_ms + 5_000
        driver.execution_id = first_id
        await driver.claim()
        assert await service.next_due() == start_ms + 9_000
        await service.stop(first_id, ERROR)
        assert await service.next_due() is None
