"""A real Ctrl-C, sent to a real process once a body runs."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from pyworkflow import Client
from pyworkflow.services.base import ExecutionStatus

PLUGINS = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
LONG = 180
"""How many seconds a process may take, on a machine that is busy."""

HEAD = """
import asyncio, threading
import pyworkflow
from pyworkflow import AsyncClient, Client, step, workflow
from pyworkflow.aws.testing import create_test_handler

def wait():
    print("runs", flush=True)
    threading.Event().wait()

"""

BODIES = {
    "in a thread": "@step(retry=False)\ndef body(): wait()",
    "on the loop": """
@step(retry=False)
async def body():
    print("runs", flush=True)
    await asyncio.Event().wait()
""",
    "on the loop, blocking it": """
@step(retry=False)
async def body():
    await asyncio.sleep(0)
    wait()
""",
    "inline": "@step(retry=False, inline=True)\ndef body(): wait()",
}

WORKFLOW = """
@workflow
async def main():
    await body.submit()

"""

WAYS = {
    "run": 'pyworkflow.run(main, db="x.db", execution_name="x")',
    "mock": "create_test_handler(main)({})",
    "client": """
with Client.local("x.db", grace=0) as client:
    client.start(main, execution_name="x").result()
""",
    "async client": """
async def follow():
    async with AsyncClient.local("x.db", grace=0) as client:
        await (await client.start(main, execution_name="x")).result()
asyncio.run(follow())
""",
}


def interrupted(folder: Path, source: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run the script, send it SIGINT when its body runs, and return how it ended."""
    script = folder / "test_script.py"
    script.write_text(source, "utf-8")
    with subprocess.Popen(
        [sys.executable, *command, str(script)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            while "runs" not in (line := process.stdout.readline()):
                assert line, process.communicate()
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=LONG)
        finally:
            process.kill()
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


@pytest.mark.parametrize(
    ("way", "body"),
    [
        (way, body)
        for way in WAYS
        for body in BODIES
        # asyncio.run only cancels its task, of which a blocked loop never hears.
        if not (way == "async client" and body in {"inline", "on the loop, blocking it"})
        # It lets bodies finish for 10 s, as every client does: one case is enough.
        and not (way == "run" and body == "on the loop")
    ],
)
def test_ctrl_c_ends_the_script_and_no_failure_is_recorded(
    way: str, body: str, tmp_path: Path
) -> None:
    source = f"{HEAD}{BODIES[body]}{WORKFLOW}{WAYS[way]}\nprint('went on')"
    end = interrupted(tmp_path, source)
    assert end.returncode == -signal.SIGINT
    assert end.stderr.splitlines()[-1] == "KeyboardInterrupt"
    assert "went on" not in end.stdout
    assert "Fatal" not in end.stderr
    if way != "mock":
        with Client.local(tmp_path / "x.db", worker=False) as client:
            handle = client.get("x")
            assert handle.status() is ExecutionStatus.RUNNING
            assert "StepFailed" not in [event.type for event in handle.history()]


@pytest.mark.parametrize("body", BODIES)
def test_ctrl_c_ends_a_run_of_pytest(body: str, tmp_path: Path) -> None:
    test = """
    def test_one():
        create_test_handler(main)({})

    def test_two():
        print("went on")
    """
    source = f"{HEAD}{BODIES[body]}{WORKFLOW}{dedent(test)}"
    end = interrupted(tmp_path, source, "-m", "pytest", "-s", "--tb=native", *PLUGINS)
    assert end.returncode == pytest.ExitCode.INTERRUPTED
    assert "went on" not in end.stdout


@pytest.mark.parametrize("body", ["on the loop", "on the loop, blocking it", "inline"])
def test_a_handler_that_exits_ends_the_script(body: str, tmp_path: Path) -> None:
    handler = "import signal, sys\nsignal.signal(signal.SIGINT, lambda *_: sys.exit(7))\n"
    source = f"{HEAD}{handler}{BODIES[body]}{WORKFLOW}{WAYS['async client']}"
    end = interrupted(tmp_path, source)
    assert end.returncode == 7
    with Client.local(tmp_path / "x.db", worker=False) as client:
        assert client.get("x").status() is ExecutionStatus.RUNNING


STUCK = """
import sys, threading
import asyncio, pyworkflow
from pyworkflow import AsyncClient, Client, StepTimeoutError, step, workflow
from pyworkflow.aws.testing import create_test_handler

@step(timeout="1s", retry=False)
def stuck() -> None:
    print("runs", flush=True)
    threading.Event().wait()

@workflow
async def main() -> str:
    try:
        stuck()
    except StepTimeoutError:
        return "timed out"
    return "never"

"""


@pytest.mark.parametrize("way", WAYS)
def test_a_body_that_was_left_to_itself_does_not_keep_the_process(way: str, tmp_path: Path) -> None:
    end = subprocess.run(
        [sys.executable, "-c", f"{STUCK}{WAYS[way]}\nprint('the end')"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert (end.returncode, end.stderr) == (0, "")
    assert end.stdout.splitlines() == ["runs", "the end"]
