"""Signature Version 4, which Lambda requires of each request.

The signature covers the request in its canonical form: method, path, query, the signed headers, and
a hash of the body. The signing key is derived from the secret key, a day, a region and the service,
by a chain of four HMACs; it is valid for that day, so it is derived once. The path is encoded a
second time, as every service but S3 requires; `Request` has it encoded once.

Keys never appear in a representation or a message.

Source: "Signature Version 4 for API requests" in the IAM user guide.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from hashlib import sha256
from hmac import digest
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from pyworkflow.errors import ServiceError

ALGORITHM = "AWS4-HMAC-SHA256"
CONTENT_TYPE = "application/json"
SERVICE = "lambda"


class Keys(NamedTuple):
    """Credentials at one moment. ``token`` is the session's, `None` for long-term keys."""

    access_key: str
    secret_key: str
    token: str | None = None

    def __repr__(self) -> str:
        return "Keys(…)"

    def get_frozen_credentials(self) -> Keys:
        """Return these keys, which never change; botocore's credentials may be renewed here."""
        return self


class Request(NamedTuple):
    """A request. ``path`` and ``query`` are encoded as in a URL, the query sorted by name."""

    method: str
    path: str
    query: str = ""
    body: bytes = b""

    @property
    def target(self) -> str:
        """The path with its query, as in the first line of the request."""
        return f"{self.path}?{self.query}" if self.query else self.path


class Signer:
    """Signs requests to one endpoint of one region."""

    def __init__(self, endpoint: str, region: str) -> None:
        self._host = _host(endpoint)
        self._region = region
        self._derived = ("", "", b"")

    def headers(self, request: Request, keys: Keys, now_ms: int) -> dict[str, str]:
        """Return the headers of ``request``, including its signature by ``keys``.

        Raises `ServiceError` when the keys can't be sent in a header.
        """
        moment = _moment(now_ms // 1000)
        day = moment[:8]
        signed = {"Content-Type": CONTENT_TYPE, "Host": self._host, "X-Amz-Date": moment}
        if keys.token:
            signed["X-Amz-Security-Token"] = keys.token
        for text in (keys.access_key, keys.token or ""):
            # Checked here: the HTTP client would show the text in its own error.
            if not (text.isascii() and text.isprintable()) or " " in text:
                raise ServiceError(
                    "A request can't be signed: expected keys of printable ASCII without spaces, "
                    "found other characters in the access key or the session token; a line break "
                    "that was copied along is the usual cause"
                )
        names = ";".join(signed).lower()
        lines = [request.method, _encoded_again(request.path), request.query]
        lines += [f"{name.lower()}:{value}" for name, value in signed.items()]
        lines += ["", names, sha256(request.body).hexdigest()]
        scope = f"{day}/{self._region}/{SERVICE}/aws4_request"
        canonical = sha256("\n".join(lines).encode()).hexdigest()
        string_to_sign = f"{ALGORITHM}\n{moment}\n{scope}\n{canonical}".encode()
        signature = digest(self._key(keys.secret_key, day), string_to_sign, "sha256").hex()
        signed["Authorization"] = (
            f"{ALGORITHM} Credential={keys.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}"
        )
        return signed

    def _key(self, secret: str, day: str) -> bytes:
        of_secret, of_day, key = self._derived
        if (secret, day) != (of_secret, of_day):
            key = f"AWS4{secret}".encode()
            for part in (day, self._region, SERVICE, "aws4_request"):
                key = digest(key, part.encode(), "sha256")
            # In one assignment: other threads sign at the same time.
            self._derived = secret, day, key
        return key


@functools.lru_cache(maxsize=4)
def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%SZ")


@functools.lru_cache(maxsize=64)
def _encoded_again(path: str) -> str:
    return quote(path, safe="/~")


def _host(endpoint: str) -> str:
    """Return the Host header, with a port only if it is not the scheme's default."""
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    own = {"http": 80, "https": 443}.get(parts.scheme)
    return host if parts.port in {None, own} else f"{host}:{parts.port}"
