"""Kill, interrupt and resume; two terminals on one database."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyworkflow._cli.exits import Exit
from tests.cli.terminal import MAIN, ROOT, Terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHOP = Path(__file__).with_name("shop.py").read_text("utf-8")

CALLER = """
from pyworkflow import WorkflowContext, workflow
from pyworkflow._local import heartbeat

heartbeat.BEAT_SECONDS = 0.01  # nobody has to wait for this test


@workflow
async def caller(ctx: WorkflowContext) -> object:
    return await ctx.invoke("order", {"cents": 1, "wait": "1s"}, name="charge it")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP, "utf-8")
    return tmp_path


@pytest.fixture
def gate(folder: Path) -> Iterator[Callable[[str], object]]:
    """The named pipe from which the step ``blocked`` reads; writing to it waits for nobody."""
    os.mkfifo(folder / "gate")
    end = os.open(folder / "gate", os.O_RDWR)
    yield lambda text: os.write(end, f"{text}\n".encode())
    os.close(end)


def bodies(folder: Path) -> list[str]:
    return (folder / "bodies").read_text("utf-8").split()


def callback_id(line: str) -> str:
    return line.split(" id ")[1].strip()


def test_a_killed_run_goes_on_and_runs_no_recorded_step_again(
    folder: Path, terminal: Callable[..., Terminal]
) -> None:
    first = terminal("run", "shop.py:approval", "--name", "a", "--input", '{"cents": 5}')
    line = first.wait_for("open, id ")
    first.kill()
    assert first.stdout == ""

    sender = terminal("callback", "succeed", callback_id(line), "--result", '"yes"')
    assert sender.end() == 0, sender.stderr

    second = terminal("run", "shop.py:approval", "--name", "a")
    assert second.end() == 0, second.stderr
    assert "going on with a" in second.stderr
    assert json.loads(second.stdout) == "PAY-5: yes"
    assert bodies(folder) == ["charge"]


