"""Executions whose process dies at a checkpoint: both engines, in turn, bring them to the same end.

Death is an exception of the client: before the checkpoint is applied, or after.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.aws.sdk.sdk_cases import CASES
from tests.aws.sdk.sdk_runs import Case, Run, Switching, differences, run

NAMES = "steps retried children large_child conditions flat_batches races".split()


class DeathError(Exception):
    """The process is gone."""


class Client:
    """The service's client, which dies at a checkpoint."""

    def __init__(self, client: Any, deaths: Deaths) -> None:
        self._client = client
        self._deaths = deaths

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        deaths = self._deaths
        deaths.checkpoints += 1
        is_due = deaths.checkpoints == deaths.at
        if is_due and deaths.before:
            raise DeathError
        answer = self._client.checkpoint(*args, **kwargs)
        if is_due:
            raise DeathError
        return answer


@dataclasses.dataclass
class Deaths:
    """At which checkpoint of the execution the process dies, counted from 1."""

    at: int
    before: bool
    checkpoints: int = 0

    def within(self, handler: Switching) -> Any:
        def dying(event: Any, context: Any) -> Any:
            client = Client(event.service_client, self)
            return handler(dataclasses.replace(event, service_client=client), context)

        return dying


@pytest.mark.parametrize("engines", [("ours", "sdk"), ("sdk", "ours")], ids=" then ".join)
@pytest.mark.parametrize("name", NAMES)
def test_a_death_changes_nothing(name: str, engines: tuple[str, str]) -> None:
    expected = run(CASES[name], "sdk")
    for at in range(1, 100):
        deaths = Deaths(at, before=at % 2 == 0)
        found = _run(CASES[name], engines, deaths)
        assert found.outcome == expected.outcome, deaths
        assert not differences(expected, found), (deaths, *differences(expected, found))
        if deaths.checkpoints < at:
            break
    assert at > 2


def _run(case: Case, engines: tuple[str, str], deaths: Deaths) -> Run:
    return run(case, *engines, within=deaths.within)
