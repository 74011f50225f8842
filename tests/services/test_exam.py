"""The exam of services leaves no method out: planted defects, each caught by one of its scenarios.

A check that nothing can make fail proves nothing. So each method of each port is broken in at least
three ways, and the exam must fail for each of them.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from pyworkflow._protocol.executions import ExecutionStatus, Page, Paged
from pyworkflow._protocol.records import ErrorRecord
from pyworkflow.errors import ServiceError
from pyworkflow.services.memory import MemoryService
from pyworkflow.services.port import Capability, Executions, History, Queue
from pyworkflow.testing.conformance import ServiceConformance, ServiceUnderTest
from tests.services.test_memory import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

    Method = Callable[..., Any]
    Defect = Callable[[Method], Method]
    """Makes a broken method of a sound one."""

OTHER = ErrorRecord(message="another error")


# -- ways to break a method ------------------------------------------------------------------------


def answers(value: Any) -> Defect:
    """It does nothing, and says so."""

    def broken(_: Method) -> Method:
        async def method(*_: Any, **__: Any) -> Any:
            return value

        return method

    return broken


def tells(change: Callable[[Any], Any]) -> Defect:
    """It does what it should, and answers something else."""

    def broken(sound: Method) -> Method:
        async def method(*args: Any, **options: Any) -> Any:
            return change(await sound(*args, **options))

        return method

    return broken


def hears(change: Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]) -> Defect:
    """It does something else than what it was asked for."""

    def broken(sound: Method) -> Method:
        async def method(*args: Any, **options: Any) -> Any:
            changed, changed_options = change(*args, **options)
            return await sound(*changed, **changed_options)

        return method

    return broken


def ignores(*names: str) -> Defect:
    """It takes no notice of options."""
    return hears(
        lambda *args, **options: (args, {k: v for k, v in options.items() if k not in names})
    )


def always(**given: Any) -> Defect:
    """It takes options as given, whatever it was asked for."""
    return hears(lambda *args, **options: (args, {**options, **given}))


def instead(place: int, value: Any) -> Defect:
    """It takes another value for one argument."""
    return hears(lambda *args, **options: ((*args[:place], value, *args[place + 1 :]), options))


def swallows(value: Any = None) -> Defect:
    """It refuses nothing aloud."""

    def broken(sound: Method) -> Method:
        async def method(*args: Any, **options: Any) -> Any:
            try:
                return await sound(*args, **options)
            except ServiceError:
                return value

        return method

    return broken


def twice(sound: Method) -> Method:
    """It does everything two times."""

    async def method(*args: Any, **options: Any) -> Any:
        await sound(*args, **options)
        return await sound(*args, **options)

    return method


def never_again(sound: Method) -> Method:
    """It works once."""
    answered: list[Any] = []

    async def method(*args: Any, **options: Any) -> Any:
        if not answered:
            answered.append(await sound(*args, **options))
        return answered[0]

    return method


def refuses(sound: Method) -> Method:
    """It can't do anything."""

    async def method(*args: Any, **options: Any) -> Any:
        raise ServiceError("no")

    return method


def backwards(found: Any) -> Any:
    return Paged(reversed(found), getattr(found, "marker", None))


def reports_to_nobody(_: Method) -> Method:
    return lambda _: lambda: None


def never_ends(sound: Method) -> Method:
    def subscribe(on_change: Any) -> Any:
        sound(on_change)
        return lambda: None

    return subscribe


def ends_the_wrong_one(sound: Method) -> Method:
    ends: list[Any] = []

    def subscribe(on_change: Any) -> Any:
        ends.append(sound(on_change))
        return lambda: [end() for end in ends]

    return subscribe


def tells_everything(sound: Method) -> Method:
    def subscribe(on_change: Any) -> Any:
        service = sound.__self__  # type: ignore[attr-defined]
        commit = service.commit

        async def noisy(*args: Any) -> Any:
            answer = await commit(*args)
            on_change()
            return answer

        service.commit = noisy
        return sound(on_change)

    return subscribe


def _hand_back_all(sound: Method) -> Method:
    async def hand_back(owner: str, leased: Any) -> None:
        held = await sound.__self__.leased_by(owner)  # type: ignore[attr-defined]
        await sound(owner, held)

    return hand_back