def test_a_run_killed_in_a_step_runs_that_step_again_alone(
    folder: Path, terminal: Callable[..., Terminal], gate: Callable[[str], object]
) -> None:
    first = terminal("run", "shop.py:gated", "--name", "g")
    first.wait_for("blocked")
    first.kill()
    assert bodies(folder) == ["charge", "blocked"]

    second = terminal("run", "shop.py:gated", "--name", "g")
    second.wait_for("blocked")
    gate("open")
    assert second.end() == 0, second.stderr
    assert json.loads(second.stdout) == "PAY-1: open"
    assert bodies(folder) == ["charge", "blocked", "blocked"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on(
    folder: Path, terminal: Callable[..., Terminal], number: signal.Signals
) -> None:
    first = terminal("run", "shop.py:approval", "--db", "my shop.db", "--input", '{"cents": 5}')
    line = first.wait_for("open, id ")
    command = first.wait_for("complete it with: ").partition(": ")[2]
    first.interrupt(number)
    first.wait_for("stopping")
    first.wait_for("what is recorded is kept; go on with:")
    resuming = shlex.split(first.wait_for("pyworkflow run"))
    assert first.end() == 128 + number
    assert first.stdout == ""
    assert resuming[:3] == ["pyworkflow", "run", "shop.py:approval"]
    assert resuming[-2:] == ["--db", "my shop.db"]

    second = terminal(*resuming[1:])
    second.wait_for("1 operation recorded: not run again")
    second.wait_for(callback_id(line))
    sending = shlex.split(command.replace("JSON", "true"))
    assert sending[0] == "pyworkflow"
    assert terminal(*sending[1:]).end() == 0
    assert second.end() == 0, second.stderr
    assert json.loads(second.stdout) == "PAY-5: True"
    assert bodies(folder) == ["charge"]


def test_a_second_interrupt_waits_for_no_step(
    folder: Path, terminal: Callable[..., Terminal], gate: Callable[[str], object]
) -> None:
    first = terminal("run", "shop.py:gated", "--name", "g")
    first.wait_for("blocked")
    first.interrupt()
    first.wait_for("stopping")
    first.interrupt(signal.SIGTERM)
    assert first.end() == 128 + signal.SIGTERM


def test_a_second_interrupt_ends_a_run_whose_loop_is_blocked(
    terminal: Callable[..., Terminal], gate: Callable[[str], object]
) -> None:
    run = terminal("run", "shop.py:blocking")
    run.wait_for("stuck")
    run.interrupt()
    run.interrupt(signal.SIGTERM)
    assert run.end() == 128 + signal.SIGTERM


def test_a_step_in_flight_may_finish_before_the_end(
    folder: Path, terminal: Callable[..., Terminal], gate: Callable[[str], object]
) -> None:
    first = terminal("run", "shop.py:gated", "--name", "g")
    first.wait_for("blocked")
    first.interrupt()
    first.wait_for("stopping")
    gate("late")
    assert first.end() == 130

    second = terminal("run", "shop.py:gated", "--name", "g")
    assert second.end() == 0, second.stderr
    assert json.loads(second.stdout) == "PAY-1: late"
    assert bodies(folder) == ["charge", "blocked"]


def test_a_worker_goes_on_with_what_another_process_began(
    folder: Path, terminal: Callable[..., Terminal]
) -> None:
    starter = terminal("run", "shop.py:approval", "--name", "a")
    line = starter.wait_for("open, id ")
    starter.kill()

    worker = terminal("worker", "shop.py", "--concurrency", "2")
    worker.wait_for("worker on pyworkflow.db: order, approval, gated, blocking, refused, wide")
    assert terminal("callback", "heartbeat", callback_id(line)).end() == 0
    assert terminal("callback", "fail", callback_id(line), "--error", "no \x1b[1m").end() == 0
    worker.wait_for("execution 'a' of 'approval' failed")

    shown = terminal("show", "a", "--json")
    assert shown.end() == 0
    told = json.loads(shown.stdout)
    assert told["status"] == "FAILED"
    assert told["error"]["message"] == "no \x1b[1m"
    assert "CallbackError" in told["error"]["type"]

    worker.interrupt(signal.SIGTERM)
    assert worker.end() == 0, worker.stderr
    assert worker.stdout == ""
    assert "\x1b" not in worker.stderr
    assert bodies(folder) == ["charge"]


def test_a_worker_runs_what_a_follower_waits_for(
    folder: Path, terminal: Callable[..., Terminal]
) -> None:
    follower = terminal("run", "shop.py:approval", "--name", "a")
    line = follower.wait_for("open, id ")
    worker = terminal("worker", "shop.py")
    worker.wait_for("worker on")
    assert terminal("callback", "succeed", callback_id(line), "--result", "1").end() == 0
    assert follower.end() == 0
    assert json.loads(follower.stdout) == "PAY-1: 1"
    worker.interrupt()
    assert worker.end() == 0, worker.stderr
    assert bodies(folder) == ["charge"]


def test_an_invoked_workflow_that_nobody_runs_is_told_and_shown(
    folder: Path, terminal: Callable[..., Terminal]
) -> None:
    (folder / "caller.py").write_text(CALLER, "utf-8")
    run = terminal("run", "caller.py", "--name", "c")
    line = run.wait_for("has been due for")
    assert "of 'order'" in line
    shown = terminal("show", "c")
    assert shown.end() == 0, shown.stderr
    assert "invoke charge it running workflow order, due since" in shown.stdout
    assert "taken by no worker" in shown.stdout
    worker = terminal("worker", "shop.py")
    worker.wait_for("begins")
    assert run.end() == 0, run.stderr
    assert json.loads(run.stdout) == {"payment": "PAY-1"}
    worker.interrupt()
    assert worker.end() == 0, worker.stderr


def test_stopping_an_execution_ends_the_run_that_follows_it(
    folder: Path, terminal: Callable[..., Terminal]
) -> None:
    follower = terminal("run", "shop.py:approval", "--name", "a")
    follower.wait_for("open, id ")
    assert terminal("stop", "a", "--reason", "enough").end() == 0
    assert follower.end() == 1
    assert "approval: STOPPED" in follower.stderr


def test_a_second_signal_ends_a_worker_at_once(
    folder: Path, terminal: Callable[..., Terminal], gate: Callable[[str], object]
) -> None:
    starter = terminal("run", "shop.py:gated", "--name", "g")
    starter.wait_for("blocked")
    starter.kill()
    worker = terminal("worker", "shop.py")
    worker.wait_for("blocked")
    worker.interrupt(signal.SIGTERM)
    worker.wait_for("stopping")
    worker.interrupt(signal.SIGTERM)
    assert worker.end() == 143


def test_a_worker_of_two_files_that_disagree_is_refused(
    folder: Path, terminal: Callable[..., Terminal]
) -> None:
    (folder / "other.py").write_text(SHOP, "utf-8")
    worker = terminal("worker", "shop.py", "other.py")
    assert worker.end() == 2
    assert "two workflows have the name 'order'" in worker.stderr
    assert list(folder.glob("*.db")) == []


def test_changed_code_is_told_and_goes_on_when_it_fits_again(
    folder: Path, terminal: Callable[..., Terminal], gate: Callable[[str], object]
) -> None:
    first = terminal("run", "shop.py:approval", "--name", "a")
    line = first.wait_for("open, id ")
    first.kill()
    assert terminal("callback", "succeed", callback_id(line), "--result", "1").end() == 0
    (folder / "shop.py").write_text(SHOP.replace("await charge(cents)", "blocked()"), "utf-8")

    changed = terminal("run", "shop.py:approval", "--name", "a")
    changed.wait_for("an invocation ended in a problem")
    assert "NonDeterminismError" in changed.wait_for("NonDeterminismError")
    changed.interrupt()
    assert changed.end() == 130
    listed = terminal("list")
    assert listed.end() == 0
    assert "NonDeterminismError" in listed.stdout

    (folder / "shop.py").write_text(SHOP, "utf-8")
    fitting = terminal("run", "shop.py:approval", "--name", "a")
    assert fitting.end() == 0, fitting.stderr
    assert json.loads(fitting.stdout) == "PAY-1: 1"
    assert bodies(folder) == ["charge"]


@pytest.mark.parametrize(
    "words",
    [
        ["history", "w"],
        ["show", "w", "--json"],
        ["list"],
        ["run", "shop.py:wide", "--name", "w", "--input", '{"count": 3}'],
    ],
    ids=lambda words: words[0],
)
def test_a_command_whose_reader_has_gone_ends_as_programs_do(
    folder: Path, terminal: Callable[..., Terminal], words: list[str]
) -> None:
    assert terminal("run", "shop.py:wide", "--name", "w", "--input", '{"count": 3}').end() == 0
    reading_end, writing_end = os.pipe()
    os.close(reading_end)
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdin=subprocess.DEVNULL,
        stdout=writing_end,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing_end)
    assert done.returncode == -signal.SIGPIPE, done.stderr
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_a_run_whose_progress_nobody_reads_goes_on_to_its_end(folder: Path) -> None:
    reading_end, writing_end = os.pipe()
    os.close(reading_end)
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "run", "shop.py:wide", "--input", '{"count": 3}'],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=writing_end,
        text=True,
        check=False,
    )
    os.close(writing_end)
    assert done.returncode == 0
    assert json.loads(done.stdout) == 3


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        ["list", "--json"],
        ["--version"],
        ["run", "shop.py:wide", "--input", '{"count": 3}'],
    ],
    ids=" ".join,
)
def test_output_that_can_not_be_written_is_one_clear_line(
    folder: Path, terminal: Callable[..., Terminal], words: list[str], unbuffered: str
) -> None:
    assert terminal("run", "shop.py:wide", "--name", "w", "--input", '{"count": 3}').end() == 0
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-c", MAIN, *words],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT / "src"),
                "PYTHONUNBUFFERED": unbuffered,
            },
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == Exit.OUTPUT, done.stderr
    *progress, told = done.stderr.splitlines()
    assert told.startswith("pyworkflow: can't write to stdout: ")
    assert words[0] == "run" or not progress
    assert "Traceback" not in done.stderr


def test_a_command_without_a_stdout_works(folder: Path, terminal: Callable[..., Terminal]) -> None:
    assert terminal("run", "shop.py:wide", "--name", "w", "--input", '{"count": 3}').end() == 0
    code = f"import sys; sys.stdout = None; {MAIN}"
    done = subprocess.run(
        [sys.executable, "-c", code, "list"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
