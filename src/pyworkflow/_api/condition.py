"""`ctx.wait_for_condition`: poll until a condition holds, with nothing running in between.

``check`` observes the world and returns the *state*; ``until`` returns whether a state is final. A
check that takes a parameter receives the last state, so it can count, compare or continue from a
cursor. Each poll runs like the body of a step.
"""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import msgspec

from pyworkflow._api.callables import as_async, name_of, result_type_of
from pyworkflow._api.names import check_key, check_name
from pyworkflow._engine.ops.condition import ConditionOp
from pyworkflow._values import codec
from pyworkflow._values.exception_classes import stand_for
from pyworkflow.duration import whole_seconds
from pyworkflow.errors import UsageError
from pyworkflow.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from pyworkflow._engine.execution import Execution
    from pyworkflow.duration import Duration

T = TypeVar("T")

NOT_GIVEN: Any = object()
"""The default of ``initial``: `None` differs, as a state that was given."""
_LONGEST_DELAY = 5 * 60
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class ConditionKeywords(TypedDict, total=False):
    """The options of `wait_for_condition` that do not affect its type."""

    backoff: float
    max_every: Duration | None
    timeout: Duration | None
    max_attempts: int | None
    name: str | None
    key: str | None


# -- a call, checked -----------------------------------------------------------------------------


class _Settings(msgspec.Struct, frozen=True):
    """The settings that the engine and the runtime read."""

    name: str
    key: str | None
    retry: Retry
    until: Callable[[Any], object]
    initial: str
    limit_seconds: int | None
    result_type: object
    timeout_seconds: float | None = None
    at_most_once: bool = False
    inline: bool = False
    is_async: bool = True


class ConditionCall:
    """A checked call of ``ctx.wait_for_condition``."""

    def __init__(
        self,
        check: Callable[..., Any],
        initial: Any,
        *,
        every: Duration,
        until: Callable[[Any], object],
        result_type: Any,
        options: ConditionKeywords,
    ) -> None:
        schedule = _Schedule.of(every, options)
        if not callable(check):
            raise UsageError(f"ctx.wait_for_condition takes a function to call, not {check!r}")
        name = schedule.name
        if name is None:
            name = name_of(getattr(check, "func", check)) or "wait_for_condition"
        self._what = what = f"condition {check_name(name, 'a condition')!r}"
        if not callable(until):
            raise UsageError(
                f"until= of {what} takes a function of the state, not {until!r}: "
                'until=lambda state: state["done"]'
            )
        self._initial = initial
        self._takes_state = _takes_state(check, initial is not NOT_GIVEN, what)
        is_typed = result_type is not Any
        if not is_typed:
            result_type = result_type_of(check, what)
        codec.decoder_for(result_type, what=f"the state of {what}")
        self._settings = _Settings(
            name,
            None if schedule.key is None else check_key(schedule.key, what),
            schedule.retry(what),
            until,
            _encoded(initial, result_type, f"the initial state of {what}"),
            schedule.limit_seconds(what),
            result_type,
        )
        self._poll = _polling(check, result_type, f"the state of {what}", converts=is_typed)

    def blocking(self, execution: Execution) -> Any:
        """Block until the condition is met."""
        return execution.wait(self._issue(execution))

    def coroutine(self, execution: Execution) -> Coroutine[Any, Any, Any]:
        """Return the coroutine that waits."""
        coroutine = self._run(execution)
        execution.open_scopes.calls().expect(coroutine, f"wait_for_condition of {self._what}")
        return coroutine

    async def _run(self, execution: Execution) -> Any:
        return await self._issue(execution).outcome()

    def _issue(self, execution: Execution) -> ConditionOp:
        settings = self._settings
        op = ConditionOp(execution, settings, self._poll, takes_state=self._takes_state)
        if settings.initial != "null" and not execution.journal.knows(op.id):
            what = f"the initial state of {self._what}"
            codec.roundtrip(self._initial, settings.result_type, what=what)
        execution.issue(op)
        return op


class _Schedule(msgspec.Struct, frozen=True):
    """The options of a call, not yet checked."""

    every: Duration
    backoff: float = 1
    max_every: Duration | None = None
    timeout: Duration | None = None
    max_attempts: int | None = None
    name: str | None = None
    key: str | None = None

    @classmethod
    def of(cls, every: Duration, options: ConditionKeywords) -> _Schedule:
        if unknown := options.keys() - ConditionKeywords.__annotations__.keys():
            raise TypeError(
                f"wait_for_condition() got an unexpected keyword argument {min(unknown)!r}"
            )
        return cls(every, **options)

    def retry(self, what: str) -> Retry:
        """Return the delays between polls and their largest number, as a retry policy."""
        delay = whole_seconds(self.every)
        if delay == 0:
            raise UsageError(
                f"every= of {what} must be longer than 0: the service counts whole seconds"
            )
        longest = max(delay, _LONGEST_DELAY)
        if self.max_every is not None:
            longest = whole_seconds(self.max_every)
        if longest < delay:
            raise UsageError(
                f"max_every={self.max_every!r} of {what} is shorter than every={self.every!r}"
            )
        attempts = sys.maxsize if self.max_attempts is None else self.max_attempts
        try:
            return Retry(
                max_attempts=attempts,
                delay=delay,
                backoff=self.backoff,
                max_delay=longest,
                jitter=False,
            )
        except UsageError as error:
            raise UsageError(f"max_attempts= or backoff= of {what} is invalid: {error}") from None

    def limit_seconds(self, what: str) -> int | None:
        """Return the timeout in seconds; `None` for no limit."""
        if self.timeout is None:
            return None
        seconds = whole_seconds(self.timeout)
        if seconds == 0:
            raise UsageError(f"timeout= of {what} must be longer than 0; leave it out for none")
        return seconds


def _takes_state(check: Callable[..., Any], is_given: bool, what: str) -> bool:
    """Whether ``check`` is called with the state: its signature decides."""
    try:
        parameters = inspect.signature(check).parameters.values()
    except ValueError:  # a builtin without a signature
        return is_given
    by_position = [p for p in parameters if p.kind in _BY_POSITION]
    needed = [p for p in by_position if p.default is p.empty]
    needed += [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    takes_one = bool(by_position) or any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if len(needed) > 1 or (needed and needed[0] not in by_position):
        fault = "takes more than the state"
    elif is_given and not takes_one:
        fault = "takes no state, but initial= gives one"
    elif by_position and not needed and not is_given:
        fault = "has a default for the state, so it is unclear whether to pass it"
    else:
        return bool(needed) or is_given
    raise UsageError(
        f"the check of {what} {fault}: {check!r}. It is called with the last state if it has a "
        "parameter for it (give initial=... if that has a default), and with nothing otherwise: "
        "lambda: is_ready(order_id)"
    )


def _encoded(initial: Any, result_type: object, what: str) -> str:
    if initial is NOT_GIVEN or initial is None:
        return "null"
    text = codec.text_of(initial, what=what)
    codec.decode(text, result_type, what=what)
    return text


def _polling(
    check: Callable[..., Any], result_type: object, what: str, *, converts: bool
) -> Callable[..., Any]:
    """Return the body of a poll. It works on a copy of the state, which it may change."""
    look = as_async(check)

    async def poll(*states: Any) -> Any:
        own = [
            state if state is None else codec.copied(state, result_type, what=what)
            for state in states
        ]
        found = await look(*own)
        return codec.roundtrip(found, result_type, what=what)[1] if converts else found

    stand_for(poll, check)
    return poll
