"""Functions of AWS's SDK under both engines, deployed, on AWS's emulator, over HTTP.

The whole grid of `test_sdk_histories.py` again: the same histories and results, under one engine,
and under both in turn, each in a process of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.aws.lambda_world import CREDENTIALS, build_package, deploy, emulated
from tests.aws.sdk.sdk_cases import CASES
from tests.aws.sdk.sdk_lambda import Deployments
from tests.aws.sdk.sdk_runs import Run, differences

if TYPE_CHECKING:
    from collections.abc import Iterator


class Grid:
    """The deployed cases, and how each goes under the SDK's own engine."""

    def __init__(self, deployments: Deployments) -> None:
        self._deployments = deployments
        self._theirs: dict[str, Run] = {}

    def check(self, name: str, *engines: str) -> Run:
        if name not in self._theirs:
            self._theirs[name] = self._deployments.run_case(name, CASES[name], "sdk")
        expected = self._theirs[name]
        found = self._deployments.run_case(name, CASES[name], *engines)
        said = f"{found.outcome!s:.500}\n{self._deployments.told[-2000:]}"
        assert found.outcome == expected.outcome, said
        assert not differences(expected, found), "".join(differences(expected, found))
        return found


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grid]:
    task = deploy(build_package(), [], tmp_path_factory.mktemp("lambda"))
    plain = {function for case in CASES.values() for function in case.invokes}
    deployments = Deployments(task)
    with pytest.MonkeyPatch.context() as environ, emulated(deployments, *plain):
        for name, value in CREDENTIALS.items():
            environ.setenv(name, value)
        yield Grid(deployments)


@pytest.mark.parametrize("name", CASES)
def test_a_deployed_function_does_the_same(grid: Grid, name: str) -> None:
    found = grid.check(name, "ours")
    assert (len(found.invocations) > 1) is CASES[name].suspends


@pytest.mark.parametrize("engines", [("sdk", "ours"), ("ours", "sdk")], ids=" to ".join)
@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if case.suspends and case.is_handed_over]
)
def test_the_other_deployment_goes_on_with_it(
    grid: Grid, name: str, engines: tuple[str, str]
) -> None:
    found = grid.check(name, *engines)
    assert set(found.invocations) == {"sdk", "ours"}
