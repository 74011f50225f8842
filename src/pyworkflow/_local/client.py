# Generated from async_client.py: change that file, then run `make generate`.
"""`Client`: start, follow and run executions, and answer their callbacks."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from pyworkflow import services
from pyworkflow._local import async_client
from pyworkflow._local.async_client import DEFAULT_PATH, GRACE
from pyworkflow._local.async_handle import id_of
from pyworkflow._local.blocking import BlockingClient
from pyworkflow._local.handle import Handle
from pyworkflow._local.worker import MAX_CONCURRENT
from pyworkflow._protocol.executions import Paged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from typing import Self

    from pyworkflow._local.async_client import Startable
    from pyworkflow._local.registry import Source
    from pyworkflow._protocol.executions import ExecutionStatus, ExecutionSummary
    from pyworkflow.duration import Duration

P = ParamSpec("P")
R = TypeVar("R")


class Client(BlockingClient):
    """Executions on one machine. Use it with ``with``; `local` and `memory` make it.

    While it is open, with ``worker=True``, it also runs executions of the workflows that it knows:
    those given as ``workflows`` and those that were started as objects. Its
    methods may be called from any thread, also from sync steps.
    """

    @classmethod
    def local(
        cls,
        path: str | os.PathLike[str] = DEFAULT_PATH,
        *,
        worker: bool = True,
        workflows: Iterable[Source] = (),
        durability: services.Durability = "full",
        skip_time: bool = False,
        max_concurrent: int = MAX_CONCURRENT,
        grace: Duration = GRACE,
    ) -> Self:
        """Return a client of the executions in the SQLite file ``path``, created if needed.

        Args:
            path: the file.
            worker: run executions in this process; without it other processes run them.
            workflows: workflows, modules, ``"FILE.py"`` or ``"package.module"``.
            durability: acknowledged writes survive a power cut (``"full"``), or a crash of the
                process only (``"normal"``, which is faster).
            skip_time: skip the time that executions wait for.
            max_concurrent: the maximum number of executions run concurrently in this process;
                suspended ones don't count.
            grace: how long running steps may take to finish when the client is closed.
        """
        return cls(
            async_client.AsyncClient.local(
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
        """Return a client whose executions exist until it is closed: `local` without a file."""

        return cls(
            async_client.AsyncClient.memory(
                workflows=workflows, skip_time=skip_time, max_concurrent=max_concurrent, grace=grace
            )
        )

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
        """Start an execution and return its handle, once the start is durable.

        Args:
            workflow: a workflow, which this client's worker then also runs, or the name of one.
            input: a value that can be stored as JSON; an object binds to the workflow's parameters
                by name.
            execution_name: 1-64 characters of A-Z a-z 0-9 _ -. Starting it again with the same
                input returns the same execution, running or finished.
            timeout: a duration after which the execution ends as TIMED_OUT, at least a second.

        Raises:
            InputError: the input does not fit the workflow; nothing was recorded.
            SerializationError: the input can't be stored.
            ExecutionAlreadyStartedError: the name was started with another input.
            UsageError: no workflow has that name, but this client's worker would have to run it.
        """
        return Handle(
            self,
            self.call(
                lambda: self._client.start(
                    workflow, input, execution_name=execution_name, timeout=timeout
                )
            ),
        )

    @overload
    def get(self, id_or_name: str, workflow: Startable[P, Coroutine[Any, Any, R]]) -> Handle[R]: ...

    @overload
    def get(self, id_or_name: str, workflow: Startable[P, R]) -> Handle[R]: ...

    @overload
    def get(self, id_or_name: str, workflow: str | None = ...) -> Handle[Any]: ...

    def get(self, id_or_name: str, workflow: Any = None) -> Handle[Any]:
        """Return the execution with that id or name, of ``workflow`` if given.

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
        """Return the executions that match all given filters, newest first, as a tuple.

        Without a ``limit`` it has all of them, in memory at once. They are read in separate pages
        of 500, so a long list delays neither a start nor a step. To read page by page, pass a
        ``limit``, and each page's ``marker`` as ``after``.

        Args:
            workflow: a workflow, or the name of one.
            status: a status.
            execution_name: a whole name.
            limit: the maximum number of executions; by default all. If there may be more, the
                tuple has a ``marker``.
            after: the ``marker`` of the previous page.
            payloads: include inputs and results; without it ``input_payload`` is empty and
                ``result`` is `None`.
            name_prefix: the beginning of the name.
            id_prefix: the beginning of the id.
            started_from: the earliest start, a datetime with a time zone.
            started_before: the start is before this datetime.
            has_problem: whether the execution has a problem that prevents it from going on.

        Raises:
            ExecutionStatusError: the status does not exist.
            UsageError: the limit is negative, or a datetime has no time zone.
            ServiceError: ``after`` is not the marker of a page, or the service returned the same
                marker twice.
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
        """Take an execution from its worker, so that others can continue it; return its summary.

        For an execution whose worker is frozen: a living process keeps its executions. Unrecorded
        work is lost, and a step still running there runs a second time, unless it is
        ``at_most_once``. Both workers log it. ``execution`` is a handle, an id or a name.

        Raises `ExecutionNotFoundError`, and `ServiceError` if no worker has the execution.
        """
        return self.call(lambda: self._client.release(id_of(execution)))

    # -- callbacks -------------------------------------------------------------------------------

    def complete_callback(self, callback_id: str, result: Any = None) -> None:
        """Complete a callback with ``result``, any JSON value; bytes are sent as they are.

        It is durable when this returns. Raises `CallbackNotFoundError`,
        `CallbackAlreadyCompletedError` and `ExecutionEndedError`, and then changes nothing;
        `SerializationError` if the result has no JSON, `UsageError` for bytes that are not UTF-8.
        """
        self.call(lambda: self._client.complete_callback(callback_id, result))

    def fail_callback(
        self,
        callback_id: str,
        error: BaseException | str = "the sender failed",
        *,
        error_type: str | None = None,
    ) -> None:
        """Fail a callback with a message or an exception; raises as `complete_callback`.

        ``error_type`` is the sender's name for the error, by default that of the exception's class.
        The workflow gets a `CallbackError` with both.
        """
        self.call(lambda: self._client.fail_callback(callback_id, error, error_type=error_type))

    def heartbeat_callback(self, callback_id: str) -> None:
        """Report that a callback's sender is still at work; raises as `complete_callback`."""
        self.call(lambda: self._client.heartbeat_callback(callback_id))

    # -- the file --------------------------------------------------------------------------------

    def backup(
        self,
        path: str | os.PathLike[str],
        *,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Copy all executions into a new file, in their present state.

        It is safe while executions run, in this process and in others, and delays nothing. The file
        appears once it is complete and on disk.

        Args:
            path: the new file; it must not exist.
            on_progress: called repeatedly, on another thread, with the number of bytes copied and
                the total.

        Raises:
            UsageError: the file exists, its folder does not, or the client's executions are in
                memory.
            ServiceError: the copy can't be written, for example because the disk is full.
        """
        self.call(lambda: self._client.backup(path, on_progress=on_progress))

    # -- parts -----------------------------------------------------------------------------------
