"""A connection of one loop: one request at a time, each followed by its response.

Everything happens in plain callbacks of the loop. The socket belongs to us, not to a transport: a
transport can't be closed after its loop, and over TLS it moves each byte in Python.

A response may take any time, as long as no pause exceeds the read timeout. The other end may have
closed an idle connection; a connection that ends before its response is reported apart from a
failure. Bytes that arrive while no request is in flight end the connection.
"""

from __future__ import annotations

import select
import ssl
from contextvars import Context
from typing import TYPE_CHECKING, Protocol

from pyworkflow.services.awslambda._http1 import ResponseReader

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable

    from pyworkflow.services.awslambda._http1 import Response

READ_BYTES = 64 * 1024
"""More than a TLS record: no decrypted bytes stay in the socket, where the loop can't see them."""

_NOT_YET = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_CLOSED = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


class Pool(Protocol):
    """Keeps an idle connection for the next request."""

    def keep(self, connection: Connection) -> None:
        """Take a connection whose response is complete and which can carry another request."""
        ...

    def drop(self, connection: Connection) -> None:
        """Forget a closed connection."""
        ...


class Connection:
    """A non-blocking socket; used only on its loop."""

    def __init__(
        self,
        connected: socket.socket,
        loop: asyncio.AbstractEventLoop,
        read_seconds: float,
        pool: Pool,
    ) -> None:
        self._socket = connected
        self._loop = loop
        self._read_seconds = read_seconds
        self._pool = pool
        self._reader: ResponseReader | None = None
        """`None` while the connection is idle."""
        self._on_end: Callable[[Response | OSError | None], None]
        self._unsent = memoryview(b"")
        self._was_kept = False
        self.sent = 0
        """Number of requests sent so far; it identifies the newest one."""
        self._heard = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._poll = select.poll()
        self._poll.register(connected, select.POLLIN)
        # Else the context of the first request, with all its values, would live as long.
        self._context = Context()
        self._context.run(loop.add_reader, connected, self._on_readable)

    def send(self, request: bytes, on_end: Callable[[Response | OSError | None], None]) -> None:
        """Send ``request``; call ``on_end`` with the complete response or the error.

        `None` means that the other end had apparently closed the connection while it was idle.
        """
        self._reader = ResponseReader()
        self._on_end = on_end
        self.sent += 1
        self._heard = self._loop.time()
        if self._alarm is None:
            self._set_alarm(self._read_seconds)
        self._write(memoryview(request))

    def give_up(self, number: int) -> None:
        """Close the connection if request ``number`` is still in flight: nobody awaits it."""
        if self._reader is not None and self.sent == number:
            self._reader = None
            self.close()

    @property
    def is_quiet(self) -> bool:
        """Whether the idle connection received nothing, even while the loop was frozen."""
        return not self._poll.poll(0)

    def close(self) -> None:
        """Close it, without a call for a request in flight; its loop may already be closed."""
        if not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        if self._alarm is not None:
            self._alarm.cancel()
        self._socket.close()
        self._pool.drop(self)

    # -- callbacks of the loop -------------------------------------------------------------------

    def _on_readable(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except _NOT_YET:
            return
        except OSError as error:
            self._fail(error)
            return
        reader = self._reader
        if reader is None:
            self.close()
            return
        self._heard = self._loop.time()
        try:
            response = reader.feed(data)
        except OSError as error:
            self._fail(error)
            return
        if response is not None:
            self._reader = None
            if reader.may_follow and not self._unsent:
                self._was_kept = True
                self._pool.keep(self)
            else:
                self.close()
            self._on_end(response)

    def _on_writable(self) -> None:
        self._write(self._unsent)

    def _write(self, unsent: memoryview) -> None:
        try:
            count = self._socket.send(unsent)
        except _NOT_YET:
            count = 0
        except OSError as error:
            self._fail(error)
            return
        had_unsent, self._unsent = bool(self._unsent), unsent[count:]
        if count:
            self._heard = self._loop.time()
        if self._unsent and not had_unsent:
            self._context.run(self._loop.add_writer, self._socket, self._on_writable)
        elif had_unsent and not self._unsent:
            self._loop.remove_writer(self._socket)

    def _set_alarm(self, seconds: float) -> None:
        # One timer for many requests: setting and cancelling one for each costs more.
        self._alarm = self._loop.call_later(seconds, self._on_alarm, context=self._context)

    def _on_alarm(self) -> None:
        self._alarm = None
        left = self._heard + self._read_seconds - self._loop.time()
        if self._reader is None:
            return
        if left > 0:
            self._set_alarm(left)
        else:
            self._fail(TimeoutError("timed out"))

    def _fail(self, error: OSError) -> None:
        was_asked, self._reader = self._reader is not None, None
        self.close()
        if not was_asked:
            return
        if self._was_kept and isinstance(error, _CLOSED):
            self._on_end(None)
        else:
            self._on_end(error)
