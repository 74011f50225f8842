"""Test tools: the mock of a durable service, for workflows, and the exam, for services.

`MockDurableContext` and `create_test_handler` run workflows in memory and virtual time.
`ServiceConformance` is the exam that every service passes; it needs pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyworkflow.testing._mock import MockDurableContext, create_test_handler

if TYPE_CHECKING:
    from pyworkflow.testing.conformance import (
        ExamService,
        ServiceConformance,
        ServiceUnderTest,
    )

__all__ = [
    "ExamService",
    "MockDurableContext",
    "ServiceConformance",
    "ServiceUnderTest",
    "create_test_handler",
]

_EXAM = frozenset({"ExamService", "ServiceConformance", "ServiceUnderTest"})
"""Imported on first use: tests of workflows need no pytest."""


def __getattr__(name: str) -> object:
    if name not in _EXAM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pyworkflow.testing import conformance

    return getattr(conformance, name)
