"""Connections to one endpoint: each loop keeps one.

An invocation sends one request at a time, and each thread that runs invocations has its own loop,
so one connection per loop is kept. A request that finds it in use opens another, which is closed
after its response. Connections of closed loops are closed when another loop opens its first.

Lambda freezes a function between two invocations, for seconds or hours, and the other end may close
the connection meanwhile. A kept connection that turns out to be closed is replaced at once and the
request sent again; it must be safe to send twice. A connection that was idle for long is not tried:
if the network in between dropped it, nothing would say so until the read timeout.
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

    from pyworkflow.services.awslambda._http1 import Response
    from pyworkflow.services.awslambda._sigv4 import Request

REST_MS = 60_000
"""How long a connection may be idle and still be used."""


class Connections(Protocol):
    """The way to an endpoint, used from several loops and threads at the same time."""

    def take_kept(self) -> Connection | None:
        """Return a connection that is ready to send on, or `None`."""
        ...

    async def send(self, request: Request, headers: Mapping[str, str]) -> Response:
        """Send once and return the complete response, whatever its status.

        Raises `OSError` otherwise; it is unknown then whether the request arrived.
        """
        ...

    def close(self) -> None:
        """Close all connections; no request may be in flight."""
        ...


class DirectConnections:
    """Direct connections, without a proxy, opened in ``threads``."""

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
        self._by_loop: dict[asyncio.AbstractEventLoop, _LoopPool] = {}
        self._lock = threading.Lock()

    def take_kept(self) -> Connection | None:
        """Return the running loop's kept connection if it is still usable."""
        pool = self._by_loop.get(asyncio.get_running_loop())
        return None if pool is None else pool.take_kept()

    async def send(self, request: Request, headers: Mapping[str, str]) -> Response:
        """Send once, on the kept connection if it is still open."""
        pool, sent = self._pool(), to_bytes(request, headers)
        response = None
        while response is None:
            connection = pool.take_kept() or await self._opened(pool)
            response = await _exchange(connection, sent)
        if isinstance(response, OSError):
            raise response
        return response

    def close(self) -> None:
        """Close the connections of all loops."""
        with self._lock:
            while self._by_loop:
                self._by_loop.popitem()[1].close()

    def _pool(self) -> _LoopPool:
        loop = asyncio.get_running_loop()
        pool = self._by_loop.get(loop)
        if pool is None:
            with self._lock:
                for other in [other for other in self._by_loop if other.is_closed()]:
                    self._by_loop.pop(other).close()
                pool = self._by_loop[loop] = _LoopPool(self._now_ms)
        return pool

    async def _opened(self, pool: _LoopPool) -> Connection:
        opening = self._threads.submit(self._endpoint.connect)
        try:
            found = await asyncio.wrap_future(opening)
        except BaseException:
            opening.add_done_callback(_close_unwanted)
            raise
        connection = Connection(found, asyncio.get_running_loop(), self._read_seconds, pool)
        pool.open.add(connection)
        return connection


class _LoopPool:
    """The open connections of one loop, at most one of which is idle."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._kept: Connection | None = None
        self._since_ms = 0
        self.open: set[Connection] = set()

    def take_kept(self) -> Connection | None:
        """Return the idle connection if it is still usable."""
        kept, self._kept = self._kept, None
        if kept is None:
            return None
        if self._now_ms() - self._since_ms < REST_MS and kept.is_quiet:
            return kept
        kept.close()
        return None

    def keep(self, connection: Connection) -> None:
        """Keep ``connection`` for the next request unless another one is kept."""
        if self._kept is not None:
            connection.close()
        else:
            self._kept, self._since_ms = connection, self._now_ms()

    def drop(self, connection: Connection) -> None:
        """Forget a closed connection."""
        self.open.discard(connection)
        if self._kept is connection:
            self._kept = None

    def close(self) -> None:
        """Close all connections; the loop may already be closed."""
        for connection in list(self.open):
            connection.close()


async def _exchange(connection: Connection, sent: bytes) -> Response | OSError | None:
    ended: asyncio.Future[Response | OSError | None] = asyncio.get_running_loop().create_future()

    def end(response: Response | OSError | None) -> None:
        if not ended.done():  # cancelled in the same tick
            ended.set_result(response)

    connection.send(sent, end)
    try:
        return await ended
    except asyncio.CancelledError:
        connection.give_up(connection.sent)
        raise


def _close_unwanted(opening: Future[socket.socket]) -> None:
    """Close a connection whose request was cancelled while it was opened."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
