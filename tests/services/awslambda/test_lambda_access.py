"""Where requests go and in whose name: the environment first, botocore for the rest."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import botocore.session
import pytest
from botocore.endpoint_provider import EndpointProvider
from botocore.exceptions import EndpointProviderError

from pyworkflow.errors import ServiceError
from pyworkflow.services.awslambda._environment import Access
from pyworkflow.services.awslambda._sigv4 import Keys

if TYPE_CHECKING:
    from pathlib import Path

ENVIRON = {
    "AWS_REGION": "eu-west-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "AKID",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_SESSION_TOKEN": "token",
}


def test_the_environment_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.session.Session", None)
    access = Access.from_environment(ENVIRON)
    assert access == (
        "https://lambda.eu-west-1.amazonaws.com",
        "eu-west-1",
        Keys("AKID", "secret", "token"),
    )


ON_LAMBDA = """
import sys
from pyworkflow.aws import handler
handler.lambda_service().close()
print(sorted({name.partition(".")[0] for name in sys.modules} & {"botocore", "urllib3", "http"}))
"""


def test_on_lambda_nothing_of_botocore_is_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ON_LAMBDA],
        env={**ENVIRON, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("said", "endpoint"),
    [
        ({"AWS_REGION": "cn-north-1"}, "https://lambda.cn-north-1.amazonaws.com.cn"),
        ({"AWS_REGION": ""}, "https://lambda.us-east-1.amazonaws.com"),
        ({"AWS_ENDPOINT_URL": "http://all/"}, "http://all"),
        ({"AWS_ENDPOINT_URL": "http://all", "AWS_ENDPOINT_URL_LAMBDA": "http://it"}, "http://it"),
        ({"AWS_ENDPOINT_URL": "http://[::1]:80/base/"}, "http://[::1]:80/base"),
        (
            {"AWS_ENDPOINT_URL": "http://all", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
            "https://lambda.eu-west-1.amazonaws.com",
        ),
        ({"AWS_ENDPOINT_URL": "http://all", "AWS_USE_FIPS_ENDPOINT": "true"}, "http://all"),
    ],
)
def test_the_endpoint(said: dict[str, str], endpoint: str) -> None:
    assert Access.from_environment({**ENVIRON, **said}).endpoint == endpoint


KINDS = {
    "plain": {},
    "fips": {"AWS_USE_FIPS_ENDPOINT": "true"},
    "dual stack": {"AWS_USE_DUALSTACK_ENDPOINT": "TRUE"},
    "both": {"AWS_USE_FIPS_ENDPOINT": "true", "AWS_USE_DUALSTACK_ENDPOINT": "true"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_regions_endpoint_is_that_of_botocore(kind: str) -> None:
    session = botocore.session.Session()
    loader = session.get_component("data_loader")
    provider = EndpointProvider(
        loader.load_service_model("lambda", "endpoint-rule-set-1"), loader.load_data("partitions")
    )
    regions = [
        region
        for partition in loader.load_data("partitions")["partitions"]
        for region in partition["regions"]
        if not region.endswith("-global")
    ]
    assert {"us-gov-west-1", "cn-north-1", "eu-west-1", "us-iso-east-1"} <= set(regions)
    for region in regions:
        environ = {**ENVIRON, **KINDS[kind], "AWS_REGION": region}
        try:
            expected = provider.resolve_endpoint(
                Region=region,
                UseFIPS="AWS_USE_FIPS_ENDPOINT" in environ,
                UseDualStack="AWS_USE_DUALSTACK_ENDPOINT" in environ,
            ).url
        except EndpointProviderError:
            with pytest.raises(ServiceError, match=f"'{region}'.*correct AWS_REGION"):
                Access.from_environment(environ)
        else:
            assert Access.from_environment(environ).endpoint == expected


def test_a_profile_that_is_read_anyway_may_ask_for_fips(aws_folder: Path) -> None:
    (aws_folder / "config").write_text(
        "[default]\nregion = us-east-2\nuse_fips_endpoint = true\n", "utf-8"
    )
    keys = {name: ENVIRON[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    found = Access.from_environment(keys).endpoint
    assert found == "https://lambda-fips.us-east-2.amazonaws.com"


@pytest.mark.parametrize(
    "url",
    [
        "lambda",
        "ftp://all",
        "https://",
        "http://a?b=c",
        "http://a b",
        "http://a/\r\nX: 1",
        "http://ä",
    ],
)
def test_what_is_no_endpoint_says_so(url: str) -> None:
    with pytest.raises(ServiceError, match=r"AWS_ENDPOINT_URL_LAMBDA"):
        Access.from_environment({**ENVIRON, "AWS_ENDPOINT_URL": url})


def test_the_configuration_fills_what_the_environment_leaves_open(aws_folder: Path) -> None:
    (aws_folder / "config").write_text("[default]\nregion = eu-north-1\n")
    (aws_folder / "credentials").write_text(
        "[default]\naws_access_key_id = AKIDFILE\naws_secret_access_key = secret\n"
    )
    access = Access.from_environment({})
    assert access.region == "eu-north-1"
    assert access.credentials.get_frozen_credentials() == Keys("AKIDFILE", "secret")
    keys = {name: ENVIRON[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    assert Access.from_environment(keys) == (
        "https://lambda.eu-north-1.amazonaws.com",
        "eu-north-1",
        Keys("AKID", "secret"),
    )


def test_no_region_and_no_credentials_say_what_to_set() -> None:
    with pytest.raises(ServiceError, match="AWS_REGION"):
        Access.from_environment({})
    with pytest.raises(ServiceError, match="AWS_PROFILE"):
        Access.from_environment({"AWS_REGION": "eu-west-1"})


def test_without_botocore_the_environment_must_say_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    assert Access.from_environment(ENVIRON).region == "eu-west-1"
    with pytest.raises(ServiceError, match="extra 'aws'"):
        Access.from_environment({"AWS_REGION": "eu-west-1"})
