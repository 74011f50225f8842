"""Connections: kept, found closed, replaced; certificates; proxies."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from pyworkflow.errors import ServiceError, ServiceUnavailableError
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

    from pyworkflow.services.awslambda.client import LambdaClient

BODY = b'{"ClientToken": "the-same"}'


async def post(client: LambdaClient) -> Any:
    return await client.post("v1", "things", ARN, "checkpoint", body=BODY)


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
        await client.get("v1", "things", ARN, "state")
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
            await client.get("v1", "things", ARN, "state")
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
    with pytest.raises(ServiceUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        secure.run(post)
    assert secure.requests == []


def test_a_certificate_of_another_name_is_refused(
    secure: FakeLambda, monkeypatch: pytest.MonkeyPatch, bundle: str
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", bundle)
    with pytest.raises(ServiceUnavailableError, match="not valid for '127.0.0.1'"):
        secure.run(post, endpoint=f"https://127.0.0.1:{secure.port}")
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
        await client.get("v1", "things", ARN, "state", CheckpointToken="the-secret")

    with pytest.raises(ServiceUnavailableError, match="ProxyConnectionError") as caught:
        api.run(load, endpoint="http://lambda.test")
    assert "the-secret" not in str(caught.value)
