"""Functions of AWS's SDK under both engines on AWS's test runner: the same histories and results.

Under one engine, and under both: whichever begins an execution, the other goes on with it.
"""

from __future__ import annotations

import functools

import pytest
from aws_durable_execution_sdk_python.concurrency.models import CompletionRecord

from tests.aws.sdk.sdk_cases import CASES
from tests.aws.sdk.sdk_runs import Run, differences, run


@functools.cache
def theirs(name: str) -> Run:
    return run(CASES[name], "sdk")


def check(name: str, *engines: str) -> Run:
    expected = theirs(name)
    found = run(CASES[name], *engines)
    assert found.outcome == expected.outcome
    assert not differences(expected, found), "".join(differences(expected, found))
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_function_does_the_same(name: str) -> None:
    found = check(name, "ours")
    assert (len(found.invocations) > 1) is CASES[name].suspends


@pytest.mark.parametrize("name", ["all_completed", "both"])
def test_a_summary_without_a_decision(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The SDK has written such ones: what became of the branches is read from their records."""
    case = CASES[f"large_batch_{name}_nested"]
    monkeypatch.setattr(CompletionRecord, "from_summary_payload", lambda payload: None)
    expected, found = run(case, "sdk"), run(case, "ours")
    assert found.outcome == expected.outcome
    assert not differences(expected, found), "".join(differences(expected, found))


@pytest.mark.parametrize("engines", [("sdk", "ours"), ("ours", "sdk")], ids=" to ".join)
@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if case.suspends and case.is_handed_over]
)
def test_the_other_engine_goes_on_with_it(name: str, engines: tuple[str, str]) -> None:
    found = check(name, *engines)
    assert set(found.invocations) == {"sdk", "ours"}
