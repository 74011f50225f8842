"""One connection of one loop: a request goes out, its answer comes in, and then the next.

Everything happens in plain callbacks of the loop. The socket is ours and not a transport's: a
transport can't be closed any more once its loop is, and over TLS it moves each byte in Python.

An answer may take as long as it likes, unless nothing comes for the read timeout. A connection that
rested may have been closed by the other end; so one that ends before its answer does is told apart
from a failure. Whatever comes while nothing was asked ends the connection.
"""

from __future__ import annotations

import select
import ssl
from contextvars import Context
from typing import TYPE_CHECKING, Protocol

from pyworkflow.services.awslambda._http1 import AnswerReader

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable

    from pyworkflow.services.awslambda._http1 import Answer

READ_BYTES = 64 * 1024
"""More than a record of TLS holds: nothing decrypted stays behind where the loop can't see it."""

_NOT_YET = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_CLOSED = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


class Keeper(Protocol):
    """Who keeps a connection for the next request."""

    def keep(self, connection: Connection) -> None:
        """Take a connection whose answer is whole, and on which another may follow."""
        ...

    def drop(self, connection: Connection) -> None:
        """Forget a connection, which is closed."""
        ...


class Connection:
    """A socket that does not block; used on its loop alone."""

    def __init__(
        self,
        connected: socket.socket,
        loop: asyncio.AbstractEventLoop,
        read_seconds: float,
        keeper: Keeper,
    ) -> None:
        self._socket = connected
        self._loop = loop
        self._read_seconds = read_seconds
        self._keeper = keeper
        self._reader: AnswerReader | None = None
        """`None` while it rests."""
        self._on_end: Callable[[Answer | OSError | None], None]
        self._unsent = memoryview(b"")
        self._was_kept = False
        self.sent = 0
        """How many requests were sent; the newest is named after it."""
        self._heard = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._poll = select.poll()
        self._poll.register(connected, select.POLLIN)
        # Else the context of the first request, and all that it holds, would live as long.
        self._context = Context()
        self._context.run(loop.add_reader, connected, self._on_readable)

    def send(self, request: bytes, on_end: Callable[[Answer | OSError | None], None]) -> None:
        """Send ``request``; ``on_end`` is called with its answer, or why none came whole.

        `None` says that the connection had been closed while it rested, as far as can be told.
        """
        self._reader = AnswerReader()
        self._on_end = on_end
        self.sent += 1
        self._heard = self._loop.time()
        if self._alarm is None:
            self._set_alarm(self._read_seconds)
        self._write(memoryview(request))

    def give_up(self, number: int) -> None:
        """Close it if that request is in flight still: nobody waits for its answer."""
        if self._reader is not None and self.sent == number:
            self._reader = None
            self.close()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing came while it rested, be it while the loop stood still."""
        return not self._poll.poll(0)

    def close(self) -> None:
        """Close it; a request in flight is not heard of again. Its loop may be closed already."""
        if not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        if self._alarm is not None:
            self._alarm.cancel()
        self._socket.close()
        self._keeper.drop(self)

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
            answer = reader.feed(data)
        except OSError as error:
            self._fail(error)
            return
        if answer is not None:
            self._reader = None
            if reader.may_follow and not self._unsent:
                self._was_kept = True
                self._keeper.keep(self)
            else:
                self.close()
            self._on_end(answer)

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
        # One for many requests: to set and cancel one for each costs more than to look here.
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
