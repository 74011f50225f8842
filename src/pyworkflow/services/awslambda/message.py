"""HTTP/1.1 as far as it takes: one request out in one write, one whole answer in.

The standard library's client writes head and body apart and parses an answer's head as an e-mail,
which together cost more than signing and a step of the engine do. An answer is bounded by its
length, by chunks, or by the end of the connection; what is none of that is an error, not a guess.

Source: RFC 9112, sections 4 to 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

    from pyworkflow.services.awslambda.signing import Request

MOST_LINE_BYTES = 64 * 1024
MOST_HEADERS = 100


class Answer(NamedTuple):
    """What came back; the names of ``headers`` are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class MalformedAnswerError(OSError):
    """What came back is cut off, or no HTTP."""


def to_bytes(request: Request, headers: Mapping[str, str]) -> bytes:
    """Return ``request`` as it goes over the wire.

    The signer and `Access` let nothing into it that could end a line.
    """
    lines = [f"{request.method} {request.target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(request.body)}", "", ""]
    return "\r\n".join(lines).encode("ascii") + request.body


def read_answer(stream: BinaryIO) -> tuple[Answer, bool]:
    """Return the next answer, and whether another may follow on the same connection.

    Raises `ConnectionError` when nothing comes, `MalformedAnswerError` when something else does.
    """
    status = 100
    while 100 <= status < 200:  # before the answer itself
        version, status = _read_status(stream)
        headers = _read_headers(stream)
    is_last = version != "HTTP/1.1" or "close" in headers.get("connection", "").lower()
    if status in {204, 304}:
        content = b""
    elif "transfer-encoding" in headers:
        content = _read_chunks(stream, headers["transfer-encoding"])
    elif "content-length" in headers:
        content = _read_exactly(stream, _number(headers["content-length"], 10))
    else:
        content, is_last = stream.read(), True
    return Answer(status, headers, content), not is_last


def _read_status(stream: BinaryIO) -> tuple[str, int]:
    line = stream.readline(MOST_LINE_BYTES)
    if not line:
        raise ConnectionError("the connection was closed without an answer")
    version, _, rest = line.decode("latin-1").partition(" ")
    if not version.startswith("HTTP/1.") or not line.endswith(b"\n"):
        raise MalformedAnswerError(f"expected HTTP/1.1, found an answer that begins {line[:16]!r}")
    return version, _number(rest.partition(" ")[0], 10)


def _read_headers(stream: BinaryIO) -> dict[str, str]:
    headers: dict[str, str] = {}
    for _ in range(MOST_HEADERS):
        line = stream.readline(MOST_LINE_BYTES)
        if line in {b"\r\n", b"\n"}:
            return headers
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or not line.endswith(b"\n"):
            raise MalformedAnswerError("the head of the answer is cut off or malformed")
        headers[name.lower()] = value.strip()
    raise MalformedAnswerError(f"the answer has more than {MOST_HEADERS} headers")


def _read_chunks(stream: BinaryIO, encoding: str) -> bytes:
    if encoding.lower() != "chunked":
        raise MalformedAnswerError(f"expected no transfer encoding but chunked, found {encoding!r}")
    chunks = []
    while size := _number(
        stream.readline(MOST_LINE_BYTES).partition(b";")[0].decode("latin-1"), 16
    ):
        chunks.append(_read_exactly(stream, size))
        _read_exactly(stream, len(b"\r\n"))
    _read_headers(stream)  # trailers
    return b"".join(chunks)


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise MalformedAnswerError(f"the answer is cut off: {len(content)} of {size} bytes came")
    return content


def _number(text: str, base: int) -> int:
    digits = text.strip()
    try:
        if digits.isalnum() and digits.isascii():  # no sign, no underscore
            return int(digits, base)
    except ValueError:
        pass
    raise MalformedAnswerError(f"expected a number in the answer's head, found {digits[:16]!r}")
