"""Bases of `Client` and `Handle`: the loop thread on which they call their async twins.

Everything happens on one loop in a thread, steps and workflow code included. So a call blocks only
its caller. Called on a running loop (a notebook), it works while that loop stands still; called on
the client's own loop, in an async step, it is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pyworkflow._engine.current import current_execution
from pyworkflow._local.loop_thread import LoopThread
from pyworkflow._local.waits import waiting_for
from pyworkflow._local.worker import UNWINDING_SECONDS
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType
    from typing import Self

    from pyworkflow._local.async_client import AsyncClient
    from pyworkflow._local.async_handle import AsyncHandle
    from pyworkflow.duration import Duration

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


class BlockingClient:
    """An async client on a loop thread, which runs while the client is open."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._thread: LoopThread | None = None

    def __enter__(self) -> Self:
        if self._thread is not None:
            self._thread.check_process()
            raise UsageError("this client is open already; make another one")
        seconds = self._client.grace_seconds + UNWINDING_SECONDS
        thread = LoopThread("a client", self._client, seconds)
        thread.start()
        self._thread = thread
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        thread, self._thread = self._opened, None
        is_interrupted = kind is not None and not issubclass(kind, Exception)
        thread.stop(waits_if_blocked=not is_interrupted)

    def call(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run the coroutine that ``function`` makes on the client's loop, and return its result."""
        if current_execution() is not None:
            raise UsageError(
                "a client was called in workflow code, where its answer would not be recorded: "
                "call it in a @step, or use ctx.invoke"
            )
        return self._opened.call(function)

    @property
    def _opened(self) -> LoopThread:
        if self._thread is None:
            raise UsageError("this client is not open: use it inside `with client:`")
        return self._thread


class BlockingHandle(Generic[R_co]):
    """An async handle, called through its client."""

    def __init__(self, client: BlockingClient, handle: AsyncHandle[R_co]) -> None:
        self._client = client
        self._handle = handle
        self.id = handle.id
        self.name = handle.name
        self.workflow_name = handle.workflow_name

    def __repr__(self) -> str:
        return repr(self._handle)

    def _wait_for_result(self, timeout: Duration | None) -> R_co:
        with waiting_for(self):  # in the thread that waits, not on the loop
            return self._client.call(lambda: self._handle.wait_for_result(timeout))
