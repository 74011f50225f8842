"""Signed requests to the Lambda API, without a model of it.

Of botocore only the credentials, the signature and the HTTP session are used: loading its model of
the whole Lambda API, and making a client of it, is most of what a cold start would cost. Keys and
region that the environment names, as they are on Lambda, spare its configuration files, too.

A request is tried again when it is unknown whether it arrived, or when the service can't answer
now; the body stays the same, so its ClientToken makes the second arrival a repetition of the first.
Requests block a thread of a small pool, never the loop that runs steps. Nothing is logged, and what
botocore logs of a signature shows neither the session's token nor the request.

Sources: "Signature Version 4 for API requests" in the IAM user guide; "Service-specific endpoints"
and "Using environment variables" in the AWS SDKs and Tools reference guide.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode

import msgspec
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

from pyworkflow.errors import ServiceError, ServiceUnavailableError
from pyworkflow.services.awslambda.faults import error_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

CONNECT_SECONDS = 5.0
READ_SECONDS = 50.0
MAX_ATTEMPTS = 5
FIRST_DELAY_SECONDS = 0.2
MAX_DELAY_SECONDS = 5.0
MAX_CONNECTIONS = 10


class Keys(NamedTuple):
    """Credentials at one moment. ``token`` is the session's, `None` for a user's own keys."""

    access_key: str
    secret_key: str
    token: str | None = None

    def __repr__(self) -> str:
        return "Keys(…)"

    def get_frozen_credentials(self) -> Keys:
        """Return these, which are fixed; botocore's own credentials may be renewed here."""
        return self


class Access(NamedTuple):
    """Where requests go, and in whose name: `Keys`, or credentials as botocore has them."""

    endpoint: str
    region: str
    credentials: Any

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Access:
        """Return what the environment says, and the configuration files where it is silent.

        Raises `ServiceError` when there is no region or no credentials.
        """
        session: Any = None
        region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
        key, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
        if not region or not key or not secret:
            from botocore.session import Session

            session = Session()
            region = region or _configured_region(session)
        credentials: Any
        if key and secret:
            credentials = Keys(key, secret, environ.get("AWS_SESSION_TOKEN"))
        else:
            credentials = _configured_credentials(session)
        named = environ.get("AWS_ENDPOINT_URL_LAMBDA") or environ.get("AWS_ENDPOINT_URL")
        return cls((named or _public_endpoint(region)).rstrip("/"), region, credentials)


def _configured_region(session: Any) -> str:
    region = session.get_config_variable("region")
    if not region:
        raise ServiceError(
            "Calling Lambda: expected a region, found none in the environment or in the profile; "
            "set AWS_REGION (the Lambda runtime does)"
        )
    return str(region)


def _configured_credentials(session: Any) -> Any:
    credentials = session.get_credentials()
    if credentials is None:
        raise ServiceError(
            "Calling Lambda: expected credentials, found none in the environment, the profile or "
            "the machine's role; give the function a role, or set AWS_PROFILE"
        )
    return credentials


def _public_endpoint(region: str) -> str:
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"https://lambda.{region}.{suffix}"


class _Unlogged(str):
    """Text that is hashed but not printed: a canonical request holds the session's token."""

    __slots__ = ()

    def __str__(self) -> str:
        return "(not logged)"


class _Signature(SigV4Auth):  # type: ignore[misc]
    def canonical_request(self, request: Any) -> str:
        return _Unlogged(super().canonical_request(request))


class LambdaClient:
    """Sends requests to the Lambda API; one for all executions, threads and loops of a process.

    ``read_seconds`` is how long an answer may take; ``sleep`` waits between two tries, and
    ``chance`` returns a number from 0 to 1 that makes the waits differ.
    """

    def __init__(
        self,
        access: Access,
        *,
        read_seconds: float = READ_SECONDS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._access = access
        self._sleep = sleep
        self._chance = chance
        self._session = URLLib3Session(
            verify=os.environ.get("AWS_CA_BUNDLE") or True,
            proxies=get_environ_proxies(access.endpoint),
            timeout=(CONNECT_SECONDS, read_seconds),
            max_pool_connections=MAX_CONNECTIONS,
            # Head and body go out in two writes: else the second waits for the first to arrive.
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )
        self._threads = ThreadPoolExecutor(MAX_CONNECTIONS, thread_name_prefix="pyworkflow-lambda")

    def close(self) -> None:
        """Close the connections and end the threads, once their requests are through."""
        self._threads.shutdown()
        self._session.close()

    async def get(self, *path: str, **query: str | int) -> Any:
        """Return the decoded answer to a GET of the ``path`` of these segments.

        Raises `ServiceError` and what is below it.
        """
        return await self._call("GET", path, query, b"")

    async def post(self, *path: str, body: bytes) -> Any:
        """Return the decoded answer to a POST of ``body``, which must bear being sent twice.

        Raises `ServiceError` and what is below it.
        """
        return await self._call("POST", path, {}, body)

    async def _call(
        self, method: str, path: tuple[str, ...], query: Mapping[str, str | int], body: bytes
    ) -> Any:
        url = "/".join([self._access.endpoint, *(quote(part, safe="") for part in path)])
        if query:
            url += "?" + urlencode(query, quote_via=quote, safe="")
        what = f"{method} {path[-1]} of {path[-2]}"
        loop = asyncio.get_running_loop()
        attempt = 1
        while True:
            try:
                return await loop.run_in_executor(
                    self._threads, self._send, method, url, body, what
                )
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

    def _send(self, method: str, url: str, body: bytes, what: str) -> Any:
        """Send once, on a thread of the pool."""
        headers = {"Content-Type": "application/json", "User-Agent": "pyworkflow"}
        request = AWSRequest(method=method, url=url, data=body, headers=headers)
        try:
            keys = self._access.credentials.get_frozen_credentials()
            _Signature(keys, "lambda", self._access.region).add_auth(request)
        except BotoCoreError as error:
            raise ServiceError(f"{what}: the request can't be signed: {error}") from error
        try:
            answer = self._session.send(request.prepare())
        except BotoCoreError as error:
            # Its own text holds the URL, and with it the checkpoint token.
            reason = f"{type(error).__name__}: {error.kwargs.get('error', '')}"
            raise _TryAgain(ServiceUnavailableError(f"{what}: {reason}")) from None
        if not 200 <= answer.status_code < 300:
            found = error_of(answer.status_code, answer.headers, answer.content, what)
            if isinstance(found, ServiceUnavailableError):
                raise _TryAgain(found, _seconds(answer.headers.get("Retry-After")))
            raise found
        try:
            return msgspec.json.decode(answer.content)
        except (msgspec.DecodeError, UnicodeDecodeError):
            cut = f"{what}: the answer is cut off or no JSON ({len(answer.content)} bytes)"
            raise _TryAgain(ServiceUnavailableError(cut)) from None


class _TryAgain(Exception):  # noqa: N818 - a signal, which ends as the error that it carries
    def __init__(self, error: ServiceUnavailableError, retry_after: float = 0.0) -> None:
        super().__init__(error)
        self.error = error
        self.retry_after = retry_after


def _seconds(text: str | None) -> float:
    return float(text) if text is not None and text.isdecimal() else 0.0