def _retire_all(sound: Method) -> Method:
    async def retire(owner: str) -> None:
        service = sound.__self__  # type: ignore[attr-defined]
        await service.hand_back(owner, await service.leased_by(owner))
        await sound(owner)

    return retire


def _refuse_strangers(sound: Method) -> Method:
    async def retire(owner: str) -> None:
        if not await sound.__self__.leased_by(owner):  # type: ignore[attr-defined]
            raise ServiceError("no such owner")
        await sound(owner)

    return retire


def _all_is_news(_: Method) -> Method:
    async def changed(_: str, execution_ids: Any) -> list[str]:
        return list(execution_ids)

    return changed


def _start_two(sound: Method) -> Method:
    async def start(*args: Any, **options: Any) -> Any:
        await sound(*args)
        return await sound(*args, **options)

    return start


def _get_instead(sound: Method) -> Method:
    return lambda execution_id, *_: sound.__self__.get(execution_id)  # type: ignore[attr-defined]


def _answer_before(sound: Method) -> Method:
    async def stop(execution_id: str, error: ErrorRecord) -> Any:
        before = await sound.__self__.get(execution_id)  # type: ignore[attr-defined]
        await sound(execution_id, error)
        return before

    return stop


def _leave_a_file(sound: Method) -> Method:
    async def backup(destination: str, on_progress: Any = None) -> None:
        with open(destination, "w", encoding="utf-8"):  # noqa: ASYNC230 - a defect
            await sound(destination, on_progress)

    return backup


def _refuse_the_second(sound: Method) -> Method:
    closed: list[bool] = []

    async def close() -> None:
        if closed:
            raise ServiceError("closed already")
        closed.append(True)
        await sound()

    return close


SUBSCRIBE: dict[str, Defect] = {
    "reports to nobody": reports_to_nobody,
    "never ends": never_ends,
    "ends others": ends_the_wrong_one,
    "reports each checkpoint": tells_everything,
}

CALLBACK: dict[str, Defect] = {
    "does nothing": answers("an id"),
    "refuses nothing": swallows("an id"),
}


def loses(place: int, value: Any = None) -> dict[str, Defect]:
    return {f"loses argument {place}": instead(place, value)}


