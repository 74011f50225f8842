"""Tools for tests: the mock of a durable service for workflows, and the exam for services.

`MockDurableContext` and `create_test_handler` run workflows in memory and virtual time; the module
`conformance` is the exam that every service passes.
"""

from __future__ import annotations

from pyworkflow.testing._mock import MockDurableContext, create_test_handler

__all__ = ["MockDurableContext", "create_test_handler"]
