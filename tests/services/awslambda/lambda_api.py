"""A Lambda API on this machine, which records what reaches it and fails as it is told.

It answers with what `answers` holds, one a request, or with `DEFAULT`; `faults` says what becomes
of the next requests before that. A repeated ClientToken gets the answer that its first arrival got,
as from Lambda.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import trustme

from pyworkflow._runtime.clock import SystemClock
from pyworkflow.services.awslambda._client import LambdaClient
from pyworkflow.services.awslambda._environment import Access
from pyworkflow.services.awslambda._sigv4 import Keys

T = TypeVar("T")

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:order:7/durable-execution/o-1/6f9b"
CLOCK = SystemClock()
KEYS = Keys("AKIDEXAMPLE", "wJalrXUtnFEMI", "session-token")


class Request(NamedTuple):
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    connection: int

    @property
    def path(self) -> list[str]:
        return [unquote(part) for part in urlsplit(self.target).path.split("/")[1:]]

    @property
    def query(self) -> dict[str, str]:
        return {key: value for key, (value,) in parse_qs(urlsplit(self.target).query).items()}

    @property
    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.body)
        return content


class Answer(NamedTuple):
    content: Any
    status: int = 200
    headers: Mapping[str, str] = {}

    @property
    def body(self) -> bytes:
        return (
            self.content if isinstance(self.content, bytes) else json.dumps(self.content).encode()
        )


DEFAULT = Answer({"CheckpointToken": "bmV4dA==", "NewExecutionState": {"Operations": []}})

Fault = Callable[["_Handler", Callable[[], Answer]], None]


def cut_before(handler: _Handler, answer: Callable[[], Answer]) -> None:
    """Close the connection; the request was not applied."""
    handler.close_connection = True


def cut_after(handler: _Handler, answer: Callable[[], Answer]) -> None:
    """Apply the request, and close the connection."""
    answer()
    handler.close_connection = True


def cut_within(handler: _Handler, answer: Callable[[], Answer]) -> None:
    """Apply the request, and close the connection in the midst of the answer."""
    whole = answer()
    handler.send(whole, whole.body[:5])
    handler.close_connection = True


def close_after(handler: _Handler, answer: Callable[[], Answer]) -> None:
    """Answer, and close the connection without a word about it."""
    whole = answer()
    handler.send(whole, whole.body)
    handler.close_connection = True


def hang(handler: _Handler, answer: Callable[[], Answer]) -> None:
    """Apply the request, and give no answer until the test is over."""
    answer()
    handler.api.over.wait()
    handler.close_connection = True


def fail(
    status: int, code: str = "", message: str = "", headers: Mapping[str, str] | None = None
) -> Fault:
    """Answer with an error, as Lambda does."""
    errors = {"x-amzn-errortype": code} if code else {}

    def send(handler: _Handler, answer: Callable[[], Answer]) -> None:
        found = Answer({"message": message}, status, {**errors, **(headers or {})})
        handler.send(found, found.body)

    return send


class FakeLambda:
    def __init__(self, authority: trustme.CA | None = None) -> None:
        self.requests: list[Request] = []
        self.applied: dict[str, Answer] = {}
        self.answers: deque[Answer] = deque()
        self.faults: deque[Fault] = deque()
        self.slept: list[float] = []
        self.over = threading.Event()
        self.reached = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.api = self  # type: ignore[attr-defined]
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"
        if authority is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("localhost").configure_cert(context)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self.url = f"https://localhost:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def client(
        self,
        *,
        keys: Any = KEYS,
        read_seconds: float = 30.0,
        now_ms: Callable[[], int] = CLOCK.now_ms,
        endpoint: str = "",
    ) -> LambdaClient:
        return LambdaClient(
            Access(endpoint or self.url, "eu-west-1", keys),
            now_ms,
            read_seconds=read_seconds,
            sleep=self.sleep,
            chance=lambda: 1.0,
        )

    def run(self, work: Callable[[LambdaClient], Awaitable[T]], **options: Any) -> T:
        """Return what ``work`` makes of a client, which is closed then."""

        async def main() -> T:
            with contextlib.closing(self.client(**options)) as client:
                return await work(client)

        return asyncio.run(main())

    def apply(self, request: Request) -> Answer:
        token = request.content["ClientToken"] if request.method == "POST" else ""
        if token in self.applied:
            return self.applied[token]
        answer = self.answers.popleft() if self.answers else DEFAULT
        if token:
            self.applied[token] = answer
        return answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def api(self) -> FakeLambda:
        api: FakeLambda = self.server.api  # type: ignore[attr-defined]
        return api

    def _take(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(self.command, self.path, dict(self.headers), body, self.client_address[1])
        self.api.requests.append(request)
        self.api.reached.set()

        def answer() -> Answer:
            return self.api.apply(request)

        if self.api.faults:
            self.api.faults.popleft()(self, answer)
        else:
            found = answer()
            self.send(found, found.body)

    do_GET = do_POST = _take  # noqa: N815

    def send(self, answer: Answer, body: bytes) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def fake_lambda(authority: trustme.CA | None = None) -> Iterator[FakeLambda]:
    api = FakeLambda(authority)
    try:
        yield api
    finally:
        api.close()
