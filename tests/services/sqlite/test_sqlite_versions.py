"""Two versions of PyWorkflow on one file, as in a rolling upgrade."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from pyworkflow.errors import StorageError
from pyworkflow.services.sqlite import _schema
from pyworkflow.testing._updates import step
from tests.services.sqlite.sqlite_world import Place, begin, lease, play, python, spawn
from tests.services.sqlite.test_sqlite_damage import by_hand

UPGRADED = f"version {_schema.SCHEMA_VERSION + 1}"

OTHER_VERSION = """
from pyworkflow.services.sqlite import _schema
_schema.SCHEMA_VERSION += int(sys.argv[2])
from tests.services.sqlite.sqlite_world import Place
Place(sys.argv[1]).open()
"""

WORKER = """
import asyncio
from pyworkflow import AsyncClient, WorkflowContext, step, workflow
from pyworkflow.errors import StorageError

@step
async def wait_for_a_line() -> str:
    print("running", flush=True)
    return (await asyncio.to_thread(sys.stdin.readline)).strip()

@workflow
async def main(ctx: WorkflowContext) -> list[str]:
    return [await wait_for_a_line() for _ in range(2)]

async def work() -> None:
    async with AsyncClient.local(sys.argv[1], workflows=[main]) as client:
        handle = await client.start(main, execution_name="one")
        print(await handle.result())

try:
    asyncio.run(work())
except StorageError as error:
    print(error)
"""


def upgrade(here: Place, by: int = 1) -> None:
    by_hand(here, f"PRAGMA user_version = {_schema.SCHEMA_VERSION + by}")


def test_an_older_version_refuses_a_newer_file_and_says_what_to_do(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        here.open()
        refused = await asyncio.to_thread(python, OTHER_VERSION, here.path, -1)
        assert refused.returncode == 1
        told = refused.stderr.splitlines()[-1]
        assert re.search(r"StorageError: .*x\.db.*newer PyWorkflow; upgrade to that one", told)

    play(tmp_path / "x.db", scene)


def test_who_has_the_file_open_stops_when_another_version_changes_it(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        holder = await begin(service)
        await holder.commit(step("a"))
        upgrade(here)
        for _ in range(2):
            for request in (
                holder.commit(step("b")),
                service.start("greet", "2"),
                service.renew("me", [holder.id]),
                service.claim_due("me", ["greet"], 5),
                service.operations(holder.id),
                service.list(),
            ):
                with pytest.raises(StorageError, match=rf"x\.db.* was changed to {UPGRADED}"):
                    await request
        upgrade(here, 0)
        (_, operation) = await service.operations(holder.id)
        assert operation.id == "a"
        assert list(await holder.commit(step("b"))) == ["b"]

    play(tmp_path / "x.db", scene)


def test_a_change_between_opening_and_the_first_request_is_seen(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        upgrade(here)
        with pytest.raises(StorageError, match=UPGRADED):
            await service.start("greet", "1")

    play(tmp_path / "x.db", scene)


def test_a_worker_stops_and_says_so_and_the_next_one_goes_on(tmp_path: Path) -> None:
    here = Place(tmp_path / "x.db")

    def go_on(*answers: str) -> str:
        worker = spawn(WORKER, here.path)
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stdout.readline() == "running\n"
        if len(answers) == 1:
            upgrade(here)
        worker.stdin.write("".join(f"{answer}\n" for answer in answers))
        worker.stdin.close()
        output, errors = worker.stdout.read(), worker.stderr.read() if worker.stderr else ""
        assert worker.wait(timeout=60) == 0, errors
        worker.stdout.close()
        if worker.stderr is not None:
            worker.stderr.close()
        return output

    assert f"was changed to {UPGRADED} by another PyWorkflow" in go_on("lost")
    upgrade(here, 0)
    assert go_on("first", "second").splitlines()[-1] == "['first', 'second']"


def test_a_worker_that_has_nothing_to_do_stops(tmp_path: Path) -> None:
    async def scene(here: Place) -> None:
        service = here.open()
        woken = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            loop.call_soon_threadsafe(woken.set)

        end = service.subscribe(wake)
        upgrade(here)
        await woken.wait()
        with pytest.raises(StorageError, match=UPGRADED):
            await lease(service, "me")
        end()

    play(tmp_path / "x.db", scene)
