"""Connections: kept, found closed, replaced, shared out; certificates; proxies."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trustme

from pyworkflow.errors import ServiceError, ServiceUnavailableError
from pyworkflow.services.awslambda import _http1
from pyworkflow.services.awslambda._connections import DirectConnections
from pyworkflow.services.awslambda._sigv4 import Request
from tests.services.awslambda.lambda_api import (
    ARN,
    Answer,
    FakeLambda,
    close_after,
    cut_after,
    cut_before,
    cut_within,
    fail,
    fake_lambda,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from pyworkflow.services.awslambda._client import LambdaClient

BODY = b'{"ClientToken": "the-same"}'


async def post(client: LambdaClient) -> Any:
    return await client.post("v1", "things", ARN, "checkpoint", body=BODY, read=msgspec.json.decode)


def times(count: int) -> Callable[[LambdaClient], Awaitable[None]]:
    async def work(client: LambdaClient) -> None:
        for _ in range(count):
            await post(client)

    return work


def connections(api: FakeLambda) -> list[int]:
    """Return for each request the connection that it came on, counted from 0."""
    order = list(dict.fromkeys(request.connection for request in api.requests))
    return [order.index(request.connection) for request in api.requests]


# -- kept ----------------------------------------------------------------------------------------


def test_a_connection_that_was_closed_while_it_rested_is_replaced(api: FakeLambda) -> None:
    api.faults += [close_after]
    api.run(times(3))
    assert connections(api) == [0, 1, 1]
    assert api.slept == []


@pytest.mark.parametrize("cut", [cut_before, cut_after])
def test_what_a_dying_connection_took_is_sent_again_at_once(api: FakeLambda, cut: Any) -> None:
    """Whether the first was applied is not known: both have the same ClientToken."""

    async def work(client: LambdaClient) -> Any:
        await client.get("v1", "things", ARN, "state", read=msgspec.json.decode)
        api.faults.append(cut)
        api.answers.append(Answer({"applied": "once"}))
        return await post(client)

    assert api.run(work) == {"applied": "once"}
    assert connections(api) == [0, 0, 1]
    assert [request.body for request in api.requests[1:]] == [BODY] * 2
    assert list(api.applied) == ["the-same"]
    assert api.slept == []


def test_a_new_connection_that_dies_counts_as_an_attempt(api: FakeLambda) -> None:
    async def work(client: LambdaClient) -> None:
        await post(client)
        api.faults += [cut_before, cut_before]
        await post(client)

    api.run(work)
    assert connections(api) == [0, 0, 1, 2]
    assert api.slept == [0.2]


def test_half_an_answer_counts_as_an_attempt(api: FakeLambda) -> None:
    async def work(client: LambdaClient) -> None:
        await post(client)
        api.faults += [cut_within]
        await post(client)

    api.run(work)
    assert connections(api) == [0, 0, 1]
    assert api.slept == [0.2]


def test_an_answer_that_says_close_is_the_last_on_its_connection(api: FakeLambda) -> None:
    api.answers.append(Answer({}, headers={"Connection": "close"}))
    api.run(times(2))
    assert connections(api) == [0, 1]


def test_a_refusal_does_not_cost_the_connection(api: FakeLambda) -> None:
    api.answers.append(Answer({"message": "no"}, 503))

    async def work(client: LambdaClient) -> None:
        with contextlib.suppress(ServiceError):
            await client.get("v1", "things", ARN, "state", read=msgspec.json.decode)
        await post(client)

    api.run(work)
    assert connections(api) == [0, 0, 0]


def test_a_connection_that_rested_for_long_is_not_trusted(api: FakeLambda) -> None:
    now_ms = [1_767_268_800_000]

    async def work(client: LambdaClient) -> None:
        await asyncio.gather(post(client), post(client))
        now_ms[0] += 59_999
        await post(client)
        now_ms[0] += 60_000
        await post(client)

    api.run(work, now_ms=lambda: now_ms[0])
    before, last = api.requests[:3], api.requests[3]
    assert before[2].connection in {one.connection for one in before[:2]}
    assert last.connection not in {one.connection for one in before}


# -- between invocations, when the loop stands still ----------------------------------------------


PATIENCE_SECONDS = 10.0
"""How long until a test fails that waits in vain."""


class Peer:
    """The other end, which a test plays itself, one connection after the other."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.accepted: list[socket.socket] = []

    def accept(self) -> socket.socket:
        self.accepted.append(self._listener.accept()[0])
        self.accepted[-1].settimeout(PATIENCE_SECONDS)
        return self.accepted[-1]

    def answer(self, connection: socket.socket, number: int) -> None:
        """Answer the next request with ``number``."""
        connection.recv(100_000)
        content = b"%d" % number
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content)
        connection.sendall(head + content)  # in one piece, or the second waits for the first

    def close(self) -> None:
        for connection in (*self.accepted, self._listener):
            connection.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    with contextlib.closing(Peer()) as peer:
        yield peer


