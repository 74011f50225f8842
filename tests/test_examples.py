"""Each example runs as a user starts it: as a script, from wherever they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples" / "aws").glob("*.py"))
RETRYING = {
    "order_workflow": "step 'process_payment' failed in attempt 1 and is tried again",
    "saga": "step 'refund' failed in attempt 1 and is tried again",
}
"""Examples that show a retry: without a logging of their own, Python prints its warning."""


def run_script(path: Path, folder: Path) -> str:
    """Run a script in ``folder`` with the package on its path; return what it printed."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    retry = RETRYING.get(path.stem)
    if retry is None:
        assert ended.stderr == ""
    else:
        assert ended.stderr.startswith(retry)
        assert ended.stderr.count(" is tried again ") == 1
    return ended.stdout


def test_there_are_examples() -> None:
    assert ROOT / "examples/aws/order_workflow.py" in EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_the_script_runs_anywhere_and_prints_the_same_each_time(path: Path, tmp_path: Path) -> None:
    printed = run_script(path, tmp_path)
    assert printed
    assert run_script(path, tmp_path) == printed
