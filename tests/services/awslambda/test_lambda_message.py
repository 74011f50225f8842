"""HTTP/1.1: a request's bytes, and every form that an answer may have, in whatever pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pyworkflow.services.awslambda import _http1
from pyworkflow.services.awslambda._http1 import (
    MOST_HEADERS,
    MalformedResponseError,
    OversizedResponseError,
    Response,
    ResponseReader,
    to_bytes,
)
from pyworkflow.services.awslambda._sigv4 import Request

if TYPE_CHECKING:
    from collections.abc import Sequence


def read(*pieces: bytes) -> tuple[Response, bool]:
    """Return what comes of pieces, after the last of which the connection ends if it must."""
    reader = ResponseReader()
    for piece in (*pieces, b""):
        answer = reader.feed(piece)
        if answer is not None:
            return answer, reader.may_follow
    raise AssertionError("the end of the connection decides")


def in_two(text: bytes) -> Sequence[tuple[bytes, bytes]]:
    return [(text[:place], text[place:]) for place in range(1, len(text))]


def one_by_one(text: bytes) -> Sequence[bytes]:
    return [text[place : place + 1] for place in range(len(text))]


def test_a_request_is_one_piece() -> None:
    request = Request("POST", "/a%3Ab", "M=1", b'{"\xc3\xa9": 1}')
    assert to_bytes(request, {"Host": "h", "X-Amz-Date": "d"}) == (
        b"POST /a%3Ab?M=1 HTTP/1.1\r\nHost: h\r\nX-Amz-Date: d\r\nContent-Length: 9\r\n\r\n"
        b'{"\xc3\xa9": 1}'
    )


ANSWERS = pytest.mark.parametrize(
    ("text", "status", "content", "may_follow"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", True),
        (b"HTTP/1.1 200\r\ncontent-length:2 \r\n\r\n{}", 200, b"{}", True),
        (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}rest", 200, b"{}", False),
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


@ANSWERS
def test_a_whole_answer(text: bytes, status: int, content: bytes, may_follow: bool) -> None:
    answer, keeps = read(text)
    assert (answer.status, answer.content, keeps) == (status, content, may_follow)


@ANSWERS
def test_pieces_make_no_difference(
    text: bytes, status: int, content: bytes, may_follow: bool
) -> None:
    whole = text.removesuffix(b"rest")  # what follows in another piece is not seen yet
    for pieces in (*in_two(whole), one_by_one(whole)):
        answer, keeps = read(*pieces)
        assert (answer.status, answer.content) == (status, content)
        assert keeps is (may_follow or whole != text)


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
        CHUNKED + b"3\r\nabcde\r\n0\r\n\r\n",
        CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"0\r\n",
    ],
)
def test_anything_else_is_an_error_and_not_a_guess(text: bytes) -> None:
    for pieces in ((text,), *in_two(text[:200]), one_by_one(text[:200])):
        with pytest.raises(MalformedResponseError):
            read(*pieces)


def test_what_is_no_http_is_told_before_the_end() -> None:
    with pytest.raises(MalformedResponseError, match="SSH-2.0"):
        ResponseReader().feed(b"SSH-2.0-OpenSSH\r\n")


def test_nothing_is_kept_of_a_head_without_end() -> None:
    reader = ResponseReader()
    reader.feed(b"HTTP/1.1 200 OK\r\na: ")
    for _ in range(65):
        assert reader.feed(b"b" * 1000) is None
    with pytest.raises(MalformedResponseError, match="over 65536 bytes"):
        reader.feed(b"b" * 1000)


def test_a_large_answer_in_many_pieces() -> None:
    content = bytes(range(256)) * 4096
    pieces = [content[place : place + 1000] for place in range(0, len(content), 1000)]
    answer, _ = read(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content), *pieces)
    assert answer.content == content
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    assert read(CHUNKED, *chunks, b"0\r\n\r\n")[0].content == content


@pytest.mark.parametrize(
    "text",
    [
        HEAD + b"Content-Length: 999999999999\r\n\r\n",
        CHUNKED + b"ffffffffff\r\n",
        CHUNKED + b"8000000\r\n",
        HEAD + b"\r\n" + b"x" * 1001,
    ],
)
def test_a_content_that_is_too_large_is_refused_before_it_is_read(
    text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_http1, "MOST_CONTENT_BYTES", 1000)
    with pytest.raises(OversizedResponseError, match="at most 1000 bytes, found one of"):
        ResponseReader().feed(text)


def test_chunks_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http1, "MOST_CONTENT_BYTES", 1000)
    reader = ResponseReader()
    assert reader.feed(CHUNKED + b"3e8\r\n" + b"x" * 1000 + b"\r\n") is None
    with pytest.raises(OversizedResponseError, match="found one of 1001 bytes"):
        reader.feed(b"1\r\n")


def test_silence_is_told_apart() -> None:
    with pytest.raises(ConnectionError, match="without a response"):
        read(b"")
    assert not issubclass(MalformedResponseError, ConnectionError)
