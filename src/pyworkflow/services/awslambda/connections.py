"""Kept connections to one endpoint, for each loop its own.

Lambda freezes a function between two invocations, for seconds or hours, and whoever is at the other
end may have closed the connection meanwhile. A kept connection that turns out to be closed is
replaced at once, and the request sent again; it must bear that. One that rested for long is not
even tried: if the network in between forgot it, nobody would say so until the read timeout.

A loop opens only so many connections; further requests wait for their turn. Connections of loops
that were closed are closed when another loop needs its first.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING, Protocol

from pyworkflow.services.awslambda.connection import Connection
from pyworkflow.services.awslambda.endpoint import READ_SECONDS, Endpoint
from pyworkflow.services.awslambda.message import to_bytes

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor, Future

    from pyworkflow.services.awslambda.message import Answer
    from pyworkflow.services.awslambda.signing import Request

MAX_CONNECTIONS = 10
"""How many a loop has at once."""

REST_MS = 60_000
"""How long a connection may rest and still be used."""


class Connections(Protocol):
    """How requests reach an endpoint; used on several loops, in several threads, at once."""

    def take_kept(self) -> Connection | None:
        """Return a connection to send on at once, `None` if there is none."""
        ...

    async def send(self, request: Request, headers: Mapping[str, str]) -> Answer:
        """Send once and return the whole answer, whatever its status.

        Raises `OSError` when none came whole: it is unknown then whether the request arrived.
        """
        ...

    def close(self) -> None:
        """Close what is open; no request is in flight any more."""
        ...


class DirectConnections:
    """Connections of our own, without a proxy. They are opened in ``threads``."""

    def __init__(
        self,
        url: str,
        threads: Executor,
        now_ms: Callable[[], int],
        *,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        self._endpoint = Endpoint(url)
        self._threads = threads
        self._now_ms = now_ms
        self._read_seconds = read_seconds
        self._by_loop: dict[asyncio.AbstractEventLoop, _LoopConnections] = {}
        self._lock = threading.Lock()

    def take_kept(self) -> Connection | None:
        """Return the running loop's connection that rested last, if it may still be used."""
        here = self._by_loop.get(asyncio.get_running_loop())
        return None if here is None else here.take_kept()

    async def send(self, request: Request, headers: Mapping[str, str]) -> Answer:
        """Send once, on a kept connection if there is one that lives."""
        return await self._here().send(to_bytes(request, headers))

    def close(self) -> None:
        """Close the connections of all loops."""
        with self._lock:
            while self._by_loop:
                self._by_loop.popitem()[1].close()

    def _here(self) -> _LoopConnections:
        loop = asyncio.get_running_loop()
        here = self._by_loop.get(loop)
        if here is None:
            with self._lock:
                for other in [other for other in self._by_loop if other.is_closed()]:
                    self._by_loop.pop(other).close()
                here = _LoopConnections(loop, self._connect, self._now_ms, self._read_seconds)
                self._by_loop[loop] = here
        return here

    def _connect(self) -> Future[socket.socket]:
        return self._threads.submit(self._endpoint.connect)


class _LoopConnections:
    """The connections of one loop: those at rest, those in use, and those being opened."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connect: Callable[[], Future[socket.socket]],
        now_ms: Callable[[], int],
        read_seconds: float,
    ) -> None:
        self._loop = loop
        self._connect = connect
        self._now_ms = now_ms
        self._read_seconds = read_seconds
        self._open: set[Connection] = set()
        self._opening = 0
        self._kept: list[tuple[Connection, int]] = []
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take_kept(self) -> Connection | None:
        """Return the connection that rested last, if it may still be used."""
        while self._kept:
            connection, since_ms = self._kept.pop()
            if self._now_ms() - since_ms >= REST_MS:
                connection.close()
                self.close_kept()  # they have rested for longer
            elif connection.is_quiet:
                return connection
            else:
                connection.close()
        return None

    async def send(self, sent: bytes) -> Answer:
        """Send once, on a kept connection if there is one that lives."""
        answer = None
        while answer is None:
            connection = await self._take_turn() or await self._connected()
            answer = await self._exchange(connection, sent)
        if isinstance(answer, OSError):
            raise answer
        return answer

    def keep(self, connection: Connection) -> None:
        """Let ``connection`` rest until the next request."""
        self._kept.append((connection, self._now_ms()))
        self._call_next()

    def drop(self, connection: Connection) -> None:
        """Forget ``connection``, which is closed."""
        self._open.discard(connection)
        self._kept = [one for one in self._kept if one[0] is not connection]
        self._call_next()

    def close_kept(self) -> None:
        """Close the connections that rest."""
        while self._kept:
            self._kept.pop()[0].close()

    def close(self) -> None:
        """Close all connections, of a loop that may be closed already."""
        self._waiting.clear()
        for connection in list(self._open):
            connection.close()

    async def _take_turn(self) -> Connection | None:
        """Return a kept connection, or `None` when one may be opened, which is counted then."""
        while (kept := self.take_kept()) is None:
            if len(self._open) + self._opening < MAX_CONNECTIONS:
                self._opening += 1
                return None
            turn: asyncio.Future[None] = self._loop.create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():  # it was called, and goes away
                    self._call_next()
                raise
        return kept

    def _call_next(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    async def _connected(self) -> Connection:
        opening = self._connect()
        try:
            found = await asyncio.wrap_future(opening)
        except BaseException:
            opening.add_done_callback(_close_unwanted)
            self._call_next()
            raise
        finally:
            self._opening -= 1
        connection = Connection(found, self._loop, self._read_seconds, self)
        self._open.add(connection)
        return connection

    async def _exchange(self, connection: Connection, sent: bytes) -> Answer | OSError | None:
        ended: asyncio.Future[Answer | OSError | None] = self._loop.create_future()

        def end(answer: Answer | OSError | None) -> None:
            if not ended.done():  # cancelled in the same tick
                ended.set_result(answer)

        connection.send(sent, end)
        try:
            return await ended
        except asyncio.CancelledError:
            connection.give_up(connection.sent)
            raise


def _close_unwanted(opening: Future[socket.socket]) -> None:
    """Close a connection that was opened for nobody."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
