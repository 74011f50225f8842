"""Opening a connection, with TLS and the certificates to trust.

Looking up a name blocks, and so does the TLS handshake; both happen once for many requests.

Certificates are verified as botocore does it: against the file that AWS_CA_BUNDLE or else
REQUESTS_CA_BUNDLE names, else against certifi's, botocore's own, or the system's, whichever is
found first.
"""

from __future__ import annotations

import os
import socket
import ssl
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from pyworkflow.errors import ServiceError

CONNECT_SECONDS = 5.0
READ_SECONDS = 50.0


class Endpoint:
    """The host and port of a URL, reached with TLS if its scheme is https."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None, "Access checks the endpoint"
        self._host = parts.hostname
        self._tls = verifying_context() if parts.scheme == "https" else None
        self._port = parts.port or (80 if self._tls is None else 443)

    def connect(self) -> socket.socket:
        """Return a new connection in non-blocking mode. Raises `OSError`."""
        connection = socket.create_connection((self._host, self._port), CONNECT_SECONDS)
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_hostname=self._host)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)
        except BaseException:
            connection.close()
            raise
        return connection


def verifying_context() -> ssl.SSLContext:
    """Return a TLS context that verifies certificate and host name.

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
    """Return the file with the certificates to trust, `None` for the system's own."""
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
