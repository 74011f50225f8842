"""CPython's tests of asyncio pass in workflows, but for those that `not_passed` lists."""

from __future__ import annotations

import platform
import unittest

import pytest

from tests.asyncio_suite.not_passed import NOT_PASSED, NOT_RUN
from tests.asyncio_suite.upstream import find_tests, run

try:
    TESTS = {name: (case, method) for name, case, method in find_tests()}
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] != "test":
        raise
    pytest.skip(
        f"CPython's tests of asyncio are not run: Python {platform.python_version()} was installed "
        f"without its own tests ({missing.name}; Debian has them in libpython3-testsuite)",
        allow_module_level=True,
    )


@pytest.mark.parametrize("name", TESTS)
def test_passes_in_a_workflow_or_is_listed(name: str) -> None:
    for each in (name, name.rpartition(".")[0]):
        if each in NOT_RUN:
            pytest.skip(f"not run: {NOT_RUN[each]}")
    try:
        failure = run(*TESTS[name])
    except unittest.SkipTest as skipped:
        pytest.skip(f"CPython skips it: {skipped}")
    if name not in NOT_PASSED:
        assert failure is None, failure
    elif failure is None:
        pytest.fail(f"{name} passes: take it off the list of those that do not")
    else:
        pytest.xfail(NOT_PASSED[name])


def test_the_suite_is_there() -> None:
    """It is not empty because a name has changed."""
    modules = {name.partition(".")[0] for name in TESTS}
    assert {"tasks", "taskgroups", "timeouts", "locks", "queues", "waitfor", "futures"} <= modules
    assert len(TESTS) > 350
