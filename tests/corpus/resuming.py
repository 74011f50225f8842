"""Running a program up to each thing that is recorded, and taking it up again from there.

A schedule decides what comes first, always in the same way. No body runs for an operation whose end
is recorded, no illegal batch is written: both would fail here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pyworkflow._engine.messages import Broken, Failed, Suspended
from pyworkflow._protocol.records import Operation
from tests.corpus.programs import Program, main
from tests.engine.harness import Run, Service

MOST_TURNS = 2_000


@dataclass(frozen=True)
class Schedule:
    """``newest`` bodies end first, or the oldest do; ``lags``: starts are written before ends.

    With ``sequences`` the service numbers the ends, as ours do, and else gives times alone.
    """

    newest: bool
    lags: bool
    sequences: bool

    def __str__(self) -> str:
        names = ("newest first" if self.newest else "oldest first", "lag" if self.lags else "")
        return " ".join(filter(None, (*names, "" if self.sequences else "by time")))


SCHEDULES = (
    Schedule(newest=False, lags=False, sequences=True),
    Schedule(newest=True, lags=True, sequences=False),
    Schedule(newest=True, lags=False, sequences=True),
    Schedule(newest=False, lags=True, sequences=True),
    Schedule(newest=False, lags=False, sequences=False),
    Schedule(newest=True, lags=False, sequences=False),
)


@dataclass(frozen=True)
class Recorded:
    """What the service holds at one moment."""

    operations: Mapping[str, Operation]
    ends: int
    now_ms: int

    @classmethod
    def of(cls, service: Service) -> Recorded:
        return cls(dict(service.operations), service._ends, service.now_ms)

    def to_service(self, schedule: Schedule) -> Service:
        service = Service(sequences=schedule.sequences)
        service.operations = dict(self.operations)
        service._ends, service.now_ms = self.ends, self.now_ms
        return service

    @property
    def own(self) -> dict[str, Operation]:
        """What the code asked for, without the execution itself."""
        return {i: each for i, each in self.operations.items() if i != "root"}

    @property
    def identity(self) -> frozenset[tuple[str, str, int]]:
        return frozenset((i, each.status, each.attempt) for i, each in self.operations.items())


def histories(program: Program, schedule: Schedule) -> list[Recorded]:
    """Return each state of the record that a crash can leave, from the empty one to the last."""
    service = Service(sequences=schedule.sequences)
    found = {Recorded.of(service).identity: Recorded.of(service)}

    def keep() -> None:
        state = Recorded.of(service)
        found.setdefault(state.identity, state)

    to_end(Run(main(program), service), main(program), schedule, keep).close()
    return list(found.values())


def to_end(
    run: Run,
    function: Callable[..., Any],
    schedule: Schedule,
    on_record: Callable[[], None] = lambda: None,
    *,
    crashes: bool = False,
) -> Run:
    """Drive ``run``, through new ones after suspensions, until it ends; return the last.

    With ``crashes`` the process dies after each write.
    """
    service = run.service
    for _ in range(MOST_TURNS):
        check_launches(run)
        match run.end:
            case Broken() | Failed():
                return run
            case Suspended():
                run.close()
                service.fire_next()
                on_record()
                run = Run(function, service)
                continue
            case None:
                pass
            case _:
                return run
        if run.in_flight is not None:
            answer = run.write()
            on_record()
            if crashes:
                run.close()
                run = Run(function, service)
            else:
                run.execution.resolve(answer)
                run.advance()
        elif schedule.lags and run.turn.lags:
            run.lag()
        elif run.running:
            call = list(run.running.values())[-1 if schedule.newest else 0]
            run.finish(call, lambda: body(*call.args, attempt=call.attempt))  # noqa: B023
        else:
            run.lag()
    raise AssertionError("it does not end")


def body(name: str, argument: int, *, attempt: int) -> str:
    """A step's body: one whose name begins with r fails at first."""
    if name.startswith("r") and attempt == 1:
        raise ConnectionError(name)
    return f"{name}({argument})"


def check_launches(run: Run) -> None:
    """A body runs for nothing whose end is recorded."""
    for call in run.running.values():
        record = run.service.operations.get(call.id)
        assert record is None or not record.ended, f"{call.name} runs again"
