"""The mock of `pyworkflow.testing`, for tests of workflows that run on AWS Lambda."""

from __future__ import annotations

from pyworkflow.testing import MockDurableContext, create_test_handler

__all__ = ["MockDurableContext", "create_test_handler"]