DEFECTS: dict[str, dict[str, Defect]] = {
    "load": {
        "has nothing": answers(Page(())),
        "refuses nothing": swallows(Page(())),
        "names no next page": tells(lambda page: Page(page.operations)),
        "starts over": instead(2, "1"),
    },
    "commit": {
        "drops the updates": instead(2, ()),
        "keeps no order": tells(lambda done: replace(done, operations=backwards(done.operations))),
        "gives no further token": tells(lambda done: replace(done, token=None)),
        "names no next page": tells(lambda done: replace(done, marker=None)),
        "takes only the first": hears(lambda e, t, updates: ((e, t, updates[:1]), {})),
    },
    "claim_due": {
        "finds nothing": answers(()),
        "takes no limit": instead(2, 1_000),
        "looks at one workflow": hears(lambda o, names, *a, **k: ((o, [*names][:1], *a), k)),
        "leases to another": instead(0, "somebody"),
        "takes every suspect": ignores("suspects"),
        "keeps no lease": ignores("keep"),
        "keeps every lease": always(keep=True),
        "keeps no order": tells(backwards),
        "counts no losses": tells(lambda found: [replace(each, losses=0) for each in found]),
    },
    "renew": {
        "does nothing": answers(None),
        "renews for anybody": instead(0, "me"),
        "renews one": hears(lambda owner, wanted: ((owner, [*wanted][1:]), {})),
    },
    "release": {
        "does nothing": answers(None),
        "loses the problem": ignores("problem"),
        "loses that it is unfinished": ignores("is_unfinished"),
        "is always unfinished": always(is_unfinished=True),
        "knows every execution": swallows(),
        "has a problem": always(problem=OTHER),
    },
    "leased_by": {
        "knows of nothing": answers([]),
        "looks at nothing late": ignores("late"),
        "looks at the late alone": always(late=True),
        "counts from nought": tells(lambda found: [(each, n - 1) for each, n in found]),
    },
    "hand_back": {
        "does nothing": answers(None),
        "hands back for anybody": instead(0, "you"),
        "hands back one": hears(lambda owner, leased: ((owner, [*leased][:0]), {})),
        "hands back what runs": _hand_back_all,
    },
    "report": {
        "does nothing": answers(None),
        "never takes it back": instead(1, OTHER),
        "is of anybody": instead(0, "you"),
    },
    "retire": {
        "does nothing": answers(None),
        "gives up what runs": _retire_all,
        "refuses strangers": _refuse_strangers,
    },
    "next_due": {
        "knows of nothing": answers(None),
        "looks at all workflows": instead(0, None),
        "counts no suspects": always(suspects=False),
        "counts every suspect": ignores("suspects"),
        "is late": tells(lambda ms: None if ms is None else ms + 1),
    },
    "next_deadline": {
        "knows of none": answers(None),
        "is now": answers(0),
        "is late": tells(lambda ms: None if ms is None else ms + 1),
    },
    "unserved": {
        "finds nothing": answers(()),
        "looks at served workflows": instead(0, ()),
        "finds one": tells(lambda found: found[:1]),
        "gives another id": tells(lambda found: [replace(each, id="x") for each in found]),
    },
    "changed": {
        "has none": answers([]),
        "is of everything": _all_is_news,
        "is of another owner": instead(0, "you"),
        "looks at one": hears(lambda owner, wanted: ((owner, [*wanted][:1]), {})),
    },
    "subscribe": SUBSCRIBE,
    "start": {
        "starts once": never_again,
        "loses the name": ignores("execution_name"),
        "loses the timeout": ignores("timeout_seconds"),
        "loses the input": instead(1, "null"),
        "refuses nothing": swallows("an id"),
        "starts another workflow": instead(0, "other"),
        "starts two": _start_two,
    },
    "stop": {
        "does nothing": _get_instead,
        "loses the error": instead(1, OTHER),
        "answers what was before": _answer_before,
        "knows every execution": swallows(),
    },
    "revoke": {
        "does nothing": _get_instead,
        "refuses nothing": swallows(),
        "answers another problem": tells(lambda found: replace(found, problem=None)),
        "can't": refuses,
    },
    "complete_callback": {
        **CALLBACK,
        **loses(1),
        "answers the callback's id": tells(lambda found: f"{found}.k"),
    },
    "fail_callback": {
        **CALLBACK,
        **loses(1, OTHER),
        "answers the callback's id": tells(lambda found: f"{found}.k"),
    },
    "heartbeat_callback": {
        **CALLBACK,
        "answers the callback's id": tells(lambda found: f"{found}.k"),
    },
    "get": {
        "knows every execution": swallows(),
        "has no end": tells(lambda found: replace(found, end_ms=None)),
        "has no problem": tells(lambda found: replace(found, problem=None)),
        "is always running": tells(lambda found: replace(found, status=ExecutionStatus.RUNNING)),
        "has no result": tells(lambda found: replace(found, result=None)),
        "has no next time": tells(lambda found: replace(found, wake_ms=None)),
    },
    "list": {
        "finds nothing": answers(()),
        "is the oldest first": tells(backwards),
        "ignores the workflow": ignores("workflow_name"),
        "ignores the status": ignores("status"),
        "ignores the name": ignores("execution_name"),
        "ignores the limit": ignores("limit"),
        "has no default limit": hears(lambda **options: ((), {"limit": 999, **options})),
        "begins at the start": ignores("after"),
        "has one page": tells(Paged),
        "shows payloads": always(payloads=True),
        "shows no payloads": ignores("payloads"),
        "ignores how a name begins": ignores("name_prefix"),
        "ignores how an id begins": ignores("id_prefix"),
        "ignores the first time": ignores("started_from_ms"),
        "ignores the last time": ignores("started_before_ms"),
        "ignores problems": ignores("has_problem"),
        "shows no problem": tells(
            lambda found: Paged([replace(each, problem=None) for each in found], found.marker)
        ),
    },
    "operations": {
        "finds nothing": answers(()),
        "keeps no order": tells(backwards),
        "leaves out the first": tells(lambda found: Paged(found[1:], found.marker)),
        "leaves out the last": tells(lambda found: Paged(found[:-1] or found, found.marker)),
        "has one page": tells(Paged),
        "begins at the start": ignores("after"),
        "ignores the limit": ignores("limit"),
    },
    "history": {
        "finds nothing": answers(()),
        "keeps no order": tells(backwards),
        "leaves out the first": tells(lambda found: Paged(found[1:], found.marker)),
        "knows no times": tells(
            lambda found: Paged([replace(each, time_ms=0) for each in found], found.marker)
        ),
        "has one page": tells(Paged),
        "begins at the start": ignores("after"),
        "ignores the limit": ignores("limit"),
    },
    "backup": {
        "says that it was done": answers(None),
        "raises another error": refuses,
        "leaves a file": _leave_a_file,
    },
    "close": {
        "does nothing": answers(None),
        "can't": refuses,
        "works once": _refuse_the_second,
    },
}


