from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import threading
from collections.abc import Callable

import pytest

from pyworkflow._api.body_threads import BodyThreads, in_body_thread

PATIENCE_SECONDS = 60


class Bodies:
    """Bodies that block until they are let go on."""

    def __init__(self, pool: BodyThreads) -> None:
        self._pool = pool
        self._begun = threading.Semaphore(0)
        self.go_on = threading.Event()

    def _body(self) -> str:
        self._begun.release()
        assert self.go_on.wait(PATIENCE_SECONDS)
        return threading.current_thread().name

    def submit(self, body: Callable[[], str] | None = None) -> Callable[[], str]:
        future = self._pool.submit(body or self._body)
        return lambda: future.result(PATIENCE_SECONDS)

    def lend(self) -> str:
        with self._pool.lending() as has_room:
            assert has_room
            return self._body()

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self._begun.acquire(timeout=PATIENCE_SECONDS)

    def none_more_begins(self) -> bool:
        return not self._begun.acquire(blocking=False)


def test_threads_are_used_again_and_are_daemons() -> None:
    pool = BodyThreads(2, 0)
    names = {pool.submit(lambda: threading.current_thread().name).result(60) for _ in range(9)}
    assert len(names) <= 2
    assert pool.submit(lambda: threading.current_thread().daemon).result(60)


def test_more_than_there_are_threads_wait() -> None:
    pool = BodyThreads(2, 0)
    bodies = Bodies(pool)
    ends = [bodies.submit() for _ in range(5)]
    bodies.wait_for(2)
    assert bodies.none_more_begins()
    bodies.go_on.set()
    assert len({end() for end in ends}) == 2


def test_each_thread_that_is_lent_makes_room_for_one_body() -> None:
    pool = BodyThreads(2, 5)
    lending, bodies = Bodies(pool), Bodies(pool)
    lent = [lending.submit(lending.lend) for _ in range(4)]
    lending.wait_for(4)
    ends = [bodies.submit() for _ in range(3)]
    bodies.wait_for(2)
    assert bodies.none_more_begins()
    lending.go_on.set()
    bodies.go_on.set()
    assert len({end() for end in [*lent, *ends]}) == 6
    # They have come back: no more than two run at once.
    bodies = Bodies(pool)
    ends = [bodies.submit() for _ in range(3)]
    bodies.wait_for(2)
    assert bodies.none_more_begins()
    bodies.go_on.set()
    for end in ends:
        end()


def test_beyond_the_limit_nothing_is_lent() -> None:
    pool = BodyThreads(1, 1)
    bodies = Bodies(pool)

    def lend_once_more() -> str:
        with pool.lending() as has_room:
            return str(has_room)

    lent = bodies.submit(bodies.lend)
    bodies.wait_for(1)
    assert pool.submit(lend_once_more).result(60) == "False"
    bodies.go_on.set()
    lent()
    assert pool.submit(lend_once_more).result(60) == "True"


def test_a_thread_is_lent_once_and_others_have_nothing_to_lend() -> None:
    pool = BodyThreads(1, 1)

    def lend_twice() -> bool:
        with pool.lending() as first, pool.lending() as second:
            return first and second

    assert pool.submit(lend_twice).result(60)
    with pool.lending() as has_room:
        assert has_room
    assert pool.submit(lend_twice).result(60)


def test_a_thread_stays_lent_until_the_last_of_its_tasks_goes_on() -> None:
    pool = BodyThreads(1, 1)

    def two_tasks_wait() -> int:
        first, second = pool.lending(), pool.lending()
        with second:
            with first:
                pass
            return pool.submit(lambda: 1).result(PATIENCE_SECONDS)

    def first_ends_first() -> int:
        first, second = pool.lending(), pool.lending()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        value = pool.submit(lambda: 1).result(PATIENCE_SECONDS)
        second.__exit__(None, None, None)
        return value

    for body in (two_tasks_wait, first_ends_first):
        assert pool.submit(body).result(2 * PATIENCE_SECONDS) == 1


def test_errors_and_cancelled_items() -> None:
    pool = BodyThreads(1, 0)
    bodies = Bodies(pool)
    first = bodies.submit()
    bodies.wait_for(1)
    ran: list[int] = []
    second = pool.submit(ran.append, 1)
    assert second.cancel()
    third = pool.submit(lambda: 1 // 0)
    bodies.go_on.set()
    first()
    with pytest.raises(ZeroDivisionError):
        third.result(60)
    assert ran == []


def test_where_the_system_has_no_more_threads_those_that_there_are_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = BodyThreads(2, 0)
    bodies = Bodies(pool)
    first = bodies.submit()
    bodies.wait_for(1)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    second = bodies.submit()
    bodies.go_on.set()
    assert first() == second()
    with pytest.raises(RuntimeError, match="can't start"):
        BodyThreads(1, 0).submit(print)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_child_process_has_threads_of_its_own() -> None:
    from pyworkflow._api.body_threads import body_threads

    assert body_threads.submit(lambda: 1).result(60) == 1
    child = os.fork()
    if child == 0:
        signal.alarm(PATIENCE_SECONDS)
        os._exit(body_threads.submit(lambda: 7).result(60))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7


def test_a_function_sees_the_callers_context() -> None:
    import asyncio

    from pyworkflow._api.body_threads import in_body_thread

    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    async def main() -> str:
        variable.set("the caller's")
        return await in_body_thread(variable.get)

    assert asyncio.run(main()) == "the caller's"


def test_a_stop_iteration_ends_the_wait_for_it() -> None:
    """No future takes one: whoever awaits it would wait for ever."""

    async def main() -> None:
        await asyncio.wait_for(in_body_thread(next, iter(())), PATIENCE_SECONDS)

    with pytest.raises(RuntimeError) as caught:
        asyncio.run(main())
    assert isinstance(caught.value.__cause__, StopIteration)
