"""One connection: what it makes of what the other end does, and when."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import socket
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from pyworkflow.services.awslambda._connection import Connection
from pyworkflow.services.awslambda._http1 import MalformedResponseError, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
READ_SECONDS = 50.0


class Loop(asyncio.SelectorEventLoop):
    """A loop whose time is what a test says."""

    now = 1000.0

    def time(self) -> float:
        return self.now


class World:
    """A connection, its other end, and what it told."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.kept: list[Connection] = []
        self.told: list[Any] = []
        ours, self.other = socket.socketpair()
        ours.setblocking(False)
        self.connection = Connection(ours, loop, READ_SECONDS, self)
        self.is_open = True

    def keep(self, connection: Connection) -> None:
        self.kept.append(connection)

    def drop(self, connection: Connection) -> None:
        self.is_open = False

    def send(self, request: bytes = b"request") -> None:
        self.connection.send(request, self.told.append)

    async def receive(self, data: bytes) -> None:
        """Let the other end send, and the loop see it."""
        self.other.sendall(data)
        await self.pass_on()

    async def pass_on(self) -> None:
        for _ in range(3):  # a look at the sockets, its callbacks, and what those asked for
            await asyncio.sleep(0)

    async def exchange(self) -> None:
        self.send()
        await self.receive(ANSWER)
        assert self.other.recv(100) == b"request"

    def close(self) -> None:
        if self.is_open:
            self.connection.close()
        self.other.close()


def run(work: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        world = World(loop)
        try:
            await work(world)
        finally:
            world.close()

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())


def test_an_answer_is_told_after_the_connection_is_kept() -> None:
    async def work(world: World) -> None:
        kept: list[int] = []
        world.connection.send(b"request", lambda _: kept.append(len(world.kept)))
        await world.receive(ANSWER)
        assert kept == [1]
        assert world.other.recv(100) == b"request"
        await world.exchange()
        assert world.told == [Response(200, {"content-length": "2"}, b"{}")]
        assert world.kept == [world.connection] * 2

    run(work)


def test_an_answer_in_pieces() -> None:
    async def work(world: World) -> None:
        world.send()
        for place in range(len(ANSWER)):
            assert world.told == []
            await world.receive(ANSWER[place : place + 1])
        assert [answer.content for answer in world.told] == [b"{}"]

    run(work)


@pytest.mark.parametrize(
    "answer", [ANSWER + b"HTTP/1.1", ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")]
)
def test_the_last_answer_of_a_connection(answer: bytes) -> None:
    async def work(world: World) -> None:
        world.send()
        await world.receive(answer)
        assert [answer.content for answer in world.told] == [b"{}"]
        assert (world.kept, world.is_open) == ([], False)

    run(work)


@pytest.mark.parametrize("unasked", [ANSWER, b""])
def test_what_comes_unasked_ends_the_connection(unasked: bytes) -> None:
    async def work(world: World) -> None:
        await world.exchange()
        if not unasked:
            world.other.close()
        else:
            world.other.sendall(unasked)
        assert not world.connection.is_quiet  # before the loop has looked
        await world.pass_on()
        assert not world.is_open
        assert len(world.told) == 1

    run(work)


@pytest.mark.parametrize("is_half", [False, True])
def test_an_end_without_an_answer(is_half: bool) -> None:
    """A new connection failed; one that had rested may have been closed before."""

    async def work(world: World) -> None:
        if is_half:
            await world.exchange()
        world.send()
        world.other.shutdown(socket.SHUT_WR)
        await world.pass_on()
        end = world.told[-1]
        if is_half:
            assert end is None
        else:
            assert isinstance(end, ConnectionError)
        assert not world.is_open

    run(work)


def test_a_write_that_fails_is_told() -> None:
    async def work(world: World) -> None:
        await world.exchange()
        world.other.close()
        world.send()
        assert world.told[-1] is None
        assert not world.is_open

    run(work)


@pytest.mark.parametrize("was_kept", [False, True])
def test_half_an_answer_is_a_failure(was_kept: bool) -> None:
    async def work(world: World) -> None:
        if was_kept:
            await world.exchange()
        world.send()
        await world.receive(ANSWER[:-1])
        world.other.shutdown(socket.SHUT_WR)
        await world.pass_on()
        assert isinstance(world.told[-1], MalformedResponseError)
        assert not world.is_open

    run(work)


def test_a_large_request_goes_out_in_parts() -> None:
    async def work(world: World) -> None:
        request = bytes(range(256)) * 8192
        world.other.setblocking(False)
        world.send(request)
        arrived = b""
        while len(arrived) < len(request):
            arrived += await world.loop.sock_recv(world.other, 100_000)
        assert arrived == request
        await world.receive(ANSWER)
        assert len(world.told) == 1
        await world.pass_on()
        world.other.setblocking(True)
        await world.exchange()

    run(work)


def test_an_answer_before_the_request_is_out_is_the_last() -> None:
    async def work(world: World) -> None:
        world.send(b"x" * 10_000_000)
        await world.receive(ANSWER)
        assert [answer.content for answer in world.told] == [b"{}"]
        assert (world.kept, world.is_open) == ([], False)

    run(work)


def test_silence_is_what_the_timeout_counts() -> None:
    async def work(world: World) -> None:
        world.send()
        for piece in (ANSWER[:9], ANSWER[9:20], ANSWER[20:30]):
            world.loop.now += READ_SECONDS - 1
            await world.receive(piece)
        assert world.told == []
        world.loop.now += READ_SECONDS
        await world.pass_on()
        (end,) = world.told
        assert isinstance(end, TimeoutError)
        assert not world.is_open

    run(work)


def test_rest_is_no_silence() -> None:
    async def work(world: World) -> None:
        await world.exchange()
        world.loop.now += READ_SECONDS * 9
        await world.pass_on()
        await world.exchange()
        world.loop.now += READ_SECONDS / 2
        world.send()
        world.loop.now += READ_SECONDS - 1
        await world.pass_on()
        assert len(world.told) == 2
        world.loop.now += 1
        await world.pass_on()
        assert isinstance(world.told[-1], TimeoutError)

    run(work)


def test_what_the_first_request_s_context_holds_may_go() -> None:
    class Large:
        pass

    async def work(world: World) -> None:
        variable: contextvars.ContextVar[Large] = contextvars.ContextVar("large")

        def begin() -> weakref.ref[Large]:
            large = Large()
            variable.set(large)
            second = World(world.loop)
            second.send()
            worlds.append(second)
            return weakref.ref(large)

        worlds: list[World] = []
        held = contextvars.copy_context().run(begin)
        gc.collect()
        assert held() is None
        worlds[0].close()

    run(work)


def test_it_closes_after_its_loop() -> None:
    loop = Loop()
    world = World(loop)
    world.send()
    loop.close()
    world.close()
    assert not world.is_open
