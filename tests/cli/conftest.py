from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.cli.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _pipes_of_others() -> Iterator[None]:
    """A command that only prints lets SIGPIPE end its process; here that would be pytest's."""
    before = signal.getsignal(signal.SIGPIPE)
    yield
    signal.signal(signal.SIGPIPE, before)


@pytest.fixture
def terminal(folder: Path) -> Iterator[Callable[..., Terminal]]:
    """Open a terminal, as ``terminal("run", "shop.py")``. None is left at the end."""
    opened: list[Terminal] = []

    def open_one(*words: str) -> Terminal:
        opened.append(Terminal(folder, *words))
        return opened[-1]

    yield open_one
    for each in opened:
        each.process.kill()
        each.end()
