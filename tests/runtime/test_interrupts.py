"""A real Ctrl-C, sent to a real process once a body runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from pyworkflow import Client
from pyworkflow._protocol.executions import ExecutionStatus

LONG = 180
"""How many seconds a process may take, on a machine that is busy."""

RESENDING = 30
"""After how many seconds the signal is sent again."""

HEAD = """
import asyncio, threading
import pyworkflow
from pyworkflow import AsyncClient, Client, step, workflow
from pyworkflow._local import loop_thread
from pyworkflow.aws.testing import create_test_handler

# What waits out of courtesy waits for nothing here: every body runs for ever.
loop_thread.ANSWER_SECONDS = 0.1
for factory in (Client.local, AsyncClient.local):
    factory.__func__.__kwdefaults__["grace"] = 0

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
with Client.local("x.db") as client:
    client.start(main, execution_name="x").result()
""",
    "async client": """
async def follow():
    async with AsyncClient.local("x.db") as client:
        await (await client.start(main, execution_name="x")).result()
asyncio.run(follow())
""",
}


def read_to_the_end(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Read what a process prints; interrupt it again if it goes on all the same.

    asyncio.run sleeps over a signal that comes just before its loop begins to wait.
    """
    for _ in range(LONG // RESENDING):
        try:
            return process.communicate(timeout=RESENDING)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
    raise AssertionError("the signal did not end the process")


def interrupted(folder: Path, source: str, *, times: int = 1) -> subprocess.CompletedProcess[str]:
    """Run the script, send it SIGINT each time a body runs, and return how it ended."""
    script = folder / "script.py"
    script.write_text(source, "utf-8")
    printed: list[str] = []
    with subprocess.Popen(
        [sys.executable, str(script)],
        cwd=folder,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            for _ in range(times):
                while not (line := process.stdout.readline()).endswith("runs\n"):
                    assert line, (printed, process.communicate())
                    printed.append(line)
                process.send_signal(signal.SIGINT)
            output, errors = read_to_the_end(process)
        finally:
            process.kill()
    output = "".join(printed) + output
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


@pytest.mark.parametrize(
    ("way", "body"),
    [
        (way, body)
        for way in WAYS
        for body in BODIES
        # asyncio.run only cancels its task, of which a blocked loop never hears.
        if not (way == "async client" and body in {"inline", "on the loop, blocking it"})
    ],
)
def test_ctrl_c_ends_the_script_and_no_failure_is_recorded(
    way: str, body: str, tmp_path: Path
) -> None:
    source = f"{HEAD}{BODIES[body]}{WORKFLOW}{WAYS[way]}\nprint('went on')"
    end = interrupted(tmp_path, source)
    assert end.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in end.stderr.splitlines()
    assert "went on" not in end.stdout
    assert "Fatal" not in end.stderr
    if way != "mock":
        with Client.local(tmp_path / "x.db", worker=False) as client:
            handle = client.get("x")
            assert handle.status() is ExecutionStatus.RUNNING
            assert "StepFailed" not in [event.type for event in handle.history()]


def test_ctrl_c_ends_a_run_of_pytest(tmp_path: Path) -> None:
    test = """
    def test_one():
        create_test_handler(main)({})

    def test_two():
        print("went on")
    """
    for number, body in enumerate(BODIES.values()):
        source = f"{HEAD}{body}{WORKFLOW}{dedent(test)}"
        (tmp_path / f"test_body_{number}.py").write_text(source, "utf-8")
    runs = """
    import glob, pytest
    for file in sorted(glob.glob("test_body_*.py")):
        code = pytest.main(["-s", "--tb=native", "-p", "no:cacheprovider", file])
        print(f"exit code {code:d}", flush=True)
    """
    end = interrupted(tmp_path, dedent(runs), times=len(BODIES))
    assert (end.returncode, end.stderr) == (0, "")
    codes = [line for line in end.stdout.splitlines() if line.startswith("exit code")]
    assert codes == [f"exit code {pytest.ExitCode.INTERRUPTED:d}"] * len(BODIES)
    assert "went on" not in end.stdout


TAKEN = """
import signal

@step(retry=False)
def body():
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
    threading.Event().wait()
"""


# An async client waits as asyncio.run does, which nothing wakes.
@pytest.mark.parametrize("way", ["run", "mock", "client"])
def test_ctrl_c_ends_the_script_if_another_thread_takes_the_signal(
    way: str, tmp_path: Path
) -> None:
    end = subprocess.run(
        [sys.executable, "-c", f"{HEAD}{TAKEN}{WORKFLOW}{WAYS[way]}\nprint('went on')"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert (end.returncode, end.stdout) == (-signal.SIGINT, "")
    assert "KeyboardInterrupt" in end.stderr.splitlines()


@pytest.mark.parametrize("body", ["on the loop", "on the loop, blocking it", "inline"])
def test_a_handler_that_exits_ends_the_script(body: str, tmp_path: Path) -> None:
    handler = "import signal, sys\nsignal.signal(signal.SIGINT, lambda *_: sys.exit(7))\n"
    source = f"{HEAD}{handler}{BODIES[body]}{WORKFLOW}{WAYS['async client']}"
    end = interrupted(tmp_path, source)
    assert end.returncode == 7
    with Client.local(tmp_path / "x.db", worker=False) as client:
        assert client.get("x").status() is ExecutionStatus.RUNNING


STUCK = """
@step(timeout=0.1, retry=False)
def stuck() -> None:
    print("runs", flush=True)
    threading.Event().wait()

@workflow
async def main() -> str:
    try:
        stuck()
    except pyworkflow.StepTimeoutError:
        return "timed out"
    return "never"

"""


def test_bodies_that_were_left_to_themselves_do_not_keep_the_process(tmp_path: Path) -> None:
    calls = [way.replace('"x', f'"{number}') for number, way in enumerate(WAYS.values())]
    end = subprocess.run(
        [sys.executable, "-c", "\n".join([HEAD, STUCK, *calls, "print('the end')"])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert (end.returncode, end.stderr) == (0, "")
    assert end.stdout.splitlines() == [*["runs"] * len(WAYS), "the end"]
