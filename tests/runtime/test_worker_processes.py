"""Workers in processes of their own: killed, and sharing a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import pyworkflow
from pyworkflow import Client
from pyworkflow._protocol.executions import ExecutionStatus
from tests.runtime.local import PATIENCE, open_callback

SHOP = """
import os
import signal
import sys
import pyworkflow
from pyworkflow import Client, WorkflowContext, step, workflow


def note(line):
    with open("bodies.txt", "a") as file:
        file.write(line + "\\n")


@step
def charge(order: str) -> str:
    note(f"charge {order}")
    return f"paid {order}"


@step
async def ship(order: str) -> str:
    note(f"ship {order}")
    if os.path.exists("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    return f"shipped {order}"


@step(at_most_once=True)
async def launch(order: str) -> str:
    note(f"launch {order}")
    if os.path.exists("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    return f"launched {order}"


@workflow
async def sale(ctx: WorkflowContext, order: str) -> str:
    paid = charge(order)
    await ctx.callback("packed").result()
    return f"{paid}, {await ship(order)}"


@workflow
async def simple(order: str) -> str:
    return f"{await pay(order)}, {await ship(order)}"


@step
async def pay(order: str) -> str:
    note(f"pay {order}")
    return f"paid {order}"


@workflow
async def once(order: str) -> str:
    return await launch(order)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["run", name]:
            print(pyworkflow.run(globals()[name], "A", db="shop.db", execution_name="one"))
        case ["work"]:
            with Client.local("shop.db", workflows=[sale], max_concurrent=3) as client:
                print("ready", flush=True)
                sys.stdin.read()
"""


ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(pyworkflow.__file__).parents[1])}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP, "utf-8")
    return tmp_path


def run(shop: Path, workflow: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "shop.py", "run", workflow]
    return subprocess.run(
        command,
        cwd=shop,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def bodies(shop: Path) -> list[str]:
    return (shop / "bodies.txt").read_text("utf-8").split("\n")[:-1]


def test_a_killed_process_s_execution_goes_on_where_it_was(shop: Path) -> None:
    (shop / "kill").touch()
    assert run(shop, "simple").returncode == -signal.SIGKILL
    (shop / "kill").unlink()
    again = run(shop, "simple")
    assert (again.stdout, again.stderr) == ("paid A, shipped A\n", "")
    assert bodies(shop) == ["pay A", "ship A", "ship A"]
    assert run(shop, "simple").stdout == "paid A, shipped A\n"
    assert len(bodies(shop)) == 3


def test_at_most_once_holds_when_the_process_is_killed(shop: Path) -> None:
    (shop / "kill").touch()
    assert run(shop, "once").returncode == -signal.SIGKILL
    (shop / "kill").unlink()
    assert "StepInterruptedError" in run(shop, "once").stderr
    assert bodies(shop) == ["launch A"]


def test_one_that_kills_its_process_again_and_again_is_shown(shop: Path) -> None:
    (shop / "kill").touch()
    for _ in range(2):
        assert run(shop, "simple").returncode == -signal.SIGKILL
    with Client.local(shop / "shop.db", workflows=[]) as client:  # its worker finds it dead
        handle = client.get("one")
        while (summary := handle.summary()).failed_invocations < 2:
            assert summary.status is ExecutionStatus.RUNNING
    assert summary.problem is not None
    assert "is gone" in summary.problem.message
    assert summary.wake_ms is not None
    (shop / "kill").unlink()
    assert run(shop, "simple").stdout == "paid A, shipped A\n"
    assert Counter(bodies(shop)) == {"pay A": 1, "ship A": 3}


def test_processes_share_a_file(shop: Path) -> None:
    command = [sys.executable, "shop.py", "work"]
    workers = [
        subprocess.Popen(
            command,
            cwd=shop,
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    orders = [str(number) for number in range(30)]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        with Client.local(shop / "shop.db", worker=False) as client:
            handles = [client.start("sale", order, execution_name=order) for order in orders]
            for handle in handles:
                client.complete_callback(open_callback(handle))
            results = [handle.result(timeout=PATIENCE) for handle in handles]
    finally:
        for worker in workers:
            worker.communicate("", timeout=PATIENCE)
    assert [worker.returncode for worker in workers] == [0, 0]
    assert results == [f"paid {order}, shipped {order}" for order in orders]
    assert Counter(bodies(shop)) == {
        f"{name} {order}": 1 for name in ("charge", "ship") for order in orders
    }
