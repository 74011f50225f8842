"""Connections through a proxy: botocore's, for it knows their ways.

Its calls block, so they have threads. A request that is given up ends all the same: the socket on
which its thread waits is shut down. An answer is read in pieces, for it is bounded. Imported only
when the environment names a proxy, since that brings along most of botocore.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
    AWSPreparedRequest,
    HeadersDict,
)
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies
from urllib3.exceptions import HTTPError

from pyworkflow.services.awslambda._http1 import Answer, check_size
from pyworkflow.services.awslambda._tls import CONNECT_SECONDS, READ_SECONDS, certificates

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Executor
    from typing import Any

    from pyworkflow.services.awslambda._sigv4 import Request


PIECE_BYTES = 64 * 1024


class _Flight:
    """One request, and the connection on which it is under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Any = None
        self._is_given_up = False

    def board(self, connection: Any) -> None:
        """Note the connection, in the request's thread; raise `ConnectionError` if it is late."""
        with self._lock:
            self._connection = connection
            if self._is_given_up:
                raise ConnectionError("the request was given up")

    def land(self) -> None:
        """Its answer is whole, or it has failed: the connection is free for others."""
        with self._lock:
            self._connection = None

    def give_up(self) -> None:
        """End it, from the loop's thread."""
        with self._lock:
            self._is_given_up = True
            connected = getattr(self._connection, "sock", None)
            if connected is not None:
                with contextlib.suppress(OSError):
                    connected.shutdown(socket.SHUT_RDWR)


_here = threading.local()
"""``flight`` is the request that this thread is sending."""


class _Connection(AWSHTTPConnection):  # type: ignore[misc] # botocore has no types
    def request(self, *args: Any, **kwargs: Any) -> Any:
        _here.flight.board(self)
        return super().request(*args, **kwargs)


class _SecureConnection(AWSHTTPSConnection):  # type: ignore[misc] # botocore has no types
    def request(self, *args: Any, **kwargs: Any) -> Any:
        _here.flight.board(self)
        return super().request(*args, **kwargs)


class _Pool(AWSHTTPConnectionPool):  # type: ignore[misc] # botocore has no types
    ConnectionCls = _Connection


class _SecurePool(AWSHTTPSConnectionPool):  # type: ignore[misc] # botocore has no types
    ConnectionCls = _SecureConnection


class ProxiedConnections:
    """Connections as the environment's HTTPS_PROXY, HTTP_PROXY and NO_PROXY have them."""

    def __init__(
        self, url: str, threads: Executor, most: int, *, read_seconds: float = READ_SECONDS
    ) -> None:
        self._origin = url.removesuffix(urlsplit(url).path)
        self._threads = threads
        self._session = URLLib3Session(
            verify=certificates() or True,
            proxies=get_environ_proxies(url),
            timeout=(CONNECT_SECONDS, read_seconds),
            max_pool_connections=most,
            # Head and body go out in two writes: else the second waits for the first to arrive.
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )

        # The dict that each of its managers takes its pools from; there is no public way.
        self._session._pool_classes_by_scheme.update(http=_Pool, https=_SecurePool)

    def take_kept(self) -> None:
        """Return `None`: there is none to send on without waiting."""

    async def send(self, request: Request, headers: Mapping[str, str]) -> Answer:
        """Send once and return the whole answer. Raises `OSError` when none came."""
        loop, flight = asyncio.get_running_loop(), _Flight()
        try:
            return await loop.run_in_executor(self._threads, self._send, flight, request, headers)
        except asyncio.CancelledError:
            flight.give_up()
            raise

    def _send(self, flight: _Flight, request: Request, headers: Mapping[str, str]) -> Answer:
        _here.flight = flight
        url = self._origin + request.target
        prepared = AWSPreparedRequest(
            request.method, url, HeadersDict(headers), request.body or None, True
        )
        try:
            answer = self._session.send(prepared)
            found = {name.lower(): value for name, value in answer.headers.items()}
            return Answer(answer.status_code, found, _content(answer.raw))
        except BotoCoreError as error:
            # Its own text holds the URL, and with it the checkpoint token.
            reason = f"{type(error).__name__}: {error.kwargs.get('error', '')}"
            raise ConnectionError(reason) from None
        except HTTPError as error:
            raise ConnectionError(f"the answer is cut off: {type(error).__name__}") from None
        finally:
            flight.land()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


def _content(raw: Any) -> bytes:
    """Return the content of an answer, read in pieces."""
    pieces = []
    size = 0
    try:
        for piece in raw.stream(PIECE_BYTES):
            size += len(piece)
            check_size(size)
            pieces.append(piece)
    except BaseException:
        raw.close()
        raise
    return b"".join(pieces)
