from __future__ import annotations

import pytest
from aws_durable_execution_sdk_python_testing.executor import Executor


@pytest.fixture(autouse=True)
def invoked_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an invocation that failed, AWS's emulator waits for real seconds otherwise."""
    monkeypatch.setattr(Executor, "RETRY_BACKOFF_SECONDS", 0)
