"""The endpoint and the credentials of requests, from the environment.

On Lambda the environment has everything: region, keys, the session's token. The rest is left to
botocore, which is imported only then: configuration files, profiles, roles of containers and
machines, expiring credentials, and endpoints with FIPS, dual stack or in other partitions.

Source: "Service-specific endpoints" and "Using environment variables" in the AWS SDKs and Tools
reference guide.
"""

from __future__ import annotations

import functools
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from pyworkflow.errors import ServiceError
from pyworkflow.services.awslambda._sigv4 import Keys

if TYPE_CHECKING:
    from collections.abc import Mapping


_is_plain = re.compile(
    r"(us|eu|ap|sa|ca|me|af|il|mx)-(north|south|east|west|central)+-[0-9]+"
).fullmatch
"""Matches regions of AWS's main partition, whose endpoints all have the same form."""


class Credentials(Protocol):
    """A source of keys, which may expire and be renewed."""

    def get_frozen_credentials(self) -> Keys:
        """Return the current keys; may block while they are renewed."""
        ...


class Access(NamedTuple):
    """An endpoint, its region, and the credentials that sign requests to it."""

    endpoint: str
    region: str
    credentials: Credentials

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Access:
        """Return the settings of the environment, completed from the configuration files.

        Raises `ServiceError` when there is no region or no credentials, or when the endpoint is not
        a URL.
        """
        session: Any = None
        region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
        key, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
        if not region or not key or not secret:
            session = _new_session()
            region = region or _configured_region(session)
        credentials: Credentials
        if key and secret:
            credentials = Keys(key, secret, environ.get("AWS_SESSION_TOKEN"))
        else:
            credentials = _configured_credentials(session)
        named = None
        if not _is_true(environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")):
            named = environ.get("AWS_ENDPOINT_URL_LAMBDA") or environ.get("AWS_ENDPOINT_URL")
        if named is None:
            fips, dual_stack = (
                _is_true(environ.get(f"AWS_USE_{kind}_ENDPOINT") or _configured(session, kind))
                for kind in ("FIPS", "DUALSTACK")
            )
            named = _public_endpoint(region, fips=fips, dual_stack=dual_stack)
        return cls(_checked(named), region, credentials)


class RenewedCredentials:
    """Credentials that botocore found and renews before they expire."""

    def __init__(self, found: Any) -> None:
        self._found = found

    def get_frozen_credentials(self) -> Keys:
        """Return the current keys. Raises `ServiceError` when they can't be renewed."""
        from botocore.exceptions import BotoCoreError

        try:
            keys = self._found.get_frozen_credentials()
        except BotoCoreError as error:
            raise ServiceError(f"A request can't be signed: {error}") from error
        return Keys(keys.access_key, keys.secret_key, keys.token)


def _new_session() -> Any:
    try:
        from botocore.session import Session
    except ModuleNotFoundError as error:
        raise ServiceError(
            "Calling Lambda: expected AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in "
            "the environment, as on Lambda, and an endpoint of the usual form, found something "
            "else; other sources, FIPS, dual stack and other partitions need botocore: install "
            "pyworkflow with its extra 'aws'"
        ) from error
    return Session()


def _configured_region(session: Any) -> str:
    region = session.get_config_variable("region")
    if not region:
        raise ServiceError(
            "Calling Lambda: expected a region, found none in the environment or in the profile; "
            "set AWS_REGION (the Lambda runtime does)"
        )
    return str(region)


def _configured_credentials(session: Any) -> RenewedCredentials:
    credentials = session.get_credentials()
    if credentials is None:
        raise ServiceError(
            "Calling Lambda: expected credentials, found none in the environment, the profile or "
            "the machine's role; give the function a role, or set AWS_PROFILE"
        )
    return RenewedCredentials(credentials)


def _checked(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    is_text = endpoint.isascii() and endpoint.isprintable() and " " not in endpoint
    is_url = parts.scheme in {"http", "https"} and parts.hostname and not parts.query
    if not (is_text and is_url):
        raise ServiceError(
            f"Calling Lambda: expected an endpoint as https://HOST or http://HOST:PORT, found "
            f"{endpoint!r}; correct AWS_ENDPOINT_URL_LAMBDA or AWS_ENDPOINT_URL"
        )
    return endpoint.rstrip("/")


def _is_true(text: object) -> bool:
    return str(text).lower() == "true"


def _configured(session: Any, kind: str) -> object:
    """Return the profile's setting for a kind of endpoint, if the profile is read."""
    return None if session is None else session.get_config_variable(f"use_{kind.lower()}_endpoint")


def _public_endpoint(region: str, *, fips: bool, dual_stack: bool) -> str:
    """Return a region's endpoint: built here in the plain case, else by botocore's rules."""
    if _is_plain(region) and not fips and not dual_stack:
        return f"https://lambda.{region}.amazonaws.com"
    rules = _endpoint_rules()
    from botocore.exceptions import BotoCoreError

    try:
        found = rules.resolve_endpoint(Region=region, UseFIPS=fips, UseDualStack=dual_stack)
    except BotoCoreError as error:
        raise ServiceError(
            f"Calling Lambda: expected a region with an endpoint, found {region!r} with FIPS "
            f"{'on' if fips else 'off'} and dual stack {'on' if dual_stack else 'off'}, for which "
            f"botocore's rules have none ({error}); correct AWS_REGION, AWS_USE_FIPS_ENDPOINT or "
            "AWS_USE_DUALSTACK_ENDPOINT"
        ) from error
    return str(found.url)


@functools.cache
def _endpoint_rules() -> Any:
    loader = _new_session().get_component("data_loader")
    from botocore.endpoint_provider import EndpointProvider

    rules = loader.load_service_model("lambda", "endpoint-rule-set-1")
    return EndpointProvider(rules, loader.load_data("partitions"))
