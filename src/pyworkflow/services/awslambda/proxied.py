"""Connections through a proxy: botocore's, for it knows their ways.

Its calls block, so they have threads. Imported only when the environment names a proxy, since that
brings along most of botocore.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from botocore.awsrequest import AWSPreparedRequest, HeadersDict
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

from pyworkflow.services.awslambda.endpoint import CONNECT_SECONDS, READ_SECONDS, certificates
from pyworkflow.services.awslambda.message import Answer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Executor

    from pyworkflow.services.awslambda.signing import Request


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

    def take_kept(self) -> None:
        """Return `None`: there is none to send on without waiting."""

    async def send(self, request: Request, headers: Mapping[str, str]) -> Answer:
        """Send once and return the whole answer. Raises `OSError` when none came."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._send, request, headers)

    def _send(self, request: Request, headers: Mapping[str, str]) -> Answer:
        url = self._origin + request.target
        try:
            answer = self._session.send(
                AWSPreparedRequest(
                    request.method, url, HeadersDict(headers), request.body or None, False
                )
            )
            found = {name.lower(): value for name, value in answer.headers.items()}
            return Answer(answer.status_code, found, answer.content)
        except BotoCoreError as error:
            # Its own text holds the URL, and with it the checkpoint token.
            reason = f"{type(error).__name__}: {error.kwargs.get('error', '')}"
            raise ConnectionError(reason) from None

    def close(self) -> None:
        """Close the connections."""
        self._session.close()
