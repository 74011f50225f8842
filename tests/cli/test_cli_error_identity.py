"""One file under two module names: what `except` matched in a script, it matches in a worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.terminal import ROOT, Terminal

if TYPE_CHECKING:
    from collections.abc import Callable

ORDERS = """
import sys

from pyworkflow import Client, WorkflowContext, step, workflow


class CardDeclined(Exception):
    pass


@step(retry=False)
async def charge() -> None:
    raise CardDeclined("no money")


@step
async def tell_customer() -> str:
    return "declined"


@step
async def page_on_call() -> str:
    return "paged"


@workflow
async def order(ctx: WorkflowContext) -> str:
    try:
        await charge()
    except CardDeclined:
        callback = ctx.callback("goes-on")
        print(callback.id, flush=True)
        await callback.result()
        return await tell_customer()
    except Exception:
        return await page_on_call()
    return "charged"


def main() -> None:
    with Client.local("pyworkflow.db", workflows=[order]) as client:
        client.start(order, {}, execution_name="o1")
        sys.stdin.read()


if __name__ == "__main__":
    main()
"""
STARTS = {
    "script": ("pk/orders.py",),
    "module": ("-m", "pk.orders"),
    "import": ("-c", "import pk.orders; pk.orders.main()"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pk").mkdir()
    (tmp_path / "pk" / "__init__.py").touch()
    (tmp_path / "pk" / "orders.py").write_text(ORDERS, "utf-8")
    return tmp_path


def start(folder: Path, how: str) -> str:
    """Run the workflow in Python until it waits for a callback; return the callback's id."""
    process = subprocess.Popen(
        [sys.executable, *STARTS[how]],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{folder}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    callback_id = process.stdout.readline().strip()
    process.communicate()
    assert process.returncode == 0
    return callback_id


def answer(terminal: Callable[..., Terminal], callback_id: str) -> None:
    sender = terminal("callback", "succeed", callback_id)
    assert sender.end() == 0, sender.stderr


def result(terminal: Callable[..., Terminal]) -> str:
    shown = terminal("show", "o1")
    assert shown.end() == 0, shown.stderr
    return shown.stdout


@pytest.mark.parametrize(
    ("how", "source"),
    [("script", "pk/orders.py"), ("import", "pk/orders.py"), ("module", "pk.orders")],
)
def test_a_worker_goes_the_way_that_a_script_went(
    how: str, source: str, folder: Path, terminal: Callable[..., Terminal]
) -> None:
    answer(terminal, start(folder, how))
    worker = terminal("worker", source)
    worker.wait_for("'o1' of 'order' succeeded")
    assert "declined" in result(terminal)


def test_a_worker_without_the_class_puts_the_execution_off_until_it_is_back(
    folder: Path, terminal: Callable[..., Terminal]
) -> None:
    answer(terminal, start(folder, "script"))
    file = folder / "pk" / "orders.py"
    file.write_text(ORDERS.replace("CardDeclined", "Refused"), "utf-8")
    worker = terminal("worker", "pk/orders.py")
    worker.wait_for("__main__.CardDeclined (__main__ was orders)")
    assert "without a class CardDeclined" in worker.wait_for("loaded:")
    worker.interrupt()
    worker.end()
    assert "can't be raised again" in result(terminal)

    file.write_text(ORDERS.replace("CardDeclined", "Refused") + "\nCardDeclined = Refused", "utf-8")
    assert terminal("run", "pk/orders.py", "--name", "o1").end() == 0
    assert "declined" in result(terminal)
