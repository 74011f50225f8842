from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pyworkflow.services.sqlite import SqliteService
from pyworkflow.services.sqlite._liveness import start_of
from pyworkflow.testing.conformance import ServiceConformance, ServiceUnderTest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class FakeClock:
    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def now_ms(self) -> int:
        return self.ms

    def advance(self, ms: int) -> None:
        self.ms += ms


def _world(path: str | Path, page_size: int) -> ServiceUnderTest:
    clock = FakeClock()
    service = SqliteService.open(path, clock.now_ms, page_size=page_size, durability="normal")
    return ServiceUnderTest(service, clock.advance, service.close)


class SqliteConformance(ServiceConformance):
    keeps_leases = start_of(os.getpid()) is not None


class TestSqliteFile(SqliteConformance):
    @pytest.fixture
    def factory(self, tmp_path: Path) -> Callable[[int], ServiceUnderTest]:
        return lambda page_size: _world(tmp_path / "executions.db", page_size)


class TestSqliteMemory(SqliteConformance):
    @pytest.fixture
    def factory(self) -> Callable[[int], ServiceUnderTest]:
        return lambda page_size: _world(":memory:", page_size)
