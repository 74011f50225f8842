"""The exam of services: what the three ports promise, seen from outside.

Subclass `ServiceConformance` in a test module and give it a fixture ``factory``: a function from a
page size to a `ServiceUnderTest`, which is a fresh service and a way to advance its clock. The exam
covers each method of `History`, `Queue` and `Executions`. It does not depend on how a service
stores its history.
"""

from __future__ import annotations

from pyworkflow.testing.conformance._driver import ExamService, ServiceUnderTest
from pyworkflow.testing.conformance._executions import ExecutionConformance
from pyworkflow.testing.conformance._history import HistoryConformance
from pyworkflow.testing.conformance._queue import QueueConformance

__all__ = ["ExamService", "ServiceConformance", "ServiceUnderTest"]


class ServiceConformance(HistoryConformance, ExecutionConformance, QueueConformance):
    """The tests that every service passes.

    ``page_size`` is passed to the factory. Set ``keeps_leases`` to false where a service can't find
    out whether a process lives.
    """
