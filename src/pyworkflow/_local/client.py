"""`Client` and `run`: the async client for synchronous code.

Everything happens on one loop in a thread of the client's own, steps and workflow code included. So
its methods block their caller alone; called on a running loop (a notebook) they work, while that
loop stands still. On the client's own loop, in an async step, they are refused.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from pyworkflow._engine.current import current_execution
from pyworkflow._local.async_client import DEFAULT_PATH, GRACE, AsyncClient
from pyworkflow._local.loop_thread import LoopThread
from pyworkflow._local.waits import waiting_for
from pyworkflow._local.worker import MAX_CONCURRENT, UNWINDING_SECONDS
from pyworkflow.errors import UsageError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime
    from types import TracebackType
    from typing import Self

    from pyworkflow._local.async_client import Startable
    from pyworkflow._local.handle import AsyncHandle
    from pyworkflow._local.registry import Source
    from pyworkflow._protocol.executions import ExecutionStatus, ExecutionSummary, Paged
    from pyworkflow._protocol.records import Operation
    from pyworkflow.duration import Duration
    from pyworkflow.services.history import HistoryEvent
    from pyworkflow.services.port import Durability

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


class Client:
    """Executions on one machine. Use it with ``with``; `local` and `memory` make it.

    While it is open, with ``worker=True``, it also runs executions of the workflows that it knows:
    those given as ``workflows`` and those that were started as objects. Its methods may be called
    from any thread, from sync steps too.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._thread: LoopThread | None = None

    @classmethod
    def local(
        cls,
        path: str | os.PathLike[str] = DEFAULT_PATH,
        *,
        worker: bool = True,
        workflows: Iterable[Source] = (),
        durability: Durability = "full",
        skip_time: bool = False,
        max_concurrent: int = MAX_CONCURRENT,
        grace: Duration = GRACE,
    ) -> Self:
        """Return a client of the executions in the SQLite file ``path``, which it makes if needed.

        Args:
            worker: run executions in this process; without it the client only talks, and other
                processes run them.
            workflows: workflows, modules, ``"FILE.py"`` or ``"package.module"``.
            durability: ``"full"``: what was acknowledged survives a power cut; ``"normal"``: a
                crash of the process, and is faster.
            skip_time: let the time that executions wait for pass at once.
            max_concurrent: how many executions run at once in this process; those that wait for
                something count not.
            grace: how long steps that run may take to finish when the client is closed.
        """
        return cls(
            AsyncClient.local(
                path,
                worker=worker,
                workflows=workflows,
                durability=durability,
                skip_time=skip_time,
                max_concurrent=max_concurrent,
                grace=grace,
            )
        )

    @classmethod
    def memory(
        cls,
        *,
        workflows: Iterable[Source] = (),
        skip_time: bool = False,
        max_concurrent: int = MAX_CONCURRENT,
        grace: Duration = GRACE,
    ) -> Self:
        """Return a client whose executions are gone when it is closed: `local`, without a file."""
        return cls(
            AsyncClient.memory(
                workflows=workflows,
                skip_time=skip_time,
                max_concurrent=max_concurrent,
                grace=grace,
            )
        )

    # -- open and closed -------------------------------------------------------------------------

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
            raise UsageError("this client is not open: use it inside of `with client:`")
        return self._thread

    # -- executions ------------------------------------------------------------------------------

    @overload
    def start(
        self,
        workflow: Startable[P, Coroutine[Any, Any, R]],
        input: Any = ...,
        *,
        execution_name: str | None = ...,
        timeout: Duration | None = ...,
    ) -> Handle[R]: ...

    @overload
    def start(
        self,
        workflow: Startable[P, R],
        input: Any = ...,
        *,
        execution_name: str | None = ...,
        timeout: Duration | None = ...,
    ) -> Handle[R]: ...

    @overload
    def start(
        self,
        workflow: str,
        input: Any = ...,
        *,
        execution_name: str | None = ...,
        timeout: Duration | None = ...,
    ) -> Handle[Any]: ...

    def start(
        self,
        workflow: Any,
        input: Any = None,  # noqa: A002 - the public name of the argument
        *,
        execution_name: str | None = None,
        timeout: Duration | None = None,
    ) -> Handle[Any]:
        """Start an execution and return it; it is durable by then.

        Args:
            workflow: a workflow, which this client's worker then runs too, or the name of one.
            input: any JSON value, or what the codec makes one of: an object binds to the
                workflow's parameters by name.
            execution_name: 1-64 of A-Z a-z 0-9 _ -. Starting it again with the same input returns
                the same execution, whether it runs or is over.
            timeout: a duration after which the execution ends as TIMED_OUT, at least a second.

        Raises:
            InputError: the input does not fit the workflow; nothing was recorded.
            SerializationError: the input can't be stored.
            ExecutionAlreadyStartedError: the name stands for another input.
            UsageError: no workflow has that name, and this client is the one to run it.
        """
        handle = self.call(
            lambda: self._client.start(
                workflow, input, execution_name=execution_name, timeout=timeout
            )
        )
        return Handle(self, handle)

    @overload
    def get(self, id_or_name: str, workflow: Startable[P, Coroutine[Any, Any, R]]) -> Handle[R]: ...

    @overload
    def get(self, id_or_name: str, workflow: Startable[P, R]) -> Handle[R]: ...

    @overload
    def get(self, id_or_name: str, workflow: str | None = ...) -> Handle[Any]: ...

    def get(self, id_or_name: str, workflow: Any = None) -> Handle[Any]:
        """Return the execution with that id, or with that name, of ``workflow`` if that is given.

        Raises `ExecutionNotFoundError`, and `UsageError` if executions of several workflows have
        the name.
        """
        return Handle(self, self.call(lambda: self._client.get(id_or_name, workflow)))

    def list(
        self,
        *,
        workflow: Startable[P, Any] | str | None = None,
        status: ExecutionStatus | str | None = None,
        execution_name: str | None = None,
        limit: int | None = None,
        after: str | None = None,
        payloads: bool = False,
        name_prefix: str | None = None,
        id_prefix: str | None = None,
        started_from: datetime | None = None,
        started_before: datetime | None = None,
        has_problem: bool | None = None,
    ) -> Paged[ExecutionSummary]:
        """Return the executions that match every filter given, the newest first, as a tuple.

        Without a ``limit`` that is all of them, in memory at once. With one, the tuple's
        ``marker``, passed as ``after``, leads to the next page. Inputs and results are there with
        ``payloads`` alone. See `AsyncClient.list`.
        """
        return self.call(
            lambda: self._client.list(
                workflow=workflow,
                status=status,
                execution_name=execution_name,
                limit=limit,
                after=after,
                payloads=payloads,
                name_prefix=name_prefix,
                id_prefix=id_prefix,
                started_from=started_from,
                started_before=started_before,
                has_problem=has_problem,
            )
        )

    def release(self, execution: str | Handle[Any]) -> ExecutionSummary:
        """Take an execution from the worker that has it, for others to go on with, and return it.

        For an execution whose worker is frozen: while that process lives, it keeps what it runs.
        What it has not recorded is lost, and a step that runs there still runs a second time,
        unless it is ``at_most_once``. Both sides log it. Takes a handle, an id or a name.

        Raises `ExecutionNotFoundError`, and `ServiceError` when no worker has the execution.
        """
        given = execution.id if isinstance(execution, Handle) else execution
        return self.call(lambda: self._client.release(given))

    # -- callbacks -------------------------------------------------------------------------------

    def complete_callback(self, callback_id: str, result: Any = None) -> None:
        """Let a callback succeed with ``result``, any JSON value; bytes are sent as they are.

        It is durable when this returns. Raises `CallbackNotFoundError`,
        `CallbackAlreadyCompletedError` and `ExecutionEndedError`; nothing was changed then.
        `SerializationError` for a result without JSON, `UsageError` for bytes that are not UTF-8.
        """
        self.call(lambda: self._client.complete_callback(callback_id, result))

    def fail_callback(
        self,
        callback_id: str,
        error: BaseException | str = "the sender failed",
        *,
        error_type: str | None = None,
    ) -> None:
        """Let a callback fail with a message or an exception; raises as `complete_callback`.

        ``error_type`` is what the sender calls it; default: the name of the exception's class. The
        workflow gets a `CallbackError` that carries both.
        """
        self.call(lambda: self._client.fail_callback(callback_id, error, error_type=error_type))

    def heartbeat_callback(self, callback_id: str) -> None:
        """Say that the sender of a callback is still at work; raises as `complete_callback`."""
        self.call(lambda: self._client.heartbeat_callback(callback_id))

    # -- the file --------------------------------------------------------------------------------

    def backup(
        self,
        path: str | os.PathLike[str],
        *,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Copy all executions into a new file, in the state that they have now.

        It is safe while everything runs, in this process and in others, and delays nothing. The
        file appears when it is complete and on the disk.

        Args:
            path: where to; nothing may be there.
            on_progress: called now and then, on another thread, with the number of bytes that were
                copied and that there are.

        Raises:
            UsageError: something is there already, or no folder for it; or this is a client of
                executions in memory.
            ServiceError: the copy can't be written, the disk is full for one.
        """
        self.call(lambda: self._client.backup(path, on_progress=on_progress))


class Handle(Generic[R_co]):
    """An execution: ``id``, its ``name``, the ``workflow_name``. A client makes it."""

    def __init__(self, client: Client, handle: AsyncHandle[R_co]) -> None:
        self._client = client
        self._handle = handle
        self.id = handle.id
        self.name = handle.name
        self.workflow_name = handle.workflow_name

    def __repr__(self) -> str:
        return repr(self._handle)

    def result(self, timeout: Duration | None = None) -> R_co:
        """Wait for the end of the execution and return its result.

        It has the workflow's result type where the workflow is known to the client, else it is
        plain JSON. Raises the workflow's own error (`ExecutionFailedError` where its class is not
        known here), `ExecutionStoppedError`, `ExecutionTimedOutError`; `TimeoutError` after
        ``timeout``, a duration of the machine's time: the execution goes on; and `DeadlockError`
        in a step, if too many steps of this process wait for executions.
        """
        with waiting_for(self):
            return self._client.call(lambda: self._handle.wait_for_result(timeout))

    def status(self) -> ExecutionStatus:
        """Return where the execution stands."""
        return self._client.call(self._handle.status)

    def summary(self) -> ExecutionSummary:
        """Return the execution as a whole: status, times, input, result or error, problems."""
        return self._client.call(self._handle.summary)

    def operations(self) -> Sequence[Operation]:
        """Return the durable operations in the order of their start, the EXECUTION one first."""
        return self._client.call(self._handle.operations)

    def history(self) -> Sequence[HistoryEvent]:
        """Return what happened, in order, as AWS records it."""
        return self._client.call(self._handle.history)

    def stop(self, reason: str = "stopped by a client") -> ExecutionSummary:
        """End the execution as STOPPED, and return it; one that is over stays as it is.

        What runs of it is cancelled. No ``finally`` or ``except`` of the workflow may issue
        anything any more, so compensate from outside.
        """
        return self._client.call(lambda: self._handle.stop(reason))


@overload
def run(
    workflow: Startable[P, Coroutine[Any, Any, R]],
    input: Any = ...,
    *,
    db: str | os.PathLike[str] | None = ...,
    execution_name: str | None = ...,
    skip_time: bool = ...,
    workflows: Iterable[Source] = ...,
) -> R: ...


@overload
def run(
    workflow: Startable[P, R],
    input: Any = ...,
    *,
    db: str | os.PathLike[str] | None = ...,
    execution_name: str | None = ...,
    skip_time: bool = ...,
    workflows: Iterable[Source] = ...,
) -> R: ...


def run(
    workflow: Any,
    input: Any = None,  # noqa: A002 - the public name of the argument
    *,
    db: str | os.PathLike[str] | None = None,
    execution_name: str | None = None,
    skip_time: bool = False,
    workflows: Iterable[Source] = (),
) -> Any:
    """Run a workflow from a script: start it, see it to its end, and return its result.

    Args:
        workflow: a function with `@workflow`.
        input: any JSON value, or what the codec makes one of: an object binds to the workflow's
            parameters by name.
        db: the SQLite file that keeps the execution; without it, memory does.
        execution_name: with ``db``, running again under this name with the same input goes on with
            the same execution, and returns its result if it is over.
        skip_time: let the time that it waits for pass at once.
        workflows: what it invokes, as for `Client.local`.

    Raises:
        InputError: the input does not fit; nothing was recorded.
        ExecutionAlreadyStartedError: the name stands for another input.

    What the workflow raises is raised here.
    """
    if db is None:
        client = Client.memory(workflows=workflows, skip_time=skip_time)
    else:
        client = Client.local(db, workflows=workflows, skip_time=skip_time)
    with client:
        return client.start(workflow, input, execution_name=execution_name).result()
