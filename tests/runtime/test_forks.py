"""A process that is forked from one with clients, loops and pools, in whatever state these are."""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import dedent

import pytest

from tests.services.sqlite.sqlite_world import python

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

PRELUDE = """
import asyncio, multiprocessing, os, signal, sqlite3, threading, warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)  # it is what is tried
import pyworkflow
from pyworkflow import AsyncClient, Client, UsageError, WorkflowContext, step, workflow
from pyworkflow.aws.testing import MockDurableContext, create_test_handler
from pyworkflow.aws import aws_workflow_handler

path = sys.argv[1]

@step
def double(number: int) -> int:
    return number * 2

@step
async def half(number: int) -> int:
    return number // 2

@workflow
async def main(ctx: WorkflowContext, number: int) -> int:
    return double(number) + await half(number)

def fresh(where=path):
    with Client.local(where, workflows=[main]) as client:
        return client.start(main, {"number": 4}).result(timeout="20s")

def mocked():
    return create_test_handler(aws_workflow_handler(main))({"number": 4})

def in_child(work, *expected):
    if (pid := os.fork()) == 0:
        signal.alarm(50)
        try:
            found = work()
            assert found in expected, found
        except BaseException as error:
            print("child:", type(error).__name__, error, flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, "the child failed or hung"

def refusal(call):
    try:
        call()
    except UsageError as error:
        text = str(error)
        return f"process {os.getppid()}," in text and f"process {os.getpid()}," in text
    return "not refused"
"""


