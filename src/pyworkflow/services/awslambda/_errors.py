"""Error mapping: from the API's error responses to this library's errors.

===============================================  =========================  ==================
response                                         error                      retried here
===============================================  =========================  ==================
``KMS…``, whatever its status                    `RequestRefusedError`      no, final
InvalidParameterValue "Invalid checkpoint token" `StaleTokenError`          no
429                                              `ServiceUnavailableError`  yes
any other below 500                              `RequestRefusedError`      no, final
500 and above                                    `ServiceUnavailableError`  yes
===============================================  =========================  ==================

A *final* error ends the execution. The others leave the handler when the retries are used up, and
Lambda invokes the function again. A stale token means that another invocation drives the execution
now.

Source: the errors of `CheckpointDurableExecution` and `GetDurableExecutionState` in the Lambda API
reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from pyworkflow.errors import (
    RequestRefusedError,
    ServiceError,
    ServiceUnavailableError,
    StaleTokenError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_STALE = "Invalid checkpoint token"
_MOST_TEXT = 1000

_WRONG_CLOCK = "; the secret key is wrong, or this machine's clock is, by more than five minutes"
_EXPIRED = "; the credentials have expired or were revoked: let the function get new ones"

_REMEDIES = {
    "AccessDenied": (
        "; the function's role needs lambda:CheckpointDurableExecution and "
        "lambda:GetDurableExecutionState on this function and its versions (managed policy "
        "AWSLambdaBasicDurableExecutionRolePolicy)"
    ),
    "KMS": "; give the function's role the use of the key, and enable the key",
    "ResourceNotFound": "; the execution is gone, or its ARN names another region or account",
    "InvalidSignature": _WRONG_CLOCK,
    "SignatureDoesNotMatch": _WRONG_CLOCK,
    "RequestExpired": _WRONG_CLOCK,
    "RequestTimeTooSkewed": _WRONG_CLOCK,
    "ExpiredToken": _EXPIRED,
    "UnrecognizedClient": _EXPIRED,
}


def error_of(status: int, headers: Mapping[str, str], body: bytes, what: str) -> ServiceError:
    """Return the error for a response whose ``status`` is not 2xx.

    The names of ``headers`` are in lower case; ``what`` names the request in the message. A
    `ServiceUnavailableError` is worth another attempt.
    """
    content = _object_of(body)
    code = _code(headers.get("x-amzn-errortype") or _first(content, "__type", "code", "Code"))
    message = _first(content, "message", "Message", "errorMessage")[:_MOST_TEXT]
    said = f"{what}: Lambda answered {status} {code or '(no error code)'}: {message or '(no text)'}"
    if code.startswith("KMS"):
        return _refused(said, code)
    if code.startswith("InvalidParameterValue") and message.startswith(_STALE):
        return StaleTokenError(
            f"{said}; the token was used already: another invocation drives this execution now"
        )
    if status == 429 or status >= 500:
        return ServiceUnavailableError(said)
    return _refused(said, code)


def _refused(said: str, code: str) -> RequestRefusedError:
    remedy = next((text for start, text in _REMEDIES.items() if code.startswith(start)), "")
    return RequestRefusedError(said + remedy, code=code)


def _object_of(body: bytes) -> dict[str, Any]:
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def _first(content: dict[str, Any], *keys: str) -> str:
    found = (content.get(key) for key in keys)
    return next((value for value in found if value and isinstance(value, str)), "")


def _code(text: str) -> str:
    """Return the bare name of an error code, whose longest form is ``prefix#Name:http://…``."""
    return text.partition(":")[0].rpartition("#")[2].strip()
