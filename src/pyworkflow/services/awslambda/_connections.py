"""Kept connections to one endpoint: one for each loop.

An invocation sends one request at a time, and each thread that runs invocations has a loop of its
own; so one connection a loop is kept. A request that finds it in use has another, which is closed
once it is answered. Connections of loops that were closed are closed when another loop needs its
first.

Lambda freezes a function between two invocations, for seconds or hours, and whoever is at the other
end may have closed the connection meanwhile. A kept connection that turns out to be closed is
replaced at once, and the request sent again; it must bear that. One that rested for long is not
even tried: if the network in between forgot it, nobody would say so until the read timeout.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Protocol

from pyworkflow.services.awslambda._connection import Connection
from pyworkflow.services.awslambda._http1 import to_bytes
from pyworkflow.services.awslambda._tls import READ_SECONDS, Endpoint

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor, Future

    from pyworkflow.services.awslambda._http1 import Answer
    from pyworkflow.services.awslambda._sigv4 import Request

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
        self._by_loop: dict[asyncio.AbstractEventLoop, _OfLoop] = {}
        self._lock = threading.Lock()

    def take_kept(self) -> Connection | None:
        """Return the running loop's kept connection, if it may still be used."""
        here = self._by_loop.get(asyncio.get_running_loop())
        return None if here is None else here.take_kept()

    async def send(self, request: Request, headers: Mapping[str, str]) -> Answer:
        """Send once, on a kept connection if there is one that lives."""
        here, sent = self._here(), to_bytes(request, headers)
        answer = None
        while answer is None:
            connection = here.take_kept() or await self._opened(here)
            answer = await _exchange(connection, sent)
        if isinstance(answer, OSError):
            raise answer
        return answer

    def close(self) -> None:
        """Close the connections of all loops."""
        with self._lock:
            while self._by_loop:
                self._by_loop.popitem()[1].close()

    def _here(self) -> _OfLoop:
        loop = asyncio.get_running_loop()
        here = self._by_loop.get(loop)
        if here is None:
            with self._lock:
                for other in [other for other in self._by_loop if other.is_closed()]:
                    self._by_loop.pop(other).close()
                here = self._by_loop[loop] = _OfLoop(self._now_ms)
        return here

    async def _opened(self, here: _OfLoop) -> Connection:
        opening = self._threads.submit(self._endpoint.connect)
        try:
            found = await asyncio.wrap_future(opening)
        except BaseException:
            opening.add_done_callback(_close_unwanted)
            raise
        connection = Connection(found, asyncio.get_running_loop(), self._read_seconds, here)
        here.open.add(connection)
        return connection


class _OfLoop:
    """The connections of one loop: those that are open, and the one of them that rests."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._kept: Connection | None = None
        self._since_ms = 0
        self.open: set[Connection] = set()

    def take_kept(self) -> Connection | None:
        """Return the connection that rests, if it may still be used."""
        kept, self._kept = self._kept, None
        if kept is None:
            return None
        if self._now_ms() - self._since_ms < REST_MS and kept.is_quiet:
            return kept
        kept.close()
        return None

    def keep(self, connection: Connection) -> None:
        """Let ``connection`` rest until the next request, unless another one does."""
        if self._kept is not None:
            connection.close()
        else:
            self._kept, self._since_ms = connection, self._now_ms()

    def drop(self, connection: Connection) -> None:
        """Forget ``connection``, which is closed."""
        self.open.discard(connection)
        if self._kept is connection:
            self._kept = None

    def close(self) -> None:
        """Close all connections, of a loop that may be closed already."""
        for connection in list(self.open):
            connection.close()


async def _exchange(connection: Connection, sent: bytes) -> Answer | OSError | None:
    ended: asyncio.Future[Answer | OSError | None] = asyncio.get_running_loop().create_future()

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