def check(code: str, *arguments: object) -> None:
    done = python(PRELUDE + dedent(code), *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_each_method_of_an_inherited_client_is_refused_and_closing_it_harms_nobody(
    tmp_path: Path,
) -> None:
    check(
        """
        with Client.local(path, workflows=[main]) as client:
            handle = client.start(main, {"number": 4}, execution_name="one")
            assert handle.result() == 10
            calls = [
                client.list,
                lambda: client.start(main, {"number": 1}),
                lambda: client.get("one"),
                lambda: client.complete_callback("x"),
                lambda: client.fail_callback("x"),
                lambda: client.heartbeat_callback("x"),
                handle.result, handle.status, handle.summary, handle.operations, handle.history,
                handle.stop,
                client.__enter__,
            ]
            for call in calls:
                in_child(lambda: refusal(call), True)
            in_child(lambda: client.__exit__(None, None, None), None)
            in_child(fresh, 10)
            assert client.start(main, {"number": 8}).result(timeout="20s") == 20
        with Client.local(path, worker=False) as client:
            assert len(client.list()) == 3
        """,
        tmp_path / "x.db",
    )


def test_an_inherited_async_client_is_refused_on_any_loop(tmp_path: Path) -> None:
    check(
        """
        async def scene() -> None:
            async with AsyncClient.local(path, workflows=[main]) as client:
                handle = await client.start(main, {"number": 4}, execution_name="one")
                assert await handle.result() == 10
                for call in (
                    client.list, client.join, client.__aenter__,
                    lambda: client.get("one"), lambda: client.start(main, {"number": 4}),
                    lambda: client.complete_callback("x"), lambda: client.heartbeat_callback("x"),
                    handle.result, handle.status, handle.operations, handle.history, handle.stop,
                    lambda: handle.result(timeout="1s"),
                ):
                    in_child(lambda: refusal(lambda: asyncio.run(call())), True)
                in_child(lambda: asyncio.run(client.__aexit__(None, None, None)), None)
                in_child(fresh, 10)
                assert await (await client.start(main, {"number": 8})).result() == 20

        asyncio.run(scene())
        """,
        tmp_path / "x.db",
    )


def test_a_child_that_leaves_the_block_by_an_error_ends(tmp_path: Path) -> None:
    check(
        """
        try:
            with Client.local(path, workflows=[main]) as client:
                assert client.start(main, {"number": 4}).result() == 10
                pid = os.fork()
                if pid == 0:
                    signal.alarm(50)
                    sys.exit(7)
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
                assert client.start(main, {"number": 4}).result(timeout="20s") == 10
        finally:
            pass
        """,
        tmp_path / "x.db",
    )


def test_everything_works_anew_in_a_child_that_forks_again(tmp_path: Path) -> None:
    check(
        """
        def work() -> int:
            assert mocked() == fresh() == pyworkflow.run(main, {"number": 4}) == 10
            return 10

        assert work() == 10
        in_child(work, 10)
        in_child(lambda: in_child(work, 10), None)
        assert work() == 10
        """,
        tmp_path / "x.db",
    )


def test_children_of_multiprocessing_open_the_file_of_their_parent(tmp_path: Path) -> None:
    check(
        """
        with Client.local(path, workflows=[main]) as client:
            client.start(main, {"number": 4}).result()
            with multiprocessing.get_context("fork").Pool(2) as pool:
                assert pool.map_async(fresh, [path] * 4).get(50) == [10] * 4
            assert client.start(main, {"number": 4}).result(timeout="20s") == 10
            assert len(client.list()) == 6
        """,
        tmp_path / "x.db",
    )


def test_forks_while_other_threads_write_read_and_run_steps(tmp_path: Path) -> None:
    check(
        """
        is_over = threading.Event()

        def press(client: Client) -> None:
            while not is_over.is_set():
                client.start(main, {"number": 4}).result()
                client.list(limit=3)

        with Client.local(path, workflows=[main], durability="normal") as client:
            threads = [threading.Thread(target=press, args=[client]) for _ in range(3)]
            for thread in threads:
                thread.start()
            for _ in range(8):
                in_child(lambda: fresh() + mocked(), 20)
            is_over.set()
            for thread in threads:
                thread.join()
        check = sqlite3.connect(path)
        assert check.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        check.close()
        """,
        tmp_path / "x.db",
    )


def test_a_child_locks_the_file_that_its_parent_has_open_for_itself(tmp_path: Path) -> None:
    check(
        """
        tells, told = os.pipe()
        asked, asks = os.pipe()
        client = Client.local(path, workflows=[main])
        client.__enter__()
        client.start(main, {"number": 4}).result()
        if (pid := os.fork()) == 0:
            signal.alarm(50)
            with Client.local(path, workflows=[main]) as mine:
                os.write(told, b"x")
                os.read(asked, 1)  # the parent has closed it meanwhile, as the last that it knows
                assert mine.start(main, {"number": 4}).result(timeout="20s") == 10
            os._exit(0)
        os.read(tells, 1)
        client.__exit__(None, None, None)
        assert os.path.getsize(path + "-wal") > 0, "the last one that has it open takes it away"
        os.write(asks, b"x")
        assert os.waitpid(pid, 0)[1] == 0
        with Client.local(path, worker=False) as client:
            assert len(client.list()) == 2
        """,
        tmp_path / "x.db",
    )


def test_a_file_that_could_not_be_left_in_time_is_refused_in_the_child(tmp_path: Path) -> None:
    check(
        """
        from pyworkflow.services.sqlite import _forks as forks
        forks.PATIENCE_SECONDS = 0.01

        def refused() -> bool:
            try:
                fresh()
            except UsageError as error:
                return f"forked from process {os.getppid()} while" in str(error)

        with Client.local(path, workflows=[main]) as client:
            client.start(main, {"number": 4}).result()
            sections = list(forks._sections)
            for section in sections:  # as a thread does that waits for another process's lock
                section.lock.acquire()
            in_child(refused, True)
            in_child(lambda: fresh(path + ".other"), 10)
            for section in sections:
                section.lock.release()
            forks.PATIENCE_SECONDS = 60
            in_child(fresh, 10)
            assert len(client.list()) == 2
        """,
        tmp_path / "x.db",
    )


def test_a_handler_s_loop_of_the_parent_stays_whole(tmp_path: Path) -> None:
    check(
        """
        from pyworkflow._runtime.host_loop import run_on_kept_loop

        async def where() -> int:
            await asyncio.to_thread(int)  # it is woken by another thread
            return id(asyncio.get_running_loop())

        def fork_and_exit() -> None:
            if (pid := os.fork()) == 0:
                signal.alarm(50)
                run_on_kept_loop(where)
                sys.exit(0)  # Python cleans up
            assert os.waitpid(pid, 0)[1] == 0

        for _ in range(2):
            kept = run_on_kept_loop(where)
            held, go = threading.Event(), threading.Event()

            def keep() -> None:
                run_on_kept_loop(where)
                held.set()
                go.wait()
                run_on_kept_loop(where)

            other = threading.Thread(target=keep)
            other.start()
            held.wait()
            fork_and_exit()
            go.set()
            other.join(50)
            assert not other.is_alive()
            assert run_on_kept_loop(where) == kept
        """,
        tmp_path / "x.db",
    )


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system has no /proc")
def test_a_fork_waits_for_what_begins_to_work_on_the_file_meanwhile(tmp_path: Path) -> None:
    check(
        """
        from pyworkflow.services.sqlite import _forks as forks, _service as service

        connect, inside = service._connect, threading.Event()

        def connect_during_the_fork(*arguments):
            inside.set()
            while not forks._forking.locked():
                pass
            return connect(*arguments)

        def inherited() -> list[str]:
            places = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
            return [os.readlink(place) for place in places if os.path.exists(place)]

        def work() -> int:
            assert not any(path in name for name in inherited()), inherited()
            service._connect = connect
            return fresh()

        with Client.local(path, workflows=[main]) as client:
            client.start(main, {"number": 4}).result()
        service._connect = connect_during_the_fork
        client = Client.local(path, workflows=[main])
        opening = threading.Thread(target=client.__enter__)
        opening.start()
        inside.wait()
        in_child(work, 10)
        opening.join(50)
        assert client.start(main, {"number": 4}).result(timeout="20s") == 10
        client.__exit__(None, None, None)
        """,
        tmp_path / "x.db",
    )


def test_forks_while_other_threads_open_and_close_the_file(tmp_path: Path) -> None:
    check(
        """
        is_over = threading.Event()

        def press() -> None:
            while not is_over.is_set():
                fresh()

        threads = [threading.Thread(target=press) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(12):
            in_child(fresh, 10)
        is_over.set()
        for thread in threads:
            thread.join()
        check = sqlite3.connect(path)
        assert check.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        check.close()
        """,
        tmp_path / "x.db",
    )


def test_a_handler_s_requests_are_sent_by_threads_and_connections_of_the_child(
    tmp_path: Path,
) -> None:
    check(
        """
        from pyworkflow._runtime.host_loop import run_on_kept_loop
        from pyworkflow.aws import handler
        from tests.services.awslambda.lambda_api import ARN, fake_lambda

        def ask() -> int:
            service = handler.lambda_service()
            run_on_kept_loop(lambda: service._client.get("v1", "things", ARN, "state"))
            return 1

        for name in ("AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            os.environ[name] = "us-west-2"
        with fake_lambda() as api:
            os.environ["AWS_ENDPOINT_URL_LAMBDA"] = api.url
            for _ in range(2):
                ask()
                in_child(ask, 1)
            first, second, third, fourth = (request.connection for request in api.requests)
            assert first == third, "the parent's connection stays its own"
            assert len({first, second, fourth}) == 3
        """,
        tmp_path / "x.db",
    )
