"""Signed requests to the Lambda API, without a model of it.

The path of a checkpoint is short and needs only the standard library: keys from the environment, a
signature, an idle connection of the running loop. Between the arrival of the response and the
future's result no task and no thread is woken. Importing botocore's signer and HTTP session took a
third of a cold start, and using them took most of a step's time. Unusual setups are left to
botocore, in a thread: other sources of credentials (`_environment`) and proxies (`_proxy`).

A request is retried when it is unknown whether it arrived, or when the service can't answer now.
The body stays the same, so its ClientToken makes a second arrival a repetition of the first.
Nothing blocks the loop that runs steps. Nothing is logged.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from pyworkflow.errors import ServiceUnavailableError
from pyworkflow.services.awslambda._connections import DirectConnections
from pyworkflow.services.awslambda._errors import error_of
from pyworkflow.services.awslambda._http1 import OversizedResponseError, to_bytes
from pyworkflow.services.awslambda._sigv4 import Keys, Request, Signer
from pyworkflow.services.awslambda._tls import READ_SECONDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyworkflow.services.awslambda._connection import Connection
    from pyworkflow.services.awslambda._connections import Connections
    from pyworkflow.services.awslambda._environment import Access
    from pyworkflow.services.awslambda._http1 import Response

T = TypeVar("T")

THREADS = 10
"""Threads for blocking work: opening connections, renewing credentials, requests by a proxy."""

MAX_ATTEMPTS = 5
FIRST_DELAY_SECONDS = 0.2
MAX_DELAY_SECONDS = 5.0


class _Call(NamedTuple, Generic[T]):
    """A request, its name in errors, and the function that reads the response's content."""

    request: Request
    what: str
    read: Callable[[bytes], T | Coroutine[Any, Any, T]]


