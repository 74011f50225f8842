"""Opening that nobody waits for any more: nothing is left open."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from pyworkflow import AsyncClient
from pyworkflow._local import opening
from pyworkflow.services.sqlite import SqliteService
from tests.runtime.local import PATIENCE, on_a_loop


def threads_of_ours() -> list[str]:
    """Those of an open client; those in which steps run belong to the process."""
    kinds = ("pyworkflow-writer", "pyworkflow-reader", "pyworkflow-heartbeat", "pyworkflow-client")
    return [one.name for one in threading.enumerate() if one.name.startswith(kinds)]


def open_files(path: Path) -> list[str]:
    gc.collect()
    found = []
    for number in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:  # that of the listing itself
            continue
    return [name for name in found if name.startswith(str(path))]


@pytest.mark.parametrize("when", ["before", "while", "with the answer"])
def test_a_cancelled_opening_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    file = tmp_path / "x.db"
    entered, go_on, answered, closed = [threading.Event() for _ in range(4)]
    real_open, real_close = SqliteService.open, opening._close

    def open_slowly(*args: Any, **kwargs: Any) -> SqliteService:
        entered.set()
        if when == "while":
            assert go_on.wait(PATIENCE)
        service = real_open(*args, **kwargs)
        answered.set()
        return service

    def close(service: Any) -> None:
        real_close(service)
        closed.set()

    monkeypatch.setattr(SqliteService, "open", open_slowly)
    monkeypatch.setattr(opening, "_close", close)

    @on_a_loop
    async def scenario() -> None:
        client = AsyncClient.local(file)
        task = asyncio.ensure_future(client.__aenter__())
        await asyncio.sleep(0)
        if when == "while":
            await asyncio.to_thread(entered.wait, PATIENCE)
        elif when == "with the answer":
            # The thread has answered, and the loop has not taken it yet.
            assert entered.wait(PATIENCE)
            assert answered.wait(PATIENCE)
        task.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    scenario()
    if entered.is_set():
        assert closed.wait(PATIENCE)
    assert threads_of_ours() == []
    assert open_files(file) == []
    # The client may be opened again.
    monkeypatch.undo()

    @on_a_loop
    async def again() -> None:
        async with AsyncClient.local(file) as client:
            assert not await client.list()

    again()


def test_what_opening_raises_is_raised(tmp_path: Path) -> None:
    @on_a_loop
    async def scenario() -> None:
        with pytest.raises(OSError, match="no"):
            await opening.Opening(_fail).wait()

    scenario()
    assert threads_of_ours() == []


def _fail() -> Any:
    raise OSError("no")
