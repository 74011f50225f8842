"""`ctx.wait_for_condition`: look again and again, with nothing running in between.

``check`` looks at the world and returns what it sees, the *state*; ``until`` says of a state
whether it is enough. A check that takes a parameter is given the state that the last poll left, so
that it can count, compare or go on from a cursor. Each poll runs as a step's body does.
"""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, overload

import msgspec

from pyworkflow._api.code import name_of, result_type_of
from pyworkflow._api.functions import as_async
from pyworkflow._api.names import check_key, check_name
from pyworkflow._api.outside import _OfExecution
from pyworkflow._engine.ops.condition import ConditionOp
from pyworkflow._values import codec
from pyworkflow._values.exception_classes import stand_for
from pyworkflow.duration import whole_seconds
from pyworkflow.errors import UsageError
from pyworkflow.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Unpack

    from pyworkflow._engine.execution import Execution
    from pyworkflow.duration import Duration

T = TypeVar("T")

_NONE_GIVEN: Any = object()
_LONGEST_DELAY = 5 * 60
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class ConditionKeywords(TypedDict, total=False):
    """The options of `wait_for_condition` that do not concern its type."""

    backoff: float
    max_every: Duration | None
    timeout: Duration | None
    max_attempts: int | None
    name: str | None
    key: str | None


class ConditionCalls(_OfExecution):
    """Conditions of an ``async def`` workflow."""

    @overload
    def wait_for_condition(
        self,
        check: Callable[..., Any],
        initial: Any = ...,
        *,
        every: Duration,
        until: Callable[[T], object] = ...,
        result_type: type[T],
        **options: Unpack[ConditionKeywords],
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def wait_for_condition(
        self,
        check: Callable[..., Coroutine[Any, Any, T]],
        initial: Any = ...,
        *,
        every: Duration,
        until: Callable[[T], object] = ...,
        result_type: Any = ...,
        **options: Unpack[ConditionKeywords],
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def wait_for_condition(
        self,
        check: Callable[..., T],
        initial: Any = ...,
        *,
        every: Duration,
        until: Callable[[T], object] = ...,
        result_type: Any = ...,
        **options: Unpack[ConditionKeywords],
    ) -> Coroutine[Any, Any, T]: ...

    def wait_for_condition(
        self,
        check: Callable[..., Any],
        initial: Any = _NONE_GIVEN,
        *,
        every: Duration,
        until: Callable[[Any], object] = bool,
        result_type: Any = Any,
        **options: Unpack[ConditionKeywords],
    ) -> Any:
        """Call ``check`` every so often until what it returns is enough; await what this returns.

        Args:
            check: sync or async; what it returns is the *state*. If it takes a parameter, it is
                given the last state, ``initial`` (default: None) at first.
            initial: the state for the first poll; any JSON value, or None.
            every: a duration of at least a second, the delay between two polls. The first poll is
                at once.
            until: says of a state whether it is enough. Default: one that is true, as `bool` says.
            backoff: a number from 1, by which the delay is multiplied after each poll. Default: 1.
            max_every: the longest delay, a duration. Default: 5 minutes, or ``every`` if longer.
            timeout: a duration, counted from the recorded start. The last poll is when it is over.
            max_attempts: the largest number of polls.
            name: the operation's name. Default: that of ``check``.
            key: an identity that does not depend on the position; see `Step.options`.
            result_type: the type of the states. Default: the return annotation of ``check``.

        Returns:
            The state that was enough.

        Raises:
            ConditionTimeoutError: ``timeout`` or ``max_attempts`` is reached.
            Exception: what ``check`` or ``until`` raised, at once. `RetryableError` alone asks for
                another poll with the same state; a longer ``retry_after`` delays it.
            UsageError: an argument can't be used.
        """
        execution = self._running("ctx.wait_for_condition()")
        call = ConditionCall(check, initial, until, result_type, _Schedule.of(every, options))
        return call.coroutine(execution)


class BlockingConditionCalls(_OfExecution):
    """Conditions of a ``def`` workflow."""

    @overload
    def wait_for_condition(
        self,
        check: Callable[..., Any],
        initial: Any = ...,
        *,
        every: Duration,
        until: Callable[[T], object] = ...,
        result_type: type[T],
        **options: Unpack[ConditionKeywords],
    ) -> T: ...

    @overload
    def wait_for_condition(
        self,
        check: Callable[..., Coroutine[Any, Any, T]],
        initial: Any = ...,
        *,
        every: Duration,
        until: Callable[[T], object] = ...,
        result_type: Any = ...,
        **options: Unpack[ConditionKeywords],
    ) -> T: ...

    @overload
    def wait_for_condition(
        self,
        check: Callable[..., T],
        initial: Any = ...,
        *,
        every: Duration,
        until: Callable[[T], object] = ...,
        result_type: Any = ...,
        **options: Unpack[ConditionKeywords],
    ) -> T: ...

    def wait_for_condition(
        self,
        check: Callable[..., Any],
        initial: Any = _NONE_GIVEN,
        *,
        every: Duration,
        until: Callable[[Any], object] = bool,
        result_type: Any = Any,
        **options: Unpack[ConditionKeywords],
    ) -> Any:
        """Call ``check`` every so often until what it returns is enough; block until then.

        The options and errors are those of `WorkflowContext.wait_for_condition`.
        """
        execution = self._running("ctx.wait_for_condition()")
        call = ConditionCall(check, initial, until, result_type, _Schedule.of(every, options))
        return call.blocking(execution)


# -- a call, checked -----------------------------------------------------------------------------


class _Settings(msgspec.Struct, frozen=True):
    """What the engine and the runtime are told."""

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
    """One call of ``ctx.wait_for_condition``."""

    def __init__(
        self,
        check: Callable[..., Any],
        initial: Any,
        until: Callable[[Any], object],
        result_type: Any,
        schedule: _Schedule,
    ) -> None:
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
        self._takes_state = _takes_state(check, initial is not _NONE_GIVEN, what)
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
        """Wait; block until the condition is met."""
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
        """Return when polls follow each other, and how many there may be."""
        delay = whole_seconds(self.every)
        if delay == 0:
            raise UsageError(f"every= of {what} must be longer than 0: the service counts seconds")
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
            raise UsageError(
                f"max_attempts= or backoff= of {what} can't be used: {error}"
            ) from None

    def limit_seconds(self, what: str) -> int | None:
        """Return how long the condition may take, `None` for as long as it likes."""
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
    except ValueError:  # a builtin that does not tell
        return is_given
    by_position = [p for p in parameters if p.kind in _BY_POSITION]
    needed = [p for p in by_position if p.default is p.empty]
    needed += [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    takes_one = bool(by_position) or any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if len(needed) > 1 or (needed and needed[0] not in by_position):
        fault = "takes more than the state"
    elif is_given and not takes_one:
        fault = "takes no state, but initial= gives it one"
    elif by_position and not needed and not is_given:
        fault = "may or may not be given the state"
    else:
        return bool(needed) or is_given
    raise UsageError(
        f"the check of {what} {fault}: {check!r}. It is called with the last state if it has a "
        "parameter for it (give initial=... if that has a default), and with nothing otherwise: "
        "lambda: is_ready(order_id)"
    )


def _encoded(initial: Any, result_type: object, what: str) -> str:
    if initial is _NONE_GIVEN or initial is None:
        return "null"
    text = codec.text_of(initial, what=what)
    codec.decode(text, result_type, what=what)
    return text


def _polling(
    check: Callable[..., Any], result_type: object, what: str, *, converts: bool
) -> Callable[..., Any]:
    """Return the body of a poll. It has a state of its own, and may change it."""
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
