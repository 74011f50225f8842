"""A Lambda API for each test, and an environment that says nothing of AWS."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.services.awslambda.lambda_api import FakeLambda, fake_lambda

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def aws_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the configuration files would lie; there are none."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith(("_proxy", "_ca_bundle")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path


@pytest.fixture
def api() -> Iterator[FakeLambda]:
    with fake_lambda() as api:
        yield api
