from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow._protocol.executions import Committed, Page
from pyworkflow._protocol.records import Action, OperationType, Update
from pyworkflow._runtime import checkpoints
from pyworkflow._runtime.checkpoints import CheckpointChain
from pyworkflow.errors import (
    InvalidUpdateError,
    ServiceBusyError,
    ServiceError,
    ServiceUnavailableError,
    StaleTokenError,
)
from pyworkflow.services.memory import ImmediateMemoryService
from tests.runtime.world import WatchedService

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


Answers = list[Committed | BaseException]


def start(name: str) -> Update:
    return Update(id=name, type=OperationType.STEP, action=Action.START, name=name)


def succeed(name: str) -> Update:
    return Update(id=name, type=OperationType.STEP, action=Action.SUCCEED, payload="1", name=name)


class Desk:
    """A chain over a service that answers at once, or later."""

    def __init__(self, *, at_once: bool = False, page_size: int = 1000) -> None:
        self.memory = ImmediateMemoryService(lambda: 1000, page_size=page_size)
        self.watched = WatchedService(self.memory)
        self.id = self.memory.start("greet", "1")
        self.service = self.memory if at_once else self.watched
        self.answers: Answers = []

    def chain(self) -> CheckpointChain:
        return CheckpointChain(self.service, self.memory.claim(self.id))

    async def write(self, chain: CheckpointChain, *updates: Update) -> Committed | BaseException:
        answer = chain.write(updates, self.answers.append)
        if answer is not None:
            return answer
        assert chain.is_writing
        assert self.answers == []
        await chain.close()
        assert not chain.is_writing
        await asyncio.sleep(0)
        return self.answers.pop()


def run(main: Callable[[], Awaitable[Any]]) -> None:
    async def body() -> None:
        await main()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(body())


@pytest.mark.parametrize("at_once", [False, True])
def test_each_checkpoint_has_the_token_of_the_last(at_once: bool) -> None:
    async def main() -> None:
        desk = Desk(at_once=at_once)
        chain = desk.chain()
        for name in "abc":
            answer = await desk.write(chain, start(name))
            assert isinstance(answer, Committed)
            assert [one.id for one in answer.operations] == [name]
        assert [one.id for one in desk.memory.operations(desk.id)[1:]] == ["a", "b", "c"]
        assert not chain.is_revoked

    run(main)


def test_a_service_at_hand_answers_at_once() -> None:
    async def main() -> None:
        desk = Desk(at_once=True)
        chain = desk.chain()
        answer = chain.write((start("a"),), desk.answers.append)
        assert answer is not None
        assert [one.id for one in answer.operations] == ["a"]
        assert not chain.is_writing
        await chain.close()
        assert desk.answers == []

    run(main)


@pytest.mark.parametrize("at_once", [False, True])
def test_pages_are_read_to_the_last(at_once: bool) -> None:
    async def main() -> None:
        desk = Desk(at_once=at_once, page_size=2)
        chain = desk.chain()
        names = [f"s{number}" for number in range(5)]
        answer = await desk.write(chain, *(start(name) for name in names))
        assert isinstance(answer, Committed)
        assert [one.id for one in answer.operations] == names
        invocation = desk.memory.claim(desk.id)
        again = CheckpointChain(desk.service, invocation)
        assert len(invocation.operations) == 2
        history = await again.load(invocation)
        assert [one.id for one in history] == [desk.id, *names]

    run(main)


def test_a_marker_that_comes_again_is_an_error() -> None:
    async def main() -> None:
        desk = Desk(page_size=1)
        await desk.write(desk.chain(), start("a"), start("b"))
        invocation = desk.memory.claim(desk.id)

        async def load(execution_id: str, token: str, marker: str) -> Page:
            return Page((), marker)

        desk.watched.load = load  # type: ignore[method-assign] # a fault
        with pytest.raises(ServiceError, match="again"):
            await CheckpointChain(desk.service, invocation).load(invocation)

    run(main)


def test_a_history_of_one_page_is_not_asked_for() -> None:
    async def main() -> None:
        desk = Desk()
        invocation = desk.memory.claim(desk.id)
        history = await CheckpointChain(desk.service, invocation).load(invocation)
        assert [one.id for one in history] == [desk.id]
        assert desk.watched.loads == 0

    run(main)


@pytest.mark.parametrize("at_once", [False, True])
def test_no_token_means_that_nothing_more_may_be_written(at_once: bool) -> None:
    async def main() -> None:
        desk = Desk(at_once=at_once, page_size=1)
        chain = desk.chain()
        end = Update(
            id=desk.id, type=OperationType.EXECUTION, action=Action.SUCCEED, payload='"out"'
        )
        answer = await desk.write(chain, start("a"), succeed("a"), end)
        assert isinstance(answer, Committed)
        assert chain.is_revoked
        with pytest.raises(AssertionError, match="after the last token"):
            await chain.commit(())

    run(main)


