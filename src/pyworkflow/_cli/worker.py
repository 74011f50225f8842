"""`worker`: run what is due, until a signal comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

from pyworkflow._cli.console import plain, stderr
from pyworkflow._cli.exits import Exit
from pyworkflow._cli.signals import asked_to_stop, end_now, say_that_it_stops
from pyworkflow._local.async_client import AsyncClient
from pyworkflow._local.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import ModuleType
    from typing import Any


async def serve(modules: Iterable[ModuleType], db: Path, concurrency: int) -> NoReturn:
    """Run executions in ``db`` of the workflows in ``modules``; ends the process."""
    modules = tuple(modules)
    names = Registry(modules).names
    with asked_to_stop() as asked:
        async with AsyncClient.local(db, workflows=modules, max_concurrent=concurrency) as client:
            stderr().print(plain(f"worker on {db}: {', '.join(names)}"))
            joining = asyncio.ensure_future(client.join())
            waiting: set[asyncio.Future[Any]] = {asked, joining}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if joining.done():
                joining.result()
            joining.cancel()
            say_that_it_stops()
        stderr().print("stopped")
    end_now(Exit.OK)
