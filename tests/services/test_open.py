"""`services.open`: the one place that knows which service a URL names."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyworkflow import services
from pyworkflow.errors import SerializationError, ServiceError, UsageError
from pyworkflow.services.memory import MemoryService
from pyworkflow.services.sqlite import SqliteService

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def run(scene: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await scene()

    asyncio.run(main())


def now_ms() -> int:
    return 1_700_000_000_000


def test_a_file_keeps_what_memory_forgets(tmp_path: Path) -> None:
    async def scene() -> None:
        for url, kept in ((services.sqlite_url(tmp_path / "x.db"), 1), ("memory:", 0)):
            for expected in (0, kept):
                service = services.open(url, now_ms, durability="normal")
                assert len(await service.list()) == expected
                await service.start("greet", "1", execution_name="once")
                await service.close()

    run(scene)


def test_a_url_names_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def scene() -> None:
        for url, kind in {
            "sqlite:x.db": SqliteService,
            "sqlite:with space%20?#.db": SqliteService,
            "sqlite::memory:": SqliteService,
            "memory:": MemoryService,
        }.items():
            service = services.open(url, now_ms)
            assert type(service) is kind
            await service.close()
        assert {"x.db", "with space%20?#.db"} <= set(os.listdir(tmp_path))

    run(scene)


@pytest.mark.parametrize(
    "url", ["", "x.db", "sqlite:", "sqlite://x.db", "sqlite:///x.db", "memory", "memory:x", "aws:"]
)
def test_what_names_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"Expected the URL of a service, .*found '.*'; "):
        services.open(url, now_ms)


@pytest.mark.parametrize("path", ["a\0b.db", "\ud800.db"])
def test_a_path_that_names_no_file_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Expected the path of a file as UTF-8 .*found '.*'; "):
        services.open(services.sqlite_url(tmp_path / path), now_ms)
    assert not os.listdir(tmp_path)


def test_the_url_of_a_path() -> None:
    assert services.sqlite_url("a/b.db") == "sqlite:a/b.db"
    assert services.sqlite_url(Path("/a/b.db")) == "sqlite:/a/b.db"
    assert services.sqlite_url("//a/b.db") == "sqlite:/a/b.db"
    with pytest.raises(UsageError, match="as text"):
        services.sqlite_url(b"x.db")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_options_reach_the_service(tmp_path: Path, kind: str) -> None:
    url = "memory:" if kind == "memory" else services.sqlite_url(tmp_path / "x.db")

    async def scene() -> None:
        machine_ms = 0
        service = services.open(
            url, now_ms, machine_ms=lambda: machine_ms, page_size=1, max_payload_bytes=9
        )
        with pytest.raises(SerializationError):
            await service.start("greet", '"' + "x" * 9 + '"')
        await service.start("greet", "1")
        assert len(await service.claim_due("me", ["greet"], 1)) == 1
        machine_ms = 60_000
        (again,) = await service.claim_due("you", ["greet"], 1)
        assert again.max_payload_bytes == 9
        await service.close()

    run(scene)


def test_what_a_service_can_not_do_is_said() -> None:
    async def scene() -> None:
        service = services.open("memory:", now_ms)
        services.require(service, services.Capability.RELEASE, "wait")
        with pytest.raises(
            UsageError, match=r"can back up its .*found <executions in memory>; use"
        ):
            services.require(service, services.Capability.BACKUP, "use a file")
        await service.close()

    run(scene)


def test_memory_answers_on_every_thread() -> None:
    async def scene() -> None:
        service = services.open("memory:", now_ms)

        def start(n: int) -> str:
            return asyncio.run(_start(service, n))

        ids = await asyncio.gather(*(asyncio.to_thread(start, n) for n in range(20)))
        claimed = await service.claim_due("me", ["greet"], 99)
        assert {each.execution_id for each in claimed} == set(ids)
        await service.close()

    run(scene)


async def _start(service: services.Service, n: int) -> str:
    return await service.start("greet", str(n))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_memory_refuses_a_forked_process() -> None:
    code = """
import asyncio, os
from pyworkflow import services
from pyworkflow.errors import UsageError
service = services.open("memory:", lambda: 0)
asyncio.run(service.start("greet", "1"))
child = os.fork()
if not child:
    try:
        asyncio.run(service.list())
    except UsageError:
        os._exit(7)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "7"


def test_opening_memory_loads_no_sqlite() -> None:
    code = (
        "import sys; from pyworkflow import services; services.open('memory:', lambda: 0);"
        "print('sqlite3' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "False"


def test_a_closed_memory_says_so() -> None:
    async def scene() -> None:
        service = services.open("memory:", now_ms)
        await service.close()
        with pytest.raises(ServiceError, match="closed"):
            service.subscribe(lambda: None)

    run(scene)
