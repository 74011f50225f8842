"""At the end of a session, tell how much was tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.corpus import counting

if TYPE_CHECKING:
    import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    found = counting.lines()
    if found:
        terminalreporter.section("cases tried")
        for line in found:
            terminalreporter.write_line(line)
