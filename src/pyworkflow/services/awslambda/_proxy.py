"""Connections through a proxy, made by botocore, which supports all kinds of proxies.

Its calls block, so they run in threads. A request that is given up ends at once, since the socket
on which its thread waits is shut down. A response is read in pieces, so that its size can be
limited. Imported only when the environment names a proxy, since it imports most of botocore.
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

from pyworkflow.services.awslambda._http1 import Response, check_size
from pyworkflow.services.awslambda._tls import CONNECT_SECONDS, READ_SECONDS, certificates

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Executor
    from typing import Any

    from pyworkflow.services.awslambda._sigv4 import Request


PIECE_BYTES = 64 * 1024


class _ActiveRequest:
    """A request in flight, with its connection."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Any = None
        self._is_given_up = False

    def attach(self, connection: Any) -> None:
        """Set the connection; raise `ConnectionError` if the request was already given up."""
        with self._lock:
            self._connection = connection
            if self._is_given_up:
                raise ConnectionError("the request was given up")

    def detach(self) -> None:
        """Forget the connection: the request is over, and others may use it."""
        with self._lock:
            self._connection = None

    def give_up(self) -> None:
        """End the request, from the loop's thread."""
        with self._lock:
            self._is_given_up = True
            connected = getattr(self._connection, "sock", None)
            if connected is not None:
                with contextlib.suppress(OSError):
                    connected.shutdown(socket.SHUT_RDWR)


_here = threading.local()
"""``active`` is the request that this thread is sending."""


class _Connection(AWSHTTPConnection):  # type: ignore[misc] # botocore has no types
    def request(self, *args: Any, **kwargs: Any) -> Any:
        _here.active.attach(self)
        return super().request(*args, **kwargs)


class _SecureConnection(AWSHTTPSConnection):  # type: ignore[misc] # botocore has no types
    def request(self, *args: Any, **kwargs: Any) -> Any:
        _here.active.attach(self)
        return super().request(*args, **kwargs)


class _Pool(AWSHTTPConnectionPool):  # type: ignore[misc] # botocore has no types
    ConnectionCls = _Connection


class _SecurePool(AWSHTTPSConnectionPool):  # type: ignore[misc] # botocore has no types
    ConnectionCls = _SecureConnection


class ProxiedConnections:
    """Connections by the environment's HTTPS_PROXY, HTTP_PROXY and NO_PROXY."""

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
            # Head and body are two writes: else the second waits until the first has arrived.
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )

        # Each of its managers takes its pool classes from this dict; there is no public way.
        self._session._pool_classes_by_scheme.update(http=_Pool, https=_SecurePool)

    def take_kept(self) -> None:
        """Return `None`: no connection can be used without waiting."""

    async def send(self, request: Request, headers: Mapping[str, str]) -> Response:
        """Send once and return the complete response. Raises `OSError` otherwise."""
        loop, active = asyncio.get_running_loop(), _ActiveRequest()
        try:
            return await loop.run_in_executor(self._threads, self._send, active, request, headers)
        except asyncio.CancelledError:
            active.give_up()
            raise

    def _send(
        self, active: _ActiveRequest, request: Request, headers: Mapping[str, str]
    ) -> Response:
        _here.active = active
        url = self._origin + request.target
        prepared = AWSPreparedRequest(
            request.method, url, HeadersDict(headers), request.body or None, True
        )
        try:
            response = self._session.send(prepared)
            found = {name.lower(): value for name, value in response.headers.items()}
            return Response(response.status_code, found, _content(response.raw))
        except BotoCoreError as error:
            # Its own text contains the URL, and with it the checkpoint token.
            reason = f"{type(error).__name__}: {error.kwargs.get('error', '')}"
            raise ConnectionError(reason) from None
        except HTTPError as error:
            raise ConnectionError(f"the response is cut off: {type(error).__name__}") from None
        finally:
            active.detach()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


def _content(raw: Any) -> bytes:
    """Return the content of a response, read in pieces."""
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
