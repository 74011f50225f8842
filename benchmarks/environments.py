"""A virtual environment for each peer, made once by pinned version, and workers run in it.

An environment is complete when it holds its stamp, the record of what was asked for. A stamp that
differs (another Python, another pin, changed project metadata) or is missing makes it anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rows import PYWORKFLOW, ROOT, Peer

BENCHMARKS = Path(__file__).resolve().parent
ENVIRONMENTS = BENCHMARKS / ".venvs"
WORKER_TIMEOUT_SECONDS = 600
ABSOLUTE_FOLDER = re.compile(r"(?<![\w:/.])(?:[A-Za-z]:)?[\\/](?:[^\s\\/'\"]+[\\/])+")
"""The folders of an absolute path, up to its last name; addresses of the web are none."""
ERROR_LINE = re.compile(r"(ERROR|[\w.]*(Error|Exception)): ")


class UnavailableError(Exception):
    """A peer can't be installed, or its worker failed; the message says why in one line.

    Results are passed on, so the message names no folder of this machine.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(ABSOLUTE_FOLDER.sub("", reason))


@dataclass(frozen=True, slots=True)
class Sample:
    """One worker's measurement: seconds for one execution of ``n`` units of work."""

    n: int
    wall_s: float
    cpu_s: float
    executions: int
    versions: dict[str, str]
    details: dict[str, float] = field(default_factory=dict)


def prepare_environment(peer: Peer) -> Path:
    """Return the Python of the peer's environment, made now if it is missing or stale.

    Raises `UnavailableError` when it can't be made.
    """
    slug = peer.name.lower().replace(" ", "-")
    folder = ENVIRONMENTS / f"{slug}-{peer.version}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp, wanted = folder / "benchmark-stamp", describe_environment(peer)
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    run_quietly([sys.executable, "-m", "venv", str(folder)])
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run_quietly([*pip, *peer.install])
    stamp.write_text(wanted)
    return python


def describe_environment(peer: Peer) -> str:
    """Return the stamp of a peer's environment: everything on which its contents depend."""
    parts = [platform.python_version(), *peer.install]
    project = ROOT / "pyproject.toml"
    if peer is PYWORKFLOW and project.exists():
        parts.append(hashlib.sha256(project.read_bytes()).hexdigest())
    return "\n".join(parts)


def run_worker(python: Path, arguments: list[str]) -> Sample:
    """Run one worker to its end and return what it measured.

    Raises `UnavailableError` when it fails or doesn't print its JSON line.
    """
    script, *rest = arguments
    output = run_quietly([str(python), str(BENCHMARKS / "peers" / script), *rest])
    try:
        line: dict[str, Any] = json.loads(output.splitlines()[-1])
        return Sample(
            n=line["n"],
            wall_s=line["wall_s"],
            cpu_s=line["cpu_s"],
            executions=line["executions"],
            versions=line["versions"],
            details=line.get("details", {}),
        )
    except (IndexError, KeyError, ValueError) as error:
        raise UnavailableError(
            f"{script}: expected one JSON line with a measurement, found {output[-200:]!r}"
        ) from error


def run_quietly(command: list[str]) -> str:
    """Run a command without the caller's Python settings and return what it printed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            check=False,
            cwd=ROOT,
            env=environment,
            text=True,
            timeout=WORKER_TIMEOUT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{Path(command[1]).name}: {error}") from error
    if done.returncode:
        raise UnavailableError(find_reason(done.stderr) or f"exit code {done.returncode}")
    return done.stdout


def find_reason(text: str) -> str:
    """Return the line of a program's complaints that names the error, else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if ERROR_LINE.match(line)]
    return (errors or lines or [""])[-1]
