"""A file of executions for tests: a clock that is told, services on one file, and processes."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyworkflow
from pyworkflow._protocol.records import Operation, Update
from pyworkflow.services.sqlite import SqliteService

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pyworkflow._protocol.executions import Committed, Invocation

SOURCES = Path(pyworkflow.__file__).parents[1]
TESTS = Path(__file__).parents[3]


def sqlite_error(text: str, code: int) -> sqlite3.OperationalError:
    """The error that SQLite raises with this code."""
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


class FakeClock:
    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def now_ms(self) -> int:
        return self.ms

    def advance(self, ms: int) -> None:
        self.ms += ms


class Holder:
    """Somebody who has claimed an execution: the newest token is kept."""

    def __init__(self, service: SqliteService, invocation: Invocation) -> None:
        self.service = service
        self.invocation = invocation
        self.id = invocation.execution_id
        self.token = invocation.token

    async def commit(self, *updates: Update) -> dict[str, Operation]:
        committed = await self.send(*updates)
        return {operation.id: operation for operation in committed.operations}

    async def send(self, *updates: Update) -> Committed:
        committed = await self.service.commit(self.id, self.token, updates)
        self.token = committed.token or self.token
        return committed

    async def release(self, **options: Any) -> None:
        await self.service.release(self.id, self.token, **options)


class Place:
    """A file, a clock, and the services that were opened on it."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.clock = FakeClock()
        self.opened: list[SqliteService] = []

    def open(self, **options: Any) -> SqliteService:
        options = {"durability": "normal", **options}
        service = SqliteService.open(self.path, self.clock.now_ms, **options)
        self.opened.append(service)
        return service

    async def close(self) -> None:
        for service in self.opened:
            await service.close()


def play(path: str | Path, scene: Callable[[Place], Any]) -> None:
    """Run ``scene`` in a loop of its own, and close what it opened."""

    async def run() -> None:
        async with place(path) as here:
            await scene(here)

    asyncio.run(run())


@asynccontextmanager
async def place(path: str | Path) -> AsyncIterator[Place]:
    here = Place(path)
    try:
        yield here
    finally:
        await here.close()


async def begin(service: SqliteService, workflow: str = "greet", payload: str = "1") -> Holder:
    """Start an execution and claim it without a lease."""
    return Holder(service, await service.claim(await service.start(workflow, payload)))


async def lease(
    service: SqliteService, owner: str, *workflows: str, limit: int = 100
) -> list[Holder]:
    """Claim what is due."""
    claimed = await service.claim_due(owner, workflows or ("greet",), limit)
    return [Holder(service, invocation) for invocation in claimed]


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in another process, to its end."""
    process = spawn(code, *arguments)
    output, errors = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def spawn(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Begin to run ``code`` in another process."""
    prelude = f"import sys; sys.path[:0] = [{str(SOURCES)!r}, {str(TESTS)!r}]\n"
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", prelude + code, *map(str, arguments)],
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
    )
