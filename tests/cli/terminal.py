"""The command line in processes of its own, as in terminals side by side.

Nothing sleeps and nothing polls: tests read lines until the one that they wait for. A process that
says nothing more is killed after `PATIENCE_SECONDS`, and the test fails with what it said.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 120
MAIN = "from pyworkflow._cli import main; main()"


class Terminal:
    """One process with the command ``pyworkflow WORDS``, run in ``folder``."""

    def __init__(self, folder: Path, *words: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}
        self._stdout = folder / f"stdout-{id(self)}"
        with self._stdout.open("w") as stdout:
            self.process = subprocess.Popen(
                [sys.executable, "-c", MAIN, *words],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
            )
        self._watchdog = threading.Timer(PATIENCE_SECONDS, self.process.kill)
        self._watchdog.daemon = True
        self._watchdog.start()
        self.said: list[str] = []

    def wait_for(self, words: str) -> str:
        """Read stderr up to a line that has these words, and return that line."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if words in line:
                return line
        raise AssertionError(f"{words!r} was not said, but: {''.join(self.said)}")

    def end(self) -> int:
        """Wait for the process's end; return its code, negative for a signal."""
        assert self.process.stderr is not None
        if not self.process.stderr.closed:
            self.said.append(self.process.stderr.read())
            self.process.stderr.close()
        code = self.process.wait()
        self._watchdog.cancel()
        return code

    def kill(self) -> None:
        """Let the process die by SIGKILL."""
        self.process.kill()
        assert self.end() == -signal.SIGKILL

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    @property
    def stdout(self) -> str:
        """What was printed on stdout so far."""
        return self._stdout.read_text("utf-8")

    @property
    def stderr(self) -> str:
        """What was read of stderr so far."""
        return "".join(self.said)
