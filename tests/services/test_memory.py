from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from pyworkflow._protocol.records import Action, OperationType, Update
from pyworkflow.errors import CallbackAlreadyCompletedError, InvalidUpdateError
from pyworkflow.services.memory import ImmediateMemoryService, MemoryService
from pyworkflow.testing.conformance import ServiceConformance, ServiceUnderTest

if TYPE_CHECKING:
    from collections.abc import Callable


class FakeClock:
    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def now_ms(self) -> int:
        return self.ms

    def advance(self, ms: int) -> None:
        self.ms += ms


class TestMemoryService(ServiceConformance):
    @pytest.fixture
    def factory(self) -> Callable[[int], ServiceUnderTest]:
        def make(page_size: int) -> ServiceUnderTest:
            clock = FakeClock()
            service = MemoryService(clock.now_ms, page_size=page_size)
            return ServiceUnderTest(service, clock.advance, service.close)

        return make


class CountingClock:
    def __init__(self) -> None:
        self.reads = 0

    def now_ms(self) -> int:
        self.reads += 1
        return 0


def _start_wait(name: str, seconds: int) -> Update:
    return Update(
        id=name, type=OperationType.WAIT, action=Action.START, wait_seconds=seconds, name=name
    )


def _cancel_wait(name: str) -> Update:
    return Update(id=name, type=OperationType.WAIT, action=Action.CANCEL, name=name)


def test_the_former_name_of_failed_invocations_answers_with_a_warning() -> None:
    service = ImmediateMemoryService(CountingClock().now_ms)
    summary = replace(service.get(service.start("greet", "null")), failed_invocations=3)
    with pytest.warns(DeprecationWarning, match="use failed_invocations") as warned:
        assert summary.troubles == 3
    assert warned[0].filename == __file__


def test_a_commit_reads_the_clock_once() -> None:
    clock = CountingClock()
    service = ImmediateMemoryService(clock.now_ms)
    invocation = service.claim(service.start("greet", "1"))
    before = clock.reads
    batch = [_start_wait("a", 1), _start_wait("b", 1)]
    asyncio.run(service.commit(invocation.execution_id, invocation.token, batch))
    assert clock.reads == before + 1


def test_void_timers_do_not_pile_up_in_the_list_of_executions() -> None:
    clock = FakeClock()
    service = ImmediateMemoryService(clock.now_ms)
    invocation = service.claim(service.start("greet", "1"))

    async def many() -> None:
        token: str | None = invocation.token
        for n in range(100):
            assert token is not None
            name = f"w{n}"
            committed = await service.commit(
                invocation.execution_id, token, [_start_wait(name, 100 + n)]
            )
            assert committed.token is not None
            cancelled = await service.commit(
                invocation.execution_id, committed.token, [_cancel_wait(name)]
            )
            token = cancelled.token
            clock.advance(1)

    asyncio.run(many())
    assert len(service._due) == 1
    assert service.next_due() is None
    assert service._due == []


def test_a_voided_timer_is_skipped_when_its_time_comes() -> None:
    clock = FakeClock()
    service = ImmediateMemoryService(clock.now_ms)
    invocation = service.claim(service.start("greet", "1"))
    execution_id = invocation.execution_id

    async def play() -> None:
        # A void timer behind a live one stays in the heap until its time.
        batch = [_start_wait("a", 1), _start_wait("b", 2), _start_wait("c", 3)]
        first = await service.commit(execution_id, invocation.token, batch)
        assert first.token is not None
        second = await service.commit(execution_id, first.token, [_cancel_wait("b")])
        clock.advance(5_000)
        assert second.token is not None
        third = await service.commit(execution_id, second.token, [])
        assert [operation.id for operation in third.operations] == ["a", "c"]

    asyncio.run(play())


def test_an_earlier_timer_moves_an_execution_forward_in_the_list() -> None:
    clock = FakeClock()
    service = ImmediateMemoryService(clock.now_ms)
    invocation = service.claim(service.start("greet", "1"))
    execution_id = invocation.execution_id

    async def play() -> None:
        first = await service.commit(execution_id, invocation.token, [_start_wait("late", 9)])
        assert first.token is not None
        await service.commit(execution_id, first.token, [_start_wait("soon", 1)])

    asyncio.run(play())
    start_ms = clock.ms
    assert service.next_due() == start_ms + 1_000
    clock.advance(1_000)
    service.claim(execution_id)
    assert service.next_due() == start_ms + 9_000
    clock.advance(9_000)
    service.claim(execution_id)
    assert service.next_due() is None


def test_a_callback_expires_on_demand_if_it_has_a_timeout() -> None:
    clock = FakeClock()
    service = ImmediateMemoryService(clock.now_ms)
    execution_id = service.start("asks", "1")
    starts = [
        Update(
            id=name,
            type=OperationType.CALLBACK,
            action=Action.START,
            timeout_seconds=whole,
            heartbeat_timeout_seconds=beat,
        )
        for name, whole, beat in (("whole", 60, 5), ("beat", None, 5), ("none", None, None))
    ]
    service.commit_now(execution_id, service.claim(execution_id).token, starts)
    clock.advance(1000)
    for name in ("whole", "beat"):
        assert service.expire_callback(f"{execution_id}.{name}") == execution_id
    found = {one.id: one for one in service.operations(execution_id)}
    assert found["whole"].end_ms == clock.ms
    assert [found[n].error.type for n in ("whole", "beat") if found[n].error] == [  # type: ignore[union-attr]
        "Callback.Timeout",
        "Callback.Heartbeat",
    ]
    with pytest.raises(InvalidUpdateError, match="which has none"):
        service.expire_callback(f"{execution_id}.none")
    with pytest.raises(CallbackAlreadyCompletedError, match="which is TIMED_OUT"):
        service.expire_callback(f"{execution_id}.whole")
