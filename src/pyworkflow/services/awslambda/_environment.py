"""Where requests go, and in whose name.

On Lambda the environment says it all: region, keys, the session's token. What it leaves open is
left to botocore: configuration files, profiles, roles of containers and machines, renewing what
expires, and endpoints with FIPS, of dual stack, and of other partitions. It is imported then, and
not before.

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
"""Regions of AWS's main partition, whose endpoints are all made alike."""


class Credentials(Protocol):
    """Keys, which may be others tomorrow."""

    def get_frozen_credentials(self) -> Keys:
        """Return the keys of this moment; may block while they are renewed."""
        ...


class Access(NamedTuple):
    """An endpoint, its region, and whose requests it gets."""

    endpoint: str
    region: str
    credentials: Credentials

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Access:
        """Return what the environment says, and the configuration files where it is silent.

        Raises `ServiceError` when there is no region, no credentials, or no URL as an endpoint.
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
    """What botocore found, renewed by it when it is about to expire."""

    def __init__(self, found: Any) -> None:
        self._found = found

    def get_frozen_credentials(self) -> Keys:
        """Return the keys of this moment. Raises `ServiceError` when they can't be renewed."""
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
    """Return what the profile says of a kind of endpoint, where the profile is read at all."""
    return None if session is None else session.get_config_variable(f"use_{kind.lower()}_endpoint")


def _public_endpoint(region: str, *, fips: bool, dual_stack: bool) -> str:
    """Return the endpoint of a region: by heart in the plain case, else by botocore's rules."""
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
