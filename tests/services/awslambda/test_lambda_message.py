"""HTTP/1.1: a request's bytes, and every form that an answer may have."""

from __future__ import annotations

import io

import pytest

from pyworkflow.services.awslambda.message import (
    MOST_HEADERS,
    Answer,
    MalformedAnswerError,
    read_answer,
    to_bytes,
)
from pyworkflow.services.awslambda.signing import Request


def read(text: bytes) -> tuple[Answer, bool]:
    return read_answer(io.BytesIO(text))


def test_a_request_is_one_piece() -> None:
    request = Request("POST", "/a%3Ab", "M=1", b'{"\xc3\xa9": 1}')
    assert to_bytes(request, {"Host": "h", "X-Amz-Date": "d"}) == (
        b"POST /a%3Ab?M=1 HTTP/1.1\r\nHost: h\r\nX-Amz-Date: d\r\nContent-Length: 9\r\n\r\n"
        b'{"\xc3\xa9": 1}'
    )


@pytest.mark.parametrize(
    ("text", "status", "content", "may_follow"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", True),
        (b"HTTP/1.1 200\r\ncontent-length:2 \r\n\r\n{}rest", 200, b"{}", True),
        (b"HTTP/1.1 500 It broke\nContent-Length: 0\n\n", 500, b"", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b"", True),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", False),
        (b"HTTP/1.1 200 OK\r\n\r\n{} to the end", 200, b"{} to the end", False),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1",
            200,
            b"1",
            True,
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nContent-Length: 99\r\n\r\n"
            b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n",
            200,
            b"abc0123456789",
            True,
        ),
    ],
)
def test_a_whole_answer(text: bytes, status: int, content: bytes, may_follow: bool) -> None:
    answer, keeps = read(text)
    assert (answer.status, answer.content, keeps) == (status, content, may_follow)


def test_headers_are_found_in_lower_case() -> None:
    answer, _ = read(
        b"HTTP/1.1 400 Bad\r\nX-Amzn-ErrorType:  Name:http://x \r\nContent-Length: 0\r\n\r\n"
    )
    assert answer.headers["x-amzn-errortype"] == "Name:http://x"


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "text",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        HEAD,
        HEAD + b"Content-Length: 2\r\n",
        HEAD + b"Content-Length: 2",
        HEAD + b"no colon\r\n\r\n",
        HEAD + b"Content-Length: 3\r\n\r\n{}",
        HEAD + b"Content-Length: -1\r\n\r\n{}",
        HEAD + b"Content-Length: 1_0\r\n\r\n0123456789",
        HEAD + b"Content-Length: two\r\n\r\n{}",
        HEAD + b"Content-Length: \xb2\r\n\r\n{}",
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        HEAD + b"a: b\r\n" * (MOST_HEADERS + 1) + b"\r\n",
        HEAD + b"a: " + b"b" * 70_000 + b"\r\n\r\n",
        CHUNKED,
        CHUNKED + b"3\r\nab",
        CHUNKED + b"3\r\nabc\r",
        CHUNKED + b"3\r\nabc\r\n",
        CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"0\r\n",
    ],
)
def test_anything_else_is_an_error_and_not_a_guess(text: bytes) -> None:
    with pytest.raises(MalformedAnswerError):
        read(text)


def test_silence_is_told_apart() -> None:
    with pytest.raises(ConnectionError, match="without an answer"):
        read(b"")
    assert not issubclass(MalformedAnswerError, ConnectionError)
