"""Settings that every test shares; at the end of a session, how much was tried."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from hypothesis import settings

from tests.corpus import counting

# No deadline: a slow machine is no failure. No database: a run depends on nothing but the code.
settings.register_profile("default", deadline=None, database=None)
# In CI the examples are the same each time, so that a run repeats.
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
# What `make proof` asks for: many more examples, each time others. Tests that bring their own
# numbers read the same variable.
settings.register_profile("proof", settings.get_profile("default"), max_examples=2_000)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "default")
)


def pytest_configure() -> None:
    """Let Ctrl-C mean what it means in a terminal: whatever ran this in the background ignores it.

    A child would inherit that a signal is ignored, and no script of a test would end by one.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process that runs a part of the tests hands its counts to the one that tells them."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["counts"] = dict(counting.counts)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    # A process that crashed has handed over nothing; the tests it was at have failed.
    counting.counts.update(getattr(node, "workeroutput", {}).get("counts", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    found = counting.lines()
    if found:
        terminalreporter.section("cases tried")
        for line in found:
            terminalreporter.write_line(line)