CAPABILITIES: dict[str, frozenset[Any]] = {
    "claims a backup": frozenset(Capability),
    "denies the release": frozenset(),
    "claims what no one knows": frozenset({Capability.RELEASE, "fly"}),
}

# -- the exam --------------------------------------------------------------------------------------


def methods_of(*ports: type) -> set[str]:
    return {name for port in ports for name in vars(port) if not name.startswith("_")}


def is_caught(plant: Callable[[MemoryService], None], scenarios: str = "test_") -> bool:
    """Whether a scenario of the exam whose name begins so fails for a service with that defect."""

    def factory(page_size: int) -> ServiceUnderTest:
        clock = FakeClock()
        service = MemoryService(clock.now_ms, page_size=page_size)
        close = service.close
        plant(service)
        return ServiceUnderTest(service, clock.advance, close)

    exam = ServiceConformance()
    for name, scenario in inspect.getmembers(exam, inspect.ismethod):
        if not name.startswith(scenarios):
            continue
        cases = [[*mark.args[1]] for mark in getattr(scenario, "pytestmark", ())]
        for case in [[value] for values in cases for value in values[:2]] or [[]]:
            try:
                scenario(factory, *case)
            except (Exception, pytest.fail.Exception):
                return True
    return False


def test_a_sound_service_passes() -> None:
    assert not is_caught(lambda _: None)


def test_every_method_has_three_planted_defects() -> None:
    planted = {name: len(defects) for name, defects in DEFECTS.items()}
    planted["capabilities"] = len(CAPABILITIES)
    assert set(planted) == methods_of(History, Queue, Executions)
    assert {name: count for name, count in planted.items() if count < 3} == {}


@pytest.mark.parametrize(
    ("name", "label"), [(name, label) for name, defects in DEFECTS.items() for label in defects]
)
def test_a_planted_defect_is_caught(name: str, label: str) -> None:
    defect = DEFECTS[name][label]
    assert is_caught(lambda service: setattr(service, name, defect(getattr(service, name))))


@pytest.mark.parametrize("label", CAPABILITIES)
def test_wrong_capabilities_are_caught(label: str) -> None:
    assert is_caught(lambda service: setattr(service, "capabilities", CAPABILITIES[label]))


@pytest.mark.parametrize("name", ["operations", "history"])
@pytest.mark.parametrize("is_endless", [False, True])
def test_a_list_without_an_end_is_caught(name: str, is_endless: bool) -> None:
    """A page leads back to the first, or each has a marker of its own and none is the last."""

    def endless(sound: Method) -> Method:
        async def method(execution_id: str, *, limit: int = 99, after: str | None = None) -> Any:
            whole = await sound(execution_id)
            first = int(after or 0)
            found = [whole[n % len(whole)] for n in range(first, first + limit)]
            return whole if limit >= len(whole) else Paged(found, str(first + limit))

        return method

    defect = endless if is_endless else ignores("after")

    def plant(service: MemoryService) -> None:
        setattr(service, name, defect(getattr(service, name)))

    assert is_caught(plant, "test_operations_and_histories_have_pages")
