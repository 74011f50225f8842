"""The table of errors: where the code stands, and what each means."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pyworkflow.errors import (
    RequestRefusedError,
    ServiceError,
    ServiceUnavailableError,
    StaleTokenError,
)
from pyworkflow.services.awslambda._errors import error_of

INVALID = "InvalidParameterValueException"


def judged(status: int, code: str = "", message: str = "") -> ServiceError:
    body = json.dumps({"message": message}).encode()
    return error_of(status, {"x-amzn-errortype": code} if code else {}, body, "POST x")


@pytest.mark.parametrize(
    ("status", "code", "message", "error"),
    [
        (502, "KMSAccessDeniedException", "", RequestRefusedError),
        (502, "KMSDisabledException", "", RequestRefusedError),
        (429, "KMSInvalidStateException", "", RequestRefusedError),
        (400, INVALID, "Invalid checkpoint token", StaleTokenError),
        (400, INVALID, "Invalid checkpoint token: it was used", StaleTokenError),
        (400, INVALID, "an Invalid checkpoint token", RequestRefusedError),
        (400, "OtherException", "Invalid checkpoint token", RequestRefusedError),
        (403, "AccessDeniedException", "", RequestRefusedError),
        (404, "ResourceNotFoundException", "", RequestRefusedError),
        (301, "", "", RequestRefusedError),
        (429, "TooManyRequestsException", "", ServiceUnavailableError),
        (429, "", "", ServiceUnavailableError),
        (500, "ServiceException", "", ServiceUnavailableError),
        (502, "", "", ServiceUnavailableError),
    ],
)
def test_what_each_answer_means(
    status: int, code: str, message: str, error: type[ServiceError]
) -> None:
    found = judged(status, code, message)
    assert type(found) is error
    assert found.is_final is (error is RequestRefusedError)
    assert f"POST x: Lambda answered {status} {code or '(no error code)'}" in str(found)
    assert (message or "(no text)") in str(found)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("AccessDeniedException", "lambda:CheckpointDurableExecution"),
        ("KMSDisabledException", "enable the key"),
        ("ResourceNotFoundException", "another region"),
        ("InvalidSignatureException", "clock"),
        ("SignatureDoesNotMatch", "clock"),
        ("RequestExpired", "clock"),
        ("RequestTimeTooSkewed", "clock"),
        ("ExpiredTokenException", "have expired"),
        ("UnrecognizedClientException", "have expired"),
    ],
)
def test_the_remedy_is_said(code: str, remedy: str) -> None:
    found = judged(400, code)
    assert remedy in str(found)
    assert isinstance(found, RequestRefusedError)
    assert found.code == code


@pytest.mark.parametrize(
    ("header", "body", "code"),
    [
        ("NameException", {}, "NameException"),
        ("NameException:http://internal.amazon.com/x/", {}, "NameException"),
        ("com.amazon#NameException", {}, "NameException"),
        ("com.amazon#NameException:http://x#y", {}, "NameException"),
        ("", {"__type": "com.amazon#NameException"}, "NameException"),
        ("", {"code": "NameException"}, "NameException"),
        ("", {"Code": "NameException"}, "NameException"),
        ("", {"__type": None, "code": "", "Code": "NameException"}, "NameException"),
        ("NameException", {"__type": "OtherException"}, "NameException"),
        ("", {"code": 7}, ""),
        ("", ["code"], ""),
    ],
)
def test_where_the_code_stands(header: str, body: Any, code: str) -> None:
    headers = {"x-amzn-errortype": header} if header else {}
    found = error_of(400, headers, json.dumps(body).encode(), "GET x")
    assert isinstance(found, RequestRefusedError)
    assert found.code == code


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff"])
def test_a_body_that_is_no_json_is_no_matter(body: bytes) -> None:
    assert isinstance(error_of(503, {}, body, "GET x"), ServiceUnavailableError)


def test_a_message_is_not_endless() -> None:
    assert len(str(judged(400, "NameException", "x" * 100_000))) < 1200


@pytest.mark.parametrize("key", ["message", "Message", "errorMessage"])
def test_where_the_message_stands(key: str) -> None:
    found = error_of(400, {}, json.dumps({key: "it is so"}).encode(), "GET x")
    assert "it is so" in str(found)
