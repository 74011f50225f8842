"""Signed requests: what arrives, what is tried again, and what each failure ends as."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from typing import Any

import msgspec
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import CredentialRetrievalError

from pyworkflow._runtime.clock import SystemClock
from pyworkflow.errors import (
    RequestRefusedError,
    ServiceError,
    ServiceUnavailableError,
    StaleTokenError,
)
from pyworkflow.services.awslambda._client import MAX_ATTEMPTS, LambdaClient
from pyworkflow.services.awslambda._environment import Access, RenewedCredentials
from pyworkflow.services.awslambda._sigv4 import Keys
from tests.services.awslambda.lambda_api import (
    ARN,
    KEYS,
    Answer,
    FakeLambda,
    Fault,
    cut_after,
    cut_before,
    cut_within,
    fail,
    hang,
)

BODY = b'{"ClientToken": "the-same", "Updates": []}'


async def post(client: LambdaClient) -> Any:
    return await client.post("v1", "things", ARN, "checkpoint", body=BODY, read=msgspec.json.decode)


async def get(client: LambdaClient) -> Any:
    return await client.get(
        "v1", "things", ARN, "state", read=msgspec.json.decode, Marker="a b+/=&", MaxItems=1000
    )


# -- what arrives --------------------------------------------------------------------------------


def test_a_post_arrives_as_it_was_meant(api: FakeLambda) -> None:
    api.answers.append(Answer({"some": "answer"}))
    assert api.run(post) == {"some": "answer"}
    (request,) = api.requests
    assert (request.method, request.body) == ("POST", BODY)
    assert request.path == ["v1", "things", ARN, "checkpoint"]
    assert ":" not in request.target
    assert request.target.count("/") == 4
    assert request.headers["Content-Type"] == "application/json"


def test_a_get_has_its_query(api: FakeLambda) -> None:
    api.run(get)
    (request,) = api.requests
    assert (request.method, request.body) == ("GET", b"")
    assert request.query == {"Marker": "a b+/=&", "MaxItems": "1000"}


@pytest.mark.parametrize("work", [get, post])
def test_what_arrives_is_what_was_signed(api: FakeLambda, work: Any) -> None:
    api.run(work)
    (request,) = api.requests
    assert request.headers["X-Amz-Security-Token"] == "session-token"
    scope, signed, signature = request.headers["Authorization"].split(", ")
    assert scope.endswith("/eu-west-1/lambda/aws4_request")
    names = signed.removeprefix("SignedHeaders=").split(";")
    assert {"host", "x-amz-date", "x-amz-security-token"} <= set(names)

    arrived = AWSRequest(request.method, api.url + request.target, data=request.body)
    for name in names:
        arrived.headers[name] = request.headers[name.title()]
    arrived.context["timestamp"] = request.headers["X-Amz-Date"]
    auth = SigV4Auth(KEYS, "lambda", "eu-west-1")
    expected = auth.signature(
        auth.string_to_sign(arrived, auth.canonical_request(arrived)), arrived
    )
    assert signature == f"Signature={expected}"


def test_keys_are_asked_for_each_time(api: FakeLambda) -> None:
    class Renewed:
        def __init__(self) -> None:
            self.count = 0

        def get_frozen_credentials(self) -> Keys:
            self.count += 1
            return Keys(f"AKID{self.count}", "secret")

    async def twice(client: LambdaClient) -> None:
        await post(client)
        await post(client)

    api.run(twice, keys=Renewed())
    first, second = api.requests
    assert "Credential=AKID1/" in first.headers["Authorization"]
    assert "Credential=AKID2/" in second.headers["Authorization"]
    assert "X-Amz-Security-Token" not in first.headers


def test_the_connection_is_kept(api: FakeLambda) -> None:
    async def thrice(client: LambdaClient) -> None:
        for _ in range(3):
            await post(client)

    api.run(thrice)
    assert len(api.requests) == 3
    assert len({request.connection for request in api.requests}) == 1


def test_one_client_serves_several_loops(api: FakeLambda) -> None:
    with contextlib.closing(api.client()) as client:
        asyncio.run(post(client))
        asyncio.run(post(client))
    assert len(api.requests) == 2


def test_a_request_does_not_block_the_loop(api: FakeLambda) -> None:
    """The answer comes only after the loop has gone on."""
    gone_on = []

    def wait(handler: Any, answer: Any) -> None:
        api.over.wait()
        found = answer()
        handler.send(found, found.body)

    api.faults.append(wait)

    async def work(client: LambdaClient) -> Any:
        sent = asyncio.create_task(post(client))
        await asyncio.get_running_loop().run_in_executor(None, api.reached.wait)
        gone_on.append(not sent.done())
        api.over.set()
        return await sent

    assert api.run(work)["CheckpointToken"] == "bmV4dA=="
    assert gone_on == [True]


def test_neither_keys_nor_payloads_are_logged(
    api: FakeLambda, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        api.faults.append(fail(500))
        api.run(post)
    for secret in ("session-token", "wJalrXUtnFEMI", "the-same"):
        assert secret not in caplog.text
    assert "wJalr" not in repr(KEYS)
    assert "wJalr" not in repr(Access("https://a", "eu-west-1", KEYS))


# -- what is tried again -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "read_seconds"),
    [
        (cut_before, 30.0),
        (cut_after, 30.0),
        (cut_within, 30.0),
        (hang, 0.1),
        (fail(429, "TooManyRequestsException"), 30.0),
        (fail(500, "ServiceException"), 30.0),
        (fail(503), 30.0),
    ],
)
def test_a_passing_fault_is_tried_again(api: FakeLambda, fault: Fault, read_seconds: float) -> None:
    api.faults += [fault, fault]
    api.answers.append(Answer({"applied": "once"}))
    assert api.run(post, read_seconds=read_seconds) == {"applied": "once"}
    assert [request.body for request in api.requests] == [BODY] * 3
    assert list(api.applied) == ["the-same"]
    assert api.slept == [0.2, 0.4]


@pytest.mark.parametrize(
    ("fault", "read_seconds", "said"),
    [
        (cut_before, 30.0, "closed without a response"),
        (cut_within, 30.0, "cut off"),
        (hang, 0.1, "timed out"),
        (fail(429, "TooManyRequestsException", "slow down"), 30.0, "slow down"),
        (fail(502, "ServiceException"), 30.0, "502 ServiceException"),
    ],
)
def test_a_lasting_fault_ends_as_unavailable(
    api: FakeLambda, fault: Fault, read_seconds: float, said: str
) -> None:
    api.faults += [fault] * 20
    with pytest.raises(ServiceUnavailableError) as caught:
        api.run(post, read_seconds=read_seconds)
    assert said in str(caught.value)
    assert f"gave up after {MAX_ATTEMPTS} attempts" in str(caught.value)
    assert not caught.value.is_final
    assert len(api.requests) == MAX_ATTEMPTS
    assert api.slept == [0.2, 0.4, 0.8, 1.6]


def test_an_endpoint_that_nobody_serves_is_unavailable(api: FakeLambda) -> None:
    api.close()
    refused = os.strerror(errno.ECONNREFUSED)
    with pytest.raises(ServiceUnavailableError, match=f"POST checkpoint of arn.*{refused}"):
        api.run(post)


def test_lambda_says_when_to_come_back(api: FakeLambda) -> None:
    api.faults.append(fail(429, headers={"Retry-After": "3"}))
    api.faults.append(fail(429, headers={"Retry-After": "3600"}))
    api.faults.append(fail(429, headers={"Retry-After": "soon"}))
    api.run(post)
    assert api.slept == [3.0, 5.0, 0.8]


def test_waits_differ_by_chance(api: FakeLambda) -> None:
    api.faults.append(fail(500))
    access, now_ms = Access(api.url, "eu-west-1", KEYS), SystemClock().now_ms
    client = LambdaClient(access, now_ms, sleep=api.sleep, chance=lambda: 0.0)
    with contextlib.closing(client):
        asyncio.run(post(client))
    assert api.slept == [0.1]


# -- what is not ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error", "is_final"),
    [
        (
            fail(400, "InvalidParameterValueException", "Invalid checkpoint token: used"),
            StaleTokenError,
            False,
        ),
        (fail(400, "InvalidParameterValueException", "bad update"), RequestRefusedError, True),
        (fail(403, "AccessDeniedException"), RequestRefusedError, True),
        (fail(502, "KMSAccessDeniedException:http://x"), RequestRefusedError, True),
    ],
)
def test_a_refusal_is_not_tried_again(
    api: FakeLambda, fault: Fault, error: type[ServiceError], is_final: bool
) -> None:
    api.faults.append(fault)
    with pytest.raises(error) as caught:
        api.run(post)
    assert type(caught.value) is error
    assert caught.value.is_final is is_final
    assert len(api.requests) == 1
    assert api.slept == []


def test_what_can_not_be_signed_is_not_sent(api: FakeLambda) -> None:
    class Expired:
        def get_frozen_credentials(self) -> Keys:
            raise CredentialRetrievalError(provider="the role", error_msg="no answer")

    with pytest.raises(ServiceError, match=r"can't be signed.*no answer") as caught:
        api.run(post, keys=RenewedCredentials(Expired()))
    assert not caught.value.is_final
    assert api.requests == []
