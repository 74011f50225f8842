"""The cases as Lambda functions that are deployed twice: with AWS's engine, and with PyWorkflow's.

Each deployment is a process of its own, so what one engine knows of an execution that the other
began came over HTTP. What is compared are the events of each operation as the service tells them,
but for times and the ids that the service draws.
"""

from __future__ import annotations

import functools
import itertools
import json
from typing import TYPE_CHECKING, Any

from aws_durable_execution_sdk_python_testing.runner import DurableFunctionCloudTestRunner

from tests.aws.lambda_world import PATIENCE_SECONDS, ROOT, Bridge, Invocation
from tests.aws.sdk.sdk_runs import DRAWN, ENGINES, Case, Run, bare

if TYPE_CHECKING:
    from pathlib import Path

HANDLER = "tests.aws.sdk.functions.sdk_grid.handler"


class Deployments(Bridge):
    """Lambda that gives the invocations of an execution to its deployments in turn."""

    def __init__(self, task: Path) -> None:
        super().__init__(task, HANDLER, {})  # it starts no process of its own
        self._deployments = {
            engine: Bridge(task, HANDLER, {"ENGINE": engine, "PYTHONPATH": str(ROOT)})
            for engine in ENGINES
        }
        self._turns: itertools.cycle[str] = itertools.cycle(ENGINES)
        self._durable = ""
        self._engines: list[str] = []

    def take(self, invocation: Invocation) -> None:
        self.invocations.append(invocation)
        engine = "ours"
        if invocation.function.partition(":")[0] == self._durable:
            engine = next(self._turns)
            self._engines.append(engine)
        deployment = self._deployments[engine]
        deployment.emulator = self.emulator
        deployment.take(invocation)

    def run_case(self, name: str, case: Case, *engines: str) -> Run:
        """Run a case to its end; the engines take turns, an invocation each."""
        self._durable, self._turns, self._engines = name, itertools.cycle(engines), []
        runner = self._runner
        arn = self.start(case.event, FunctionName=name, InvocationId="run-1")
        for callback, send in case.sends.items():
            send(runner, runner.wait_for_callback(arn, callback, timeout=PATIENCE_SECONDS))
        found = runner.wait_for_result(arn, timeout=PATIENCE_SECONDS)
        operations: dict[str, Any] = {}
        for event in self.events(arn):
            if not event["EventType"].startswith(("Execution", "Invocation")):
                told = operations.setdefault(event["Id"], {"Name": event.get("Name"), "Events": []})
                told["Events"].append(bare(event, (*DRAWN, *case.draws)))
        return Run(
            found.status.value,
            None if found.result is None else json.loads(found.result),
            None if found.error is None else found.error.to_dict(),
            operations,
            self._engines,
            arn,
        )

    @functools.cached_property
    def _runner(self) -> Any:
        """AWS's runner for functions in the cloud, here a cloud on this machine."""
        return DurableFunctionCloudTestRunner(
            "grid", lambda_endpoint=self.emulator, poll_interval=0.01
        )

    @property
    def told(self) -> str:
        """All that the processes have logged."""
        return "".join(one.logs for one in self._deployments.values())

    def close(self) -> None:
        super().close()
        for deployment in self._deployments.values():
            deployment.close()
