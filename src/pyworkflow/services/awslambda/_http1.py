"""The part of HTTP/1.1 that is needed: a request as one write, and a reader of one response.

The standard library's client writes head and body separately and parses a response's head as an
e-mail, which together cost more than signing and a step of the engine do. A response is delimited
by its length, by chunks, or by the end of the connection; anything else is an error, not a guess.
Head and content have a size limit, beyond which nothing is read: the server may not be Lambda.

Nothing here waits or knows of sockets: `ResponseReader` is fed the bytes that arrived. Its work
grows with the response's size, not with the number of pieces.

Source: RFC 9112, sections 4 to 7.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from pyworkflow.services.awslambda._sigv4 import Request

MOST_HEAD_BYTES = 64 * 1024
MOST_HEADERS = 100
MOST_CONTENT_BYTES = 128 * 1024 * 1024
"""More than any response of Lambda: the quota of an execution is 100 MB."""

_BEGIN = b"HTTP/1."
_LINE_END = re.compile(rb"\r?\n")
_BLANK_LINE = re.compile(rb"\n\r?\n")
_LONGEST_END = len(b"\n\r\n")


class Response(NamedTuple):
    """A complete HTTP response; the names of ``headers`` are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class MalformedResponseError(OSError):
    """The response is cut off or not HTTP."""


class OversizedResponseError(MalformedResponseError):
    """The response is larger than any response of Lambda."""


def check_size(size: int) -> None:
    """Raise `OversizedResponseError` if ``size`` bytes exceed the limit of a content."""
    if size > MOST_CONTENT_BYTES:
        raise OversizedResponseError(
            f"expected a response of at most {MOST_CONTENT_BYTES} bytes, found one of {size} bytes "
            "or more; check what answers in Lambda's place, for example a proxy"
        )


def to_bytes(request: Request, headers: Mapping[str, str]) -> bytes:
    """Return the bytes of ``request``.

    The signer and `Access` ensure that no part of it contains a line break.
    """
    lines = [f"{request.method} {request.target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(request.body)}", "", ""]
    return "\r\n".join(lines).encode("ascii") + request.body


class ResponseReader:
    """Reads one response from its bytes, in pieces of any size."""

    __slots__ = ("_buffer", "_has_ended", "_is_last", "_reading")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._has_ended = False
        self._is_last = False
        self._reading = self._read()

    def feed(self, data: bytes) -> Response | None:
        """Take the next bytes, ``b""`` at the end of the connection; return a complete response.

        Raises `ConnectionError` when the connection ended before the first byte, and
        `MalformedResponseError` for a response that is cut off or not HTTP.
        """
        if data:
            self._buffer += data
        else:
            self._has_ended = True
        try:
            next(self._reading)
        except StopIteration as whole:
            response: Response = whole.value
            return response
        return None

    @property
    def may_follow(self) -> bool:
        """Whether, after this complete response, the connection can carry another request."""
        return not (self._is_last or self._has_ended or self._buffer)

    # -- generators: each yields when it needs more bytes ----------------------------------------

    def _read(self) -> Generator[None, None, Response]:
        status = 100
        while 100 <= status < 200:  # before the response itself
            while len(self._buffer) < len(_BEGIN) and not self._has_ended:
                yield
            if not self._buffer:
                raise ConnectionError("the connection was closed without a response")
            if not self._buffer.startswith(_BEGIN):
                found = bytes(self._buffer[:16])
                raise MalformedResponseError(f"expected HTTP/1.1, found {found!r} at the start")
            version, status, headers = _head((yield from self._until(_BLANK_LINE)))
        self._is_last = version != "HTTP/1.1" or "close" in headers.get("connection", "").lower()
        if status in {204, 304}:
            content = b""
        elif "transfer-encoding" in headers:
            content = yield from self._chunks(headers["transfer-encoding"])
        elif "content-length" in headers:
            size = _number(headers["content-length"], 10)
            check_size(size)
            content = yield from self._exactly(size)
        else:
            while not self._has_ended:
                check_size(len(self._buffer))
                yield
            content = self._take(len(self._buffer))
        return Response(status, headers, content)

    def _chunks(self, encoding: str) -> Generator[None, None, bytes]:
        if encoding.lower() != "chunked":
            raise MalformedResponseError(
                f"expected no transfer encoding but chunked, found {encoding!r}"
            )
        chunks = []
        whole = 0
        while size := _number((yield from self._until(_LINE_END)).partition(";")[0], 16):
            whole += size
            check_size(whole)
            chunks.append((yield from self._exactly(size)))
            if (yield from self._exactly(2)) != b"\r\n":
                raise MalformedResponseError(f"expected the end of a chunk after {size} bytes")
        for _ in range(MOST_HEADERS):
            if not (yield from self._until(_LINE_END)):  # what stood before were trailers
                return b"".join(chunks)
        raise MalformedResponseError(f"the response has more than {MOST_HEADERS} trailers")

    def _until(self, end: re.Pattern[bytes]) -> Generator[None, None, str]:
        searched = 0
        while True:
            found = end.search(self._buffer, searched)
            size = len(self._buffer) if found is None else found.start()
            if size > MOST_HEAD_BYTES:
                raise MalformedResponseError(f"the response's head is over {MOST_HEAD_BYTES} bytes")
            if found is not None:
                text = self._buffer[:size].decode("latin-1")
                del self._buffer[: found.end()]
                return text
            if self._has_ended:
                raise MalformedResponseError("the head of the response is cut off")
            searched = max(0, size - _LONGEST_END + 1)
            yield

    def _exactly(self, size: int) -> Generator[None, None, bytes]:
        while len(self._buffer) < size:
            if self._has_ended:
                raise MalformedResponseError(
                    f"the response is cut off: {len(self._buffer)} of {size} bytes came"
                )
            yield
        return self._take(size)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


def _head(text: str) -> tuple[str, int, dict[str, str]]:
    """Return version, status and headers."""
    first, *lines = text.split("\n")
    if len(lines) > MOST_HEADERS:
        raise MalformedResponseError(f"the response has more than {MOST_HEADERS} headers")
    version, _, rest = first.partition(" ")
    status = _number(rest.partition(" ")[0], 10)
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise MalformedResponseError("the head of the response is malformed")
        headers[name.lower()] = value.strip()
    return version.strip(), status, headers


def _number(text: str, base: int) -> int:
    digits = text.strip()
    try:
        if digits.isalnum() and digits.isascii():  # no sign, no underscore
            return int(digits, base)
    except ValueError:
        pass
    raise MalformedResponseError(f"expected a number in the response's head, found {digits[:16]!r}")
