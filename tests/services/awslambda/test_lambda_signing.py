"""Signatures: each as botocore's own signer makes it of the same request at the same moment."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from hypothesis import given
from hypothesis import strategies as st

from pyworkflow.errors import ServiceError
from pyworkflow.services.awslambda._sigv4 import Keys, Request, Signer

ENDPOINT = "https://lambda.eu-west-1.amazonaws.com"
KEYS = Keys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "session-token//==")
NOON_MS = 1_767_268_800_000  # 2026-01-01T12:00:00Z
DAY_MS = 86_400_000


def botocore_s(request: Request, keys: Keys, endpoint: str, region: str, moment: str) -> str:
    """Return the Authorization header that botocore would send."""
    theirs = AWSRequest(request.method, endpoint + request.target, data=request.body)
    theirs.headers["Content-Type"] = "application/json"
    theirs.headers["User-Agent"] = "pyworkflow"
    theirs.context["timestamp"] = moment
    auth = SigV4Auth(keys, "lambda", region)
    auth._modify_request_before_signing(theirs)
    text = auth.string_to_sign(theirs, auth.canonical_request(theirs))
    auth._inject_signature_to_request(theirs, auth.signature(text, theirs))
    return str(theirs.headers["Authorization"])


segments = st.text(min_size=1, max_size=40).filter(lambda text: text not in {".", ".."})
secrets = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=60)
tokens = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=900)
queries = st.dictionaries(
    st.sampled_from(["CheckpointToken", "Marker", "MaxItems"]), st.text(max_size=40)
)


@given(
    path=st.lists(segments, min_size=1, max_size=5),
    query=queries,
    body=st.binary(max_size=300),
    keys=st.builds(Keys, secrets, secrets, st.none() | tokens),
    endpoint=st.sampled_from(
        [
            ENDPOINT,
            "https://lambda.cn-north-1.amazonaws.com.cn",
            "http://127.0.0.1:8080",
            "http://LOCALHOST:80",
            "https://localhost:443",
            "https://localhost:80",
            "http://[::1]:9000",
        ]
    ),
    region=st.sampled_from(["eu-west-1", "cn-north-1", "us-gov-east-1"]),
    at_ms=st.integers(min_value=0, max_value=4_000_000_000_000),
)
def test_a_signature_is_botocore_s(
    path: list[str],
    query: dict[str, str],
    body: bytes,
    keys: Keys,
    endpoint: str,
    region: str,
    at_ms: int,
) -> None:
    request = Request(
        "POST" if body else "GET",
        "".join("/" + quote(part, safe="") for part in path),
        "&".join(f"{name}={quote(value, safe='')}" for name, value in sorted(query.items())),
        body,
    )
    headers = Signer(endpoint, region).headers(request, keys, at_ms)
    moment = datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    assert headers["X-Amz-Date"] == moment
    assert headers.get("X-Amz-Security-Token") == keys.token
    assert headers["Authorization"] == botocore_s(request, keys, endpoint, region, moment)


def test_a_path_of_the_endpoint_is_signed_along() -> None:
    request = Request("GET", "/proxy/at~home:1/v1/a%3Ab")
    found = Signer("http://gate/proxy/at~home:1", "eu-west-1").headers(request, KEYS, NOON_MS)
    expected = botocore_s(request, KEYS, "http://gate", "eu-west-1", "20260101T120000Z")
    assert found["Authorization"] == expected


def test_one_signer_serves_other_days_and_other_keys() -> None:
    signer = Signer(ENDPOINT, "eu-west-1")
    other = Keys("AKIDOTHER", "other secret", None)
    for keys, at_ms in [
        (KEYS, NOON_MS),
        (KEYS, NOON_MS + 1000),
        (KEYS, NOON_MS + DAY_MS),
        (other, NOON_MS + DAY_MS),
        (KEYS, NOON_MS),
    ]:
        request = Request("POST", "/v1/x", body=b"{}")
        found = signer.headers(request, keys, at_ms)
        expected = botocore_s(request, keys, ENDPOINT, "eu-west-1", found["X-Amz-Date"])
        assert found["Authorization"] == expected


@pytest.mark.parametrize("bad", ["token\r\nX-Evil: 1", "token\n", "to ken", "tökén", "\x7f"])
@pytest.mark.parametrize("field", ["access_key", "token"])
def test_keys_that_no_header_can_hold_are_refused_and_not_shown(field: str, bad: str) -> None:
    keys = KEYS._replace(**{field: bad})
    with pytest.raises(ServiceError, match="line break") as caught:
        Signer(ENDPOINT, "eu-west-1").headers(Request("GET", "/"), keys, NOON_MS)
    assert bad not in str(caught.value)


def test_keys_are_in_no_representation() -> None:
    signer = Signer(ENDPOINT, "eu-west-1")
    signer.headers(Request("GET", "/"), KEYS, NOON_MS)
    shown = f"{KEYS!r} {KEYS!s} {signer!r} {[KEYS]}"
    assert not any(secret in shown for secret in KEYS if secret)
