"""The answer to Lambda at the end of an invocation.

``SUCCEEDED`` and ``FAILED`` end the execution, ``PENDING`` waits for what is pending, an exception
has the function invoked again. A PENDING with nothing pending is refused, and one that waits for a
timer far away would hold up the steps that could go on: both are an exception instead.

Sources: the Lambda API reference (durable execution invocation output) and the limit of 6 MB for a
response.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyworkflow._engine.messages import Broken, Failed, OutOfTime, Succeeded, Suspended
from pyworkflow._protocol.limits import fits_response
from pyworkflow._protocol.wire import error_to_wire
from pyworkflow.errors import OutOfTimeError

if TYPE_CHECKING:
    from pyworkflow._engine.messages import End

SOON_MS = 60_000
"""A timer that is due by then wakes the execution soon enough for steps that ran out of time."""


def answer(end: End, now_ms: int) -> dict[str, Any]:
    """Return the answer that reports ``end`` to Lambda.

    Raises `NonDeterminismError` and `OutOfTimeError`: then Lambda invokes the function again.
    """
    match end:
        case Succeeded():
            return {"Status": "SUCCEEDED", "Result": "" if must_record(end) else end.payload}
        case Failed():
            return {"Status": "FAILED", "Error": error_to_wire(end.record)}
        case Suspended():
            return {"Status": "PENDING"}
        case OutOfTime() if end.due_ms is not None and end.due_ms <= now_ms + SOON_MS:
            return {"Status": "PENDING"}
        case OutOfTime():
            raise OutOfTimeError(
                "the invocation's time is over while steps wait to run; all outcomes so far are "
                "recorded, and the next invocation goes on from there. If a step needs longer than "
                "an invocation has, give the function a longer timeout or make the step smaller"
            )
        case Broken():
            raise end.error


def must_record(end: End) -> bool:
    """Whether ``end`` is too large for an answer; the record of an error never is."""
    return isinstance(end, Succeeded) and not fits_response(end.payload)