class LambdaClient:
    """Sends requests to the Lambda API for all executions, threads and loops of a process.

    ``now_ms`` returns the time, in milliseconds since the epoch. ``read_seconds`` is the read
    timeout: the longest pause while a response arrives. ``sleep`` waits between two attempts, and
    ``chance`` returns a number from 0 to 1 that varies the waits.
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
        self._keys = access.credentials if isinstance(access.credentials, Keys) else None
        self._signer = Signer(access.endpoint, access.region)
        self._threads = ThreadPoolExecutor(THREADS, "pyworkflow-lambda")
        self._connections = _connections(access.endpoint, self._threads, now_ms, read_seconds)
        self._now_ms = now_ms
        self._sleep = sleep
        self._chance = chance

    def close(self) -> None:
        """Close the connections and end the threads; no request may be in flight."""
        self._threads.shutdown()
        self._connections.close()

    def post(
        self, *path: str, body: bytes, read: Callable[[bytes], T | Coroutine[Any, Any, T]]
    ) -> asyncio.Future[T]:
        """POST ``body``, which must be safe to send twice; return a future of ``read``'s result.

        ``read`` gets the response's content. If it needs further requests, it returns a coroutine,
        whose result counts. When it raises `msgspec.DecodeError`, for content that is not JSON, the
        request is sent again. The future raises `ServiceError` and its subclasses.
        """
        call = _Call(
            Request("POST", self._base + _encoded(path), "", body), _named("POST", path), read
        )
        kept = self._connections.take_kept() if self._keys is not None else None
        if kept is None or self._keys is None:
            return asyncio.ensure_future(self._send_until_answered(call))
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        sent = to_bytes(call.request, self._headers(call.request, self._keys))
        kept.send(sent, lambda response: self._on_response(call, response, future))
        future.add_done_callback(functools.partial(_close_if_given_up, kept, kept.sent))
        return future

    def _on_response(
        self, call: _Call[T], response: Response | OSError | None, future: asyncio.Future[T]
    ) -> None:
        """Resolve ``future`` now, or start the task that will."""
        if future.done():  # cancelled
            return
        if response is None:  # the connection had been closed: this was not an attempt
            _end_by(self._send_until_answered(call), future)
            return
        try:
            found = _found(call, response)
        except _TryAgain:
            _end_by(self._send_until_answered(call, response), future)
        except Exception as error:
            future.set_exception(error)
        else:
            if isinstance(found, Coroutine):
                _end_by(found, future)
            else:
                future.set_result(found)

    async def get(self, *path: str, read: Callable[[bytes], T], **query: str | int) -> T:
        """GET the ``path`` of these segments and return what ``read`` makes of the response.

        Raises `ServiceError` and its subclasses.
        """
        encoded = (f"{name}={quote(str(value), safe='')}" for name, value in sorted(query.items()))
        request = Request("GET", self._base + _encoded(path), "&".join(encoded))
        return await self._send_until_answered(_Call(request, _named("GET", path), read))

    async def _send_until_answered(
        self, call: _Call[T], response: Response | OSError | None = None
    ) -> T:
        """Send until there is a response to read; ``response`` is that of a first attempt."""
        attempt = 1
        while True:
            try:
                if response is None:
                    response = await self._send(call.request)
                found = _found(call, response)
                break
            except _TryAgain as again:
                if attempt == MAX_ATTEMPTS:
                    raise ServiceUnavailableError(
                        f"{again.error}; gave up after {attempt} attempts, and the outcome of the "
                        "last one is unknown; what was recorded is intact"
                    ) from None
                await self._sleep(self._delay(attempt, again.retry_after))
            attempt, response = attempt + 1, None
        return await found if isinstance(found, Coroutine) else found

    async def _send(self, request: Request) -> Response | OSError:
        keys = self._keys
        if keys is None:
            renewed = self._credentials.get_frozen_credentials
            keys = await asyncio.get_running_loop().run_in_executor(self._threads, renewed)
        try:
            return await self._connections.send(request, self._headers(request, keys))
        except OSError as error:
            return error

    def _headers(self, request: Request, keys: Keys) -> dict[str, str]:
        headers = self._signer.headers(request, keys, self._now_ms())
        headers["User-Agent"] = "pyworkflow"
        return headers

    def _delay(self, attempt: int, retry_after: float) -> float:
        growing = FIRST_DELAY_SECONDS * 2 ** (attempt - 1) * (0.5 + self._chance() / 2)
        return float(min(MAX_DELAY_SECONDS, max(growing, retry_after)))


def _found(call: _Call[T], response: Response | OSError) -> T | Coroutine[Any, Any, T]:
    """Return what is read from a successful response.

    Raises `ServiceError` for a refusal, `_TryAgain` when another attempt may succeed.
    """
    what = call.what
    if isinstance(response, OSError):
        text = f"{what}: {type(response).__name__}: {response}"
        if isinstance(response, OversizedResponseError):  # the next one would be as well
            raise ServiceUnavailableError(text)
        raise _TryAgain(ServiceUnavailableError(text))
    if not 200 <= response.status < 300:
        found = error_of(response.status, response.headers, response.content, what)
        if isinstance(found, ServiceUnavailableError):
            raise _TryAgain(found, _seconds(response.headers.get("retry-after")))
        raise found
    try:
        return call.read(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        cut = f"{what}: the response is cut off or not JSON ({len(response.content)} bytes)"
        raise _TryAgain(ServiceUnavailableError(cut)) from None


def _close_if_given_up(connection: Connection, number: int, future: asyncio.Future[Any]) -> None:
    """Give up a request whose future was cancelled: it must not record anything later."""
    if future.cancelled():
        connection.give_up(number)


def _end_by(rest: Coroutine[Any, Any, T], future: asyncio.Future[T]) -> None:
    """Resolve ``future`` with the outcome of ``rest``; cancelling it cancels ``rest``."""
    task = asyncio.ensure_future(rest)

    def end(_: asyncio.Future[T]) -> None:
        if future.done() or task.cancelled():
            future.cancel()
        elif (error := task.exception()) is not None:
            future.set_exception(error)
        else:
            future.set_result(task.result())

    task.add_done_callback(end)
    future.add_done_callback(lambda _: task.cancel())


def _named(method: str, path: tuple[str, ...]) -> str:
    return f"{method} {path[-1]} of {path[-2]}"


@functools.lru_cache(maxsize=64)
def _encoded(path: tuple[str, ...]) -> str:
    return "".join("/" + quote(part, safe="") for part in path)


def _connections(
    url: str, threads: ThreadPoolExecutor, now_ms: Callable[[], int], read_seconds: float
) -> Connections:
    names = {name.lower() for name, value in os.environ.items() if value}
    if names & {"http_proxy", "https_proxy"}:
        from pyworkflow.services.awslambda._proxy import ProxiedConnections

        return ProxiedConnections(url, threads, THREADS, read_seconds=read_seconds)
    return DirectConnections(url, threads, now_ms, read_seconds=read_seconds)


class _TryAgain(Exception):  # noqa: N818 - a signal; callers see the error that it carries
    def __init__(self, error: ServiceUnavailableError, retry_after: float = 0.0) -> None:
        super().__init__(error)
        self.error = error
        self.retry_after = retry_after


def _seconds(text: str | None) -> float:
    return float(text) if text is not None and text.isdecimal() else 0.0
