"""Signed requests to the Lambda API, without a model of it.

The way that every checkpoint takes is short and needs nothing but the standard library: keys from
the environment, a signature, one kept connection. Importing botocore's signer and HTTP session took
a third of a cold start, and they took most of a step's time. What is unusual is left to botocore:
other sources of credentials (`access`) and proxies (`proxied`).

A request is tried again when it is unknown whether it arrived, or when the service can't answer
now; the body stays the same, so its ClientToken makes the second arrival a repetition of the first.
Requests block a thread of a small pool, never the loop that runs steps. Nothing is logged.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import msgspec

from pyworkflow.errors import ServiceUnavailableError
from pyworkflow.services.awslambda.connection import READ_SECONDS, DirectConnections
from pyworkflow.services.awslambda.faults import error_of
from pyworkflow.services.awslambda.signing import Request, Signer
from pyworkflow.services.awslambda.threads import CallThreads

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyworkflow.services.awslambda.access import Access
    from pyworkflow.services.awslambda.connection import Connections

MAX_ATTEMPTS = 5
FIRST_DELAY_SECONDS = 0.2
MAX_DELAY_SECONDS = 5.0
MAX_CONNECTIONS = 10

_decode = msgspec.json.Decoder().decode


class LambdaClient:
    """Sends requests to the Lambda API; one for all executions, threads and loops of a process.

    ``now_ms`` is the time, in milliseconds since the epoch. ``read_seconds`` is how long an answer
    may take; ``sleep`` waits between two tries, and ``chance`` returns a number from 0 to 1 that
    makes the waits differ.
    """

    def __init__(
        self,
        access: Access,
        now_ms: Callable[[], int],
        *,
        read_seconds: float = READ_SECONDS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._base = urlsplit(access.endpoint).path
        self._credentials = access.credentials
        self._signer = Signer(access.endpoint, access.region)
        self._connections = _connections(access.endpoint, now_ms, read_seconds)
        self._now_ms = now_ms
        self._sleep = sleep
        self._chance = chance
        self._threads = CallThreads(MAX_CONNECTIONS, "pyworkflow-lambda")

    def close(self) -> None:
        """Close the connections and end the threads, once their requests are through."""
        self._threads.close()
        self._connections.close()

    async def get(self, *path: str, **query: str | int) -> Any:
        """Return the decoded answer to a GET of the ``path`` of these segments.

        Raises `ServiceError` and what is below it.
        """
        encoded = (f"{name}={quote(str(value), safe='')}" for name, value in sorted(query.items()))
        return await self._call("GET", path, "&".join(encoded), b"")

    async def post(self, *path: str, body: bytes) -> Any:
        """Return the decoded answer to a POST of ``body``, which must bear being sent twice.

        Raises `ServiceError` and what is below it.
        """
        return await self._call("POST", path, "", body)

    async def _call(self, method: str, path: tuple[str, ...], query: str, body: bytes) -> Any:
        request = Request(method, self._base + _encoded(path), query, body)
        what = f"{method} {path[-1]} of {path[-2]}"
        attempt = 1
        while True:
            try:
                return await self._threads.run(self._send, request, what)
            except _TryAgain as again:
                if attempt == MAX_ATTEMPTS:
                    raise ServiceUnavailableError(
                        f"{again.error}; gave up after {attempt} attempts, the last of them with "
                        "an outcome that is not known; what was recorded is intact"
                    ) from None
                await self._sleep(self._delay(attempt, again.retry_after))
            attempt += 1

    def _delay(self, attempt: int, retry_after: float) -> float:
        growing = FIRST_DELAY_SECONDS * 2 ** (attempt - 1) * (0.5 + self._chance() / 2)
        return float(min(MAX_DELAY_SECONDS, max(growing, retry_after)))

    def _send(self, request: Request, what: str) -> Any:
        """Send once, on a thread of the pool."""
        keys = self._credentials.get_frozen_credentials()
        headers = self._signer.headers(request, keys, self._now_ms())
        headers["User-Agent"] = "pyworkflow"
        try:
            answer = self._connections.send(request, headers)
        except OSError as error:
            text = f"{what}: {type(error).__name__}: {error}"
            raise _TryAgain(ServiceUnavailableError(text)) from None
        if not 200 <= answer.status < 300:
            found = error_of(answer.status, answer.headers, answer.content, what)
            if isinstance(found, ServiceUnavailableError):
                raise _TryAgain(found, _seconds(answer.headers.get("retry-after")))
            raise found
        try:
            return _decode(answer.content)
        except (msgspec.DecodeError, UnicodeDecodeError):
            cut = f"{what}: the answer is cut off or no JSON ({len(answer.content)} bytes)"
            raise _TryAgain(ServiceUnavailableError(cut)) from None


@functools.lru_cache(maxsize=64)
def _encoded(path: tuple[str, ...]) -> str:
    return "".join("/" + quote(part, safe="") for part in path)


def _connections(endpoint: str, now_ms: Callable[[], int], read_seconds: float) -> Connections:
    names = {name.lower() for name, value in os.environ.items() if value}
    if names & {"http_proxy", "https_proxy"}:
        from pyworkflow.services.awslambda.proxied import ProxiedConnections

        return ProxiedConnections(endpoint, MAX_CONNECTIONS, read_seconds=read_seconds)
    return DirectConnections(endpoint, now_ms, read_seconds=read_seconds)


class _TryAgain(Exception):  # noqa: N818 - a signal, which ends as the error that it carries
    def __init__(self, error: ServiceUnavailableError, retry_after: float = 0.0) -> None:
        super().__init__(error)
        self.error = error
        self.retry_after = retry_after


def _seconds(text: str | None) -> float:
    return float(text) if text is not None and text.isdecimal() else 0.0