def test_errors_of_the_service_are_answers() -> None:
    async def main() -> None:
        desk = Desk()
        chain = desk.chain()
        assert isinstance(await desk.write(chain, succeed("none")), Committed)
        assert isinstance(await desk.write(chain, start("none")), InvalidUpdateError)
        # The token is still good after that.
        assert isinstance(await desk.write(chain, start("b")), Committed)
        desk.memory.claim(desk.id)
        assert isinstance(await desk.write(chain, start("c")), StaleTokenError)

    run(main)


def test_errors_of_a_service_at_hand_are_raised() -> None:
    async def main() -> None:
        desk = Desk(at_once=True)
        chain = desk.chain()
        desk.memory.claim(desk.id)
        with pytest.raises(StaleTokenError):
            chain.write((start("a"),), desk.answers.append)
        assert not chain.is_writing
        assert desk.answers == []

    run(main)


@pytest.mark.parametrize("pages", [False, True])
def test_a_checkpoint_that_the_service_cancels_is_answered_by_an_error(pages: bool) -> None:
    async def main() -> None:
        desk = Desk(page_size=1)
        chain = desk.chain()
        if pages:  # the checkpoint is applied, and the rest of its answer does not come

            async def load(execution_id: str, token: str, marker: str) -> Page:
                raise asyncio.CancelledError

            desk.watched.load = load  # type: ignore[method-assign] # a fault
        else:
            desk.watched.faults[1] = asyncio.CancelledError()
        chain.write((start("a"), start("b")), desk.answers.append)
        while not desk.answers:
            assert chain.is_writing
            await asyncio.sleep(0)
        (error,) = desk.answers
        assert isinstance(error, ServiceUnavailableError)
        assert not chain.is_writing

    run(main)


def test_closing_sees_the_checkpoint_in_flight_to_its_end() -> None:
    async def main() -> None:
        desk = Desk()
        chain = desk.chain()
        gate = desk.watched.gates[1] = asyncio.Event()
        chain.write((start("a"),), desk.answers.append)
        closing = asyncio.create_task(chain.close())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not closing.done()
        gate.set()
        await closing
        assert len(desk.answers) == 1

    run(main)


def test_a_checkpoint_that_was_cancelled_has_no_answer() -> None:
    async def main() -> None:
        desk = Desk()
        chain = desk.chain()
        desk.watched.gates[1] = asyncio.Event()
        chain.write((start("a"),), desk.answers.append)
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await chain.close()
        assert desk.answers == []
        assert not chain.is_writing

    run(main)


class Busy:
    """A service whose file another process has locked, for so many requests."""

    def __init__(self, service: Any, times: int) -> None:
        self._service = service
        self.times = times
        self.sent = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._service, name)

    async def commit(self, *args: Any) -> Any:
        self.sent += 1
        if self.times:
            self.times -= 1
            raise ServiceBusyError("locked")
        return await self._service.commit(*args)


@pytest.mark.parametrize("is_end", [False, True])
def test_what_a_locked_file_did_not_take_is_sent_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_end: bool
) -> None:
    monkeypatch.setattr(checkpoints, "PAUSE_SECONDS", 0)

    async def main() -> None:
        desk = Desk()
        busy = Busy(desk.memory, 3)
        desk.service = busy  # type: ignore[assignment]
        chain = desk.chain()
        if is_end:
            await chain.commit((succeed("a"),))
        else:
            assert chain.write((succeed("a"),), desk.answers.append) is None
            while not desk.answers:
                assert chain.is_writing
                assert chain.unrecorded == ("a",)
                await asyncio.sleep(0)
        assert busy.sent == 4
        assert [one.id for one in desk.memory.operations(desk.id)[1:]] == ["a"]
        assert chain.unrecorded == ()
        assert caplog.text.count("waits to be recorded: locked") == 3

    run(main)


def test_a_run_that_is_closed_asks_a_locked_file_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "PAUSE_SECONDS", 0)

    async def main() -> None:
        desk = Desk()
        desk.service = Busy(desk.memory, 1_000_000)  # type: ignore[assignment]
        chain = desk.chain()
        chain.write((succeed("a"),), desk.answers.append)
        for _ in range(9):
            await asyncio.sleep(0)
        await chain.close()
        await asyncio.sleep(0)
        (error,) = desk.answers
        assert isinstance(error, ServiceBusyError)
        assert chain.unrecorded == ("a",)

    run(main)