@pytest.fixture
def client(api: FakeLambda, peer: Peer) -> Iterator[LambdaClient]:
    with contextlib.closing(api.client(endpoint=peer.url)) as client:
        yield client


async def asked(client: LambdaClient, peer: Peer, number: int) -> socket.socket:
    """Let a new connection be opened, and its first request be answered with ``number``."""
    sent = asyncio.ensure_future(post(client))
    connection = await asyncio.to_thread(peer.accept)
    await asyncio.to_thread(peer.answer, connection, number)
    assert await sent == number
    return connection


@pytest.mark.parametrize(
    "unasked", [b"", b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"]
)
def test_what_comes_between_two_invocations_is_no_answer(
    client: LambdaClient, peer: Peer, unasked: bytes
) -> None:
    with asyncio.Runner() as runner:
        first = runner.run(asked(client, peer, 1))
        first.sendall(unasked)
        first.shutdown(socket.SHUT_WR)
        runner.run(asked(client, peer, 2))
        assert first.recv(1000) == b""


def test_each_loop_has_connections_of_its_own(client: LambdaClient, peer: Peer) -> None:
    with asyncio.Runner() as one, asyncio.Runner() as other:
        of_one = one.run(asked(client, peer, 1))
        of_other = other.run(asked(client, peer, 2))
        for runner, connection in ((one, of_one), (other, of_other)):
            sent = runner.run(begun(client))
            peer.answer(connection, 3)
            assert runner.run(ended(sent)) == 3


def test_connections_of_a_closed_loop_are_closed(client: LambdaClient, peer: Peer) -> None:
    with asyncio.Runner() as runner:
        first = runner.run(asked(client, peer, 1))
        runner.run(begun(client))
        assert first.recv(100_000)
    with asyncio.Runner() as runner:
        runner.run(asked(client, peer, 2))
    assert first.recv(100_000) == b""


async def begun(client: LambdaClient) -> asyncio.Future[Any]:
    """Return the future of a request that is sent."""
    return client.post("v1", "things", "checkpoint", body=BODY, read=msgspec.json.decode)


async def ended(sent: asyncio.Future[Any]) -> Any:
    return await sent


def to_the_end(connection: socket.socket) -> bytes:
    """Read all that the client sends until it closes the connection."""
    with contextlib.suppress(ConnectionError), connection.makefile("rb") as file:
        return file.read()
    return b""


def test_a_request_that_is_given_up_ends(client: LambdaClient, peer: Peer) -> None:
    """On a kept connection and on a new one: it must record nothing once nobody waits for it."""

    async def work() -> None:
        connection = await asked(client, peer, 1)
        given_up = await begun(client)
        given_up.cancel()
        assert BODY in await asyncio.to_thread(to_the_end, connection)
        given_up = asyncio.ensure_future(post(client))
        connection = await asyncio.to_thread(peer.accept)
        await asyncio.to_thread(connection.recv, 1)
        given_up.cancel()
        assert BODY in await asyncio.to_thread(to_the_end, connection)
        connection = await asked(client, peer, 2)
        sent = await begun(client)
        await asyncio.to_thread(peer.answer, connection, 3)
        assert await sent == 3

    asyncio.run(work())


def test_giving_up_what_is_answered_disturbs_nobody(client: LambdaClient, peer: Peer) -> None:
    async def work() -> None:
        connection = await asked(client, peer, 1)
        sent = await begun(client)
        await asyncio.to_thread(peer.answer, connection, 2)
        assert await sent == 2
        sent.cancel()
        sent = await begun(client)
        await asyncio.to_thread(peer.answer, connection, 3)
        assert await sent == 3

    asyncio.run(work())


def test_giving_up_ends_the_tries(api: FakeLambda) -> None:
    reached, forever = asyncio.Event(), asyncio.Event()

    async def never(_: float) -> None:
        reached.set()
        await forever.wait()

    async def work(client: LambdaClient) -> None:
        await post(client)
        api.faults.append(fail(500))
        sent = await begun(client)
        await reached.wait()
        sent.cancel()
        await asyncio.wait([sent])
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    api.sleep = never  # type: ignore[assignment, method-assign]
    api.run(work)
    assert len(api.requests) == 2


class Pairs(Executor):
    """Opens socket pairs, at once or when a test says so."""

    def __init__(self) -> None:
        self.others: list[socket.socket] = []
        self.opening: list[Future[Any]] = []
        self.is_slow = False

    def submit(self, *_: Any, **__: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        self.opening.append(future)
        if not self.is_slow:
            self.open(future)
        return future

    def open(self, future: Future[Any]) -> socket.socket:
        ours, other = socket.socketpair()
        ours.setblocking(False)
        other.setblocking(False)
        self.others.append(other)
        future.set_result(ours)
        return ours

    def shutdown(self, *_: Any, **__: Any) -> None:
        for other in self.others:
            other.close()


def run_on_pairs(work: Callable[[DirectConnections, Pairs], Awaitable[None]]) -> None:
    async def main() -> None:
        with Pairs() as pairs:
            connections = DirectConnections("http://127.0.0.1", pairs, lambda: 0)
            with contextlib.closing(connections):
                await work(connections, pairs)

    asyncio.run(main())


def test_giving_up_while_a_connection_is_opened() -> None:
    async def work(connections: DirectConnections, pairs: Pairs) -> None:
        pairs.is_slow = True
        sent = asyncio.ensure_future(connections.send(Request("GET", "/"), {}))
        await asyncio.sleep(0)
        sent.cancel()
        await asyncio.wait([sent])
        (opening,) = pairs.opening
        assert pairs.open(opening).fileno() == -1

    run_on_pairs(work)


def test_a_request_beside_another_has_a_connection_that_is_not_kept(api: FakeLambda) -> None:
    both = threading.Barrier(2)

    def meet(handler: Any, answer: Any) -> None:
        both.wait(PATIENCE_SECONDS)
        found = answer()
        handler.send(found, found.body)

    async def work(client: LambdaClient) -> None:
        api.faults += [meet, meet]
        await asyncio.gather(post(client), post(client))
        api.faults += [meet, meet]
        await asyncio.gather(post(client), post(client))
        for _ in range(3):
            await post(client)

    api.run(work)
    used = connections(api)
    assert len(set(used[:2])) == 2
    assert len(set(used[:4])) == 3
    assert len(set(used[4:])) == 1
    assert used[4] in used[2:4]


def test_threads_with_loops_of_their_own_share_a_client(api: FakeLambda) -> None:
    """As handlers have it that AWS's test runner calls: each thread keeps one connection."""
    count = 4
    together = threading.Barrier(count)
    used: list[list[Any]] = []

    def meet(handler: Any, answer: Any) -> None:
        together.wait(PATIENCE_SECONDS)
        handler.send(found := Answer(handler.client_address[1]), found.body)

    def work(client: LambdaClient) -> None:
        with asyncio.Runner() as runner:
            used.append([runner.run(post(client)) for _ in range(3)])

    api.faults += [meet] * 3 * count
    with contextlib.closing(api.client()) as client:
        threads = [threading.Thread(target=work, args=(client,)) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({one for each in used for one in each}) == count
    assert [len(set(each)) for each in used] == [1] * count


# -- certificates --------------------------------------------------------------------------------


AUTHORITY = trustme.CA()


@pytest.fixture
def secure() -> Iterator[FakeLambda]:
    with fake_lambda(AUTHORITY) as api:
        yield api


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    path = tmp_path / "bundle.pem"
    AUTHORITY.cert_pem.write_to_path(path)
    return str(path)


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_a_trusted_certificate(
    secure: FakeLambda, monkeypatch: pytest.MonkeyPatch, bundle: str, name: str
) -> None:
    monkeypatch.setenv(name, bundle)
    secure.faults.append(close_after)
    secure.run(times(3))
    assert connections(secure) == [0, 1, 1]
    assert secure.slept == []


def test_a_certificate_of_nobody_s_is_refused(secure: FakeLambda) -> None:
    with pytest.raises(ServiceUnavailableError) as caught:
        secure.run(post)
    assert ssl.SSLCertVerificationError.__name__ in str(caught.value)
    assert secure.requests == []


def test_a_certificate_of_another_name_is_refused(
    secure: FakeLambda, monkeypatch: pytest.MonkeyPatch, bundle: str
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", bundle)
    with pytest.raises(ServiceUnavailableError, match=r"127\.0\.0\.1") as caught:
        secure.run(post, endpoint=f"https://127.0.0.1:{secure.port}")
    assert ssl.SSLCertVerificationError.__name__ in str(caught.value)
    assert secure.requests == []


@pytest.mark.parametrize("file", ["/no/such/file.pem", __file__])
def test_certificates_that_can_not_be_read_say_so(
    secure: FakeLambda, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", file)
    with pytest.raises(ServiceError, match=r"correct AWS_CA_BUNDLE") as caught:
        secure.run(post)
    assert file in str(caught.value)


# -- proxies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
def test_a_proxy_gets_the_request_and_what_was_signed(
    api: FakeLambda, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The API of the test is the proxy; it is asked for the whole URL."""
    monkeypatch.setenv(name, api.url)
    api.answers.append(Answer({"through": "the proxy"}))
    assert api.run(post, endpoint="http://lambda.test/base") == {"through": "the proxy"}
    (request,) = api.requests
    assert request.target.startswith("http://lambda.test/base/v1/things/arn%3A")
    assert (request.headers["Host"], request.body) == ("lambda.test", BODY)
    assert "SignedHeaders=content-type;host;x-amz-date;" in request.headers["Authorization"]


def test_faults_of_a_proxy_are_tried_again(
    api: FakeLambda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", api.url)
    api.faults += [cut_after, fail(429, headers={"Retry-After": "2"})]
    api.run(post, endpoint="http://lambda.test")
    assert api.slept == [0.2, 2.0]
    assert [request.body for request in api.requests] == [BODY] * 3


def test_no_proxy_is_honoured(api: FakeLambda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    api.run(post)
    (request,) = api.requests
    assert request.target.startswith("/v1/things/")


def test_an_error_of_a_proxy_shows_no_token(
    api: FakeLambda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", api.url)
    api.close()

    async def load(client: LambdaClient) -> None:
        await client.get(
            "v1", "things", ARN, "state", read=msgspec.json.decode, CheckpointToken="the-secret"
        )

    with pytest.raises(ServiceUnavailableError, match="ProxyConnectionError") as caught:
        api.run(load, endpoint="http://lambda.test")
    assert "the-secret" not in str(caught.value)


def test_a_request_through_a_proxy_that_is_given_up_ends(
    api: FakeLambda, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", peer.url)

    async def work(client: LambdaClient) -> None:
        for _ in range(2):
            given_up = asyncio.ensure_future(post(client))
            connection = await asyncio.to_thread(peer.accept)
            await asyncio.to_thread(connection.recv, 1)
            given_up.cancel()
            await asyncio.to_thread(to_the_end, connection)
        await asked(client, peer, 3)

    api.run(work, endpoint="http://lambda.test")


@pytest.mark.parametrize("is_proxied", [False, True])
def test_an_answer_that_is_too_large_is_not_read(
    api: FakeLambda, monkeypatch: pytest.MonkeyPatch, is_proxied: bool
) -> None:
    monkeypatch.setattr(_http1, "MOST_CONTENT_BYTES", 1000)
    options = {}
    if is_proxied:
        monkeypatch.setenv("HTTP_PROXY", api.url)
        options = {"endpoint": "http://lambda.test"}
    api.answers.append(Answer({"page": "x" * 2000}))
    with pytest.raises(ServiceUnavailableError, match="at most 1000 bytes, found one of 2"):
        api.run(post, **options)
    assert len(api.requests) == 1, "it would be too large again"
