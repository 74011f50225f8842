"""Replaying a finished execution from its record: it must do the same again."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from pyworkflow._engine.execution import Execution
from pyworkflow._engine.messages import Broken, Failed, Succeeded, Turn
from pyworkflow.errors import ReplayHazardError

if TYPE_CHECKING:
    from pyworkflow._api.workflow import Workflow
    from pyworkflow._engine.messages import End
    from pyworkflow._engine.observer import Observer
    from pyworkflow._protocol.records import Operation
    from pyworkflow._values.exceptions import KnownErrors


class Replay:
    """A replay of a complete history, with nothing launched and nothing written."""

    def __init__(
        self,
        workflow: Workflow[..., Any],
        operations: tuple[Operation, ...],
        known_errors: KnownErrors,
        observer: Observer | None = None,
    ) -> None:
        self._workflow = workflow
        self._operations = operations
        root = operations[0]
        self._execution = Execution(root.id, root.name or root.id, known_errors, observer)
        self._execution.journal.is_complete = True

    async def run(self) -> Turn:
        """Return the turn in which the replay comes to rest."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Turn] = loop.create_future()
        loop.call_soon(self._run, done)
        return await done

    def _run(self, done: asyncio.Future[Turn]) -> None:
        try:
            call = self._workflow.bind(
                self._operations[0].payload,
                self._execution,
                was_accepted=len(self._operations) > 1,
            )
            self._execution.start(call, self._workflow.result_type, self._operations)
            done.set_result(self._execution.advance())
        except BaseException as error:
            done.set_exception(error)
        finally:
            self._execution.close()


async def check_replay(replay: Replay, recorded: End) -> None:
    """Raise `ReplayHazardError` unless ``replay`` comes to the recorded end, doing nothing new."""
    turn = await replay.run()
    if turn.end is not None and _outcome(turn.end) == _outcome(recorded):
        return
    if isinstance(turn.end, Broken):
        found = str(turn.end.error)
    elif turn.end is None:
        names = ", ".join(call.name for call in turn.launch) or "an operation"
        found = f"it asked for something that is not recorded: {names}"
    else:
        found = f"it ended otherwise: {_outcome(turn.end)}, first: {_outcome(recorded)}"
    raise ReplayHazardError(
        "the finished workflow was replayed from its record, and did something else. Its code "
        "depends on what is not recorded: an object that a child workflow changed, the order of a "
        f"set, time or chance.\n{found}"
    )


# A message may contain the repr of an object. Its address differs, and means nothing.
_addresses = re.compile(r" at 0x[0-9A-Fa-f]+").sub


def _outcome(end: End) -> tuple[str, ...]:
    match end:
        case Succeeded():
            return ("succeeded", end.payload)
        case Failed():
            return ("failed", end.record.type, _addresses(" at an address", end.record.message))
        case _:
            return (type(end).__name__,)
