"""What the tests of workers and clients share."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pyworkflow import Workflow
from pyworkflow._local.handle import Handle
from pyworkflow._local.registry import Registry
from pyworkflow._local.worker import MAX_CONCURRENT, Worker
from pyworkflow._protocol.executions import ExecutionStatus, ExecutionSummary
from pyworkflow._runtime.clock import Clock, SystemClock, VirtualClock
from pyworkflow.services.sqlite import SqliteService

PATIENCE = 30
"""Seconds after which a test that hangs is a test that failed."""


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Let a coroutine function be a test."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), PATIENCE))

    vars(run)["__signature__"] = inspect.signature(test)
    del vars(run)["__wrapped__"]
    return run


def future_clock() -> VirtualClock:
    """Return a clock whose time passes at once, from now."""
    return VirtualClock(SystemClock().now_ms())


def open_file(path: Path | str, clock: Clock) -> SqliteService:
    """Open a file of executions; an fsync more or less is not what is tested."""
    machine_ms = SystemClock().now_ms
    return SqliteService.open(path, clock.now_ms, machine_ms=machine_ms, durability="normal")


@asynccontextmanager
async def opened(path: Path | str, clock: Clock | None = None) -> AsyncIterator[SqliteService]:
    service = open_file(path, clock or SystemClock())
    try:
        yield service
    finally:
        await service.close()


@asynccontextmanager
async def working(
    service: Any,
    *workflows: Workflow[..., Any],
    clock: Clock | None = None,
    max_concurrent: int = MAX_CONCURRENT,
    grace_seconds: float = PATIENCE,
) -> AsyncIterator[Worker]:
    """Run a worker; at the end it stops gracefully."""
    clock = clock or SystemClock()
    worker = Worker(service, Registry(workflows), clock, max_concurrent=max_concurrent)
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop(grace_seconds)
        await task


def open_callback(handle: Handle[Any]) -> str:
    """Return the id of the execution's callback once it is open."""
    while handle.status() is ExecutionStatus.RUNNING:
        for operation in handle.operations():
            if operation.callback_id is not None:
                return operation.callback_id
    raise AssertionError(f"{handle!r} is over without a callback: {handle.summary()}")


async def until(service: SqliteService, is_so: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so, asked after each change that the service tells."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def on_change() -> None:
        loop.call_soon_threadsafe(changed.set)

    unsubscribe = service.subscribe(on_change)
    try:
        while not await is_so():
            await changed.wait()
            changed.clear()
    finally:
        unsubscribe()


async def ended(service: SqliteService, execution_id: str) -> ExecutionSummary:
    """Return an execution once it is over."""

    async def is_over() -> bool:
        return (await service.get(execution_id)).status is not ExecutionStatus.RUNNING

    await until(service, is_over)
    return await service.get(execution_id)


async def troubled(service: SqliteService, execution_id: str) -> ExecutionSummary:
    """Return an execution once it has a problem."""

    async def has_problem() -> bool:
        return (await service.get(execution_id)).problem is not None

    await until(service, has_problem)
    return await service.get(execution_id)
