"""The mock of `pyworkflow.testing` under the name that tests of Lambda functions import."""

from __future__ import annotations

from pyworkflow.testing import MockDurableContext, create_test_handler

__all__ = ["MockDurableContext", "create_test_handler"]
