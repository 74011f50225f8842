"""Kept connections to one endpoint, and the exchange of one request on them.

Lambda freezes a function between two invocations, for seconds or hours, and whoever is at the other
end may have closed the connection meanwhile. A kept connection that turns out to be closed is
replaced at once, and the request sent again; it must bear that. One that rested for long is not
even tried: if the network in between forgot it, nobody would say so until the read timeout.

Certificates are verified against what AWS_CA_BUNDLE or else REQUESTS_CA_BUNDLE names, as botocore
has it; else against certifi's, botocore's own, or the system's, whichever is found first.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections import deque
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from pyworkflow.errors import ServiceError
from pyworkflow.services.awslambda.message import read_answer, to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyworkflow.services.awslambda.message import Answer
    from pyworkflow.services.awslambda.signing import Request

CONNECT_SECONDS = 5.0
READ_SECONDS = 50.0
REST_MS = 60_000
"""How long a connection may rest and still be used."""

_CLOSED = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


class Connections(Protocol):
    """How requests reach an endpoint; used from several threads at once."""

    def send(self, request: Request, headers: Mapping[str, str]) -> Answer:
        """Send once and return the whole answer, whatever its status.

        Raises `OSError` when none came whole: it is unknown then whether the request arrived.
        """
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


class DirectConnections:
    """Connections of our own, without a proxy."""

    def __init__(
        self, endpoint: str, now_ms: Callable[[], int], *, read_seconds: float = READ_SECONDS
    ) -> None:
        parts = urlsplit(endpoint)
        assert parts.hostname is not None, "Access checks the endpoint"
        self._host = parts.hostname
        self._tls = verifying_context() if parts.scheme == "https" else None
        self._port = parts.port or (80 if self._tls is None else 443)
        self._now_ms = now_ms
        self._read_seconds = read_seconds
        self._kept: deque[tuple[socket.socket, int]] = deque()

    def send(self, request: Request, headers: Mapping[str, str]) -> Answer:
        """Send once, on a kept connection if there is one that lives."""
        sent = to_bytes(request, headers)
        kept = self._take_kept()
        if kept is not None:
            with contextlib.suppress(*_CLOSED):
                return self._exchange(kept, sent)
        return self._exchange(self._open(), sent)

    def close(self) -> None:
        """Close the connections that rest."""
        while self._kept:
            self._kept.pop()[0].close()

    def _take_kept(self) -> socket.socket | None:
        try:
            connection, since_ms = self._kept.pop()
        except IndexError:
            return None
        if self._now_ms() - since_ms < REST_MS:
            return connection
        connection.close()
        self.close()  # the others have rested for longer
        return None

    def _open(self) -> socket.socket:
        connection = socket.create_connection((self._host, self._port), CONNECT_SECONDS)
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_hostname=self._host)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(self._read_seconds)
        except BaseException:
            connection.close()
            raise
        return connection

    def _exchange(self, connection: socket.socket, sent: bytes) -> Answer:
        is_kept = False
        try:
            connection.sendall(sent)
            with connection.makefile("rb") as stream:
                answer, is_kept = read_answer(stream)
        finally:
            if not is_kept:
                connection.close()
        if is_kept:
            self._kept.append((connection, self._now_ms()))
        return answer


def verifying_context() -> ssl.SSLContext:
    """Return what TLS connections are made with: certificate and host name are verified.

    Raises `ServiceError` when the certificates to trust can't be read.
    """
    file = certificates()
    try:
        return ssl.create_default_context(cafile=file)
    except OSError as error:
        raise ServiceError(
            f"Calling Lambda: expected a file of certificates to trust, found {file!r}, which "
            f"can't be used: {error}; correct AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE"
        ) from None


def certificates() -> str | None:
    """Return the file of the certificates to trust, `None` for the system's own."""
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        if named := os.environ.get(name):
            return named
    for package in ("certifi", "botocore"):
        found = find_spec(package)
        if found is not None and found.origin is not None:
            file = Path(found.origin).with_name("cacert.pem")
            if file.exists():
                return str(file)
    return None
