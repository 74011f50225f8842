"""`AsyncClient`: start, follow and run executions, and answer their callbacks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

import msgspec

from pyworkflow import services
from pyworkflow._api.completion import check_count
from pyworkflow._local.arguments import (
    answer_of,
    check_input,
    checked_limit,
    checked_status,
    checked_time,
    checked_timeout,
)
from pyworkflow._local.async_handle import AsyncHandle, Identity, id_of
from pyworkflow._local.completion import Completions
from pyworkflow._local.opening import Opening
from pyworkflow._local.registry import Registry, workflow_of
from pyworkflow._local.worker import MAX_CONCURRENT, Worker
from pyworkflow._protocol.executions import Markers, Paged
from pyworkflow._runtime.clock import SkippingClock, SystemClock
from pyworkflow._values import codec
from pyworkflow._values.exceptions import record_report
from pyworkflow.duration import parse_duration
from pyworkflow.errors import ExecutionAlreadyStartedError, ExecutionNotFoundError, UsageError
from pyworkflow.services import processes
from pyworkflow.services.errors import is_text, no_backup, not_found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from types import TracebackType
    from typing import Self, TypeAlias

    from pyworkflow._api.workflow import EntryPoint, Workflow
    from pyworkflow._local.registry import Source
    from pyworkflow._protocol.executions import ExecutionStatus, ExecutionSummary, Filters
    from pyworkflow._runtime.clock import Clock
    from pyworkflow.duration import Duration

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_PATH = "pyworkflow.db"
GRACE = "10s"
READ_AT_ONCE = 500
"""The page size in which a long list is read."""

if TYPE_CHECKING:
    Startable: TypeAlias = Workflow[P, R] | EntryPoint[P, R]
    """Anything to start: a workflow, or an entry point that wraps one."""


class AsyncClient:
    """Executions on one machine. Use it with ``async with``; `local` and `memory` make it.

    While it is open, with ``worker=True``, it also runs executions of the workflows that it knows:
    those given as ``workflows`` and those that were started as objects.
    """

    def __init__(
        self,
        open_service: Callable[[Clock], services.Service],
        *,
        worker: bool,
        workflows: Iterable[Source],
        skip_time: bool,
        max_concurrent: int,
        grace: Duration,
    ) -> None:
        self._open_service = open_service
        self._registry = Registry(workflows)
        self._has_worker = worker
        self.clock: Clock = SkippingClock() if skip_time else SystemClock()
        self._max_concurrent = max_concurrent
        check_count(max_concurrent, "max_concurrent", 1, "a client")
        self.grace_seconds = parse_duration(grace)
        self._open: _OpenClient | None = None

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
        url = services.sqlite_url(path)

        def open_service(clock: Clock) -> services.Service:
            return services.open(
                url, clock.now_ms, machine_ms=SystemClock().now_ms, durability=durability
            )

        return cls(
            open_service,
            worker=worker,
            workflows=workflows,
            skip_time=skip_time,
            max_concurrent=max_concurrent,
            grace=grace,
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

        def open_service(clock: Clock) -> services.Service:
            return services.open("memory:", clock.now_ms, machine_ms=SystemClock().now_ms)

        return cls(
            open_service,
            worker=True,
            workflows=workflows,
            skip_time=skip_time,
            max_concurrent=max_concurrent,
            grace=grace,
        )

    # -- open and closed -------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._open is not None:
            processes.check_process(self._open.process, "this client")
            raise UsageError("this client is open already; make another one")
        service = await Opening(partial(self._open_service, self.clock)).wait()
        completions = Completions(service)
        worker = None
        if self._has_worker:
            worker = Worker(
                service, self._registry, self.clock, max_concurrent=self._max_concurrent
            )
        self._open = _OpenClient(service, completions, worker)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._open is not None and self._open.process != processes.here:
            return  # a forked process has nothing of its own to close
        opened, self._open = self._opened, None
        await opened.close(self.grace_seconds)

    async def join(self) -> None:
        """Wait until the worker ends, which only an error makes it do, and raise that error."""
        if self._opened.working is None:
            raise UsageError("this client has no worker; pass worker=True")
        await asyncio.shield(self._opened.working)

    # -- executions ------------------------------------------------------------------------------

    @overload
    async def start(
        self,
        workflow: Startable[P, Coroutine[Any, Any, R]],
        input: Any = ...,
        *,
        execution_name: str | None = ...,
        timeout: Duration | None = ...,
    ) -> AsyncHandle[R]: ...

    @overload
    async def start(
        self,
        workflow: Startable[P, R],
        input: Any = ...,
        *,
        execution_name: str | None = ...,
        timeout: Duration | None = ...,
    ) -> AsyncHandle[R]: ...

    @overload
    async def start(
        self,
        workflow: str,
        input: Any = ...,
        *,
        execution_name: str | None = ...,
        timeout: Duration | None = ...,
    ) -> AsyncHandle[Any]: ...

    async def start(
        self,
        workflow: Any,
        input: Any = None,  # noqa: A002 - the public name of the argument
        *,
        execution_name: str | None = None,
        timeout: Duration | None = None,
    ) -> AsyncHandle[Any]:
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
        opened, seconds = self._opened, checked_timeout(timeout)
        name, known = self._resolve(workflow)
        payload = codec.encode(input, what=f"the input of workflow {name!r}")
        if known is not None:
            self._registry.add(known)
            await check_input(opened.service, known, payload, execution_name)
        elif opened.worker is not None:
            self._registry.get(name)
        identity = await self._start(name, payload, execution_name, seconds)
        if opened.worker is not None:
            opened.worker.wake()
        return self._handle(identity, known)

    async def _start(
        self, name: str, payload: str, execution_name: str | None, timeout_seconds: int | None
    ) -> Identity:
        service = self._opened.service
        try:
            execution_id = await service.start(
                name, payload, execution_name=execution_name, timeout_seconds=timeout_seconds
            )
        except ExecutionAlreadyStartedError:
            # The fields of an object may come in another order.
            found = await service.list(
                workflow_name=name, execution_name=execution_name, payloads=True
            )
            same = [each for each in found if _are_equal(each.input_payload, payload)]
            if not same:
                raise
            return Identity.of(same[0])
        # Without a name of its own, an execution is called by its id.
        return Identity(execution_id, execution_name or execution_id, name)

    @overload
    async def get(
        self, id_or_name: str, workflow: Startable[P, Coroutine[Any, Any, R]]
    ) -> AsyncHandle[R]: ...

    @overload
    async def get(self, id_or_name: str, workflow: Startable[P, R]) -> AsyncHandle[R]: ...

    @overload
    async def get(self, id_or_name: str, workflow: str | None = ...) -> AsyncHandle[Any]: ...

    async def get(self, id_or_name: str, workflow: Any = None) -> AsyncHandle[Any]:
        """Return the execution with that id or name, of ``workflow`` if given.

        Raises `ExecutionNotFoundError`, and `UsageError` if executions of several workflows have
        the name.
        """
        name, known = (None, None) if workflow is None else self._resolve(workflow)
        summary = await self._find(id_or_name, name)
        known = known or self._registry.find(summary.workflow_name)
        return self._handle(Identity.of(summary), known)

    async def list(
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
        service = self._opened.service
        name = None if workflow is None else self._resolve(workflow)[0]
        most = checked_limit(limit)
        filters: Filters = {
            "workflow_name": name,
            "status": checked_status(status),
            "execution_name": execution_name,
            "name_prefix": name_prefix,
            "id_prefix": id_prefix,
            "started_from_ms": checked_time(started_from, "started_from"),
            "started_before_ms": checked_time(started_before, "started_before"),
            "has_problem": has_problem,
        }
        texts = (name, execution_name, name_prefix, id_prefix)
        if not all(given is None or is_text(given) for given in texts):
            return Paged()  # no execution can have such a name
        return await _listed(service, most, after, payloads=payloads, filters=filters)

    async def release(self, execution: str | AsyncHandle[Any]) -> ExecutionSummary:
        """Take an execution from its worker, so that others can continue it; return its summary.

        For an execution whose worker is frozen: a living process keeps its executions. Unrecorded
        work is lost, and a step still running there runs a second time, unless it is
        ``at_most_once``. Both workers log it. ``execution`` is a handle, an id or a name.

        Raises `ExecutionNotFoundError`, and `ServiceError` if no worker has the execution.
        """
        found = await self._find(id_of(execution), None)
        service = self._opened.service
        services.require(
            service, services.Capability.RELEASE, "end the process of its worker, or wait for it"
        )
        return await service.revoke(found.id)

    # -- callbacks -------------------------------------------------------------------------------

    async def complete_callback(self, callback_id: str, result: Any = None) -> None:
        """Complete a callback with ``result``, any JSON value; bytes are sent as they are.

        It is durable when this returns. Raises `CallbackNotFoundError`,
        `CallbackAlreadyCompletedError` and `ExecutionEndedError`, and then changes nothing;
        `SerializationError` if the result has no JSON, `UsageError` for bytes that are not UTF-8.
        """
        payload = answer_of(result, "the result of a callback")
        await self._opened.service.complete_callback(callback_id, payload)

    async def fail_callback(
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
        record = record_report(error, error_type)
        await self._opened.service.fail_callback(callback_id, record)

    async def heartbeat_callback(self, callback_id: str) -> None:
        """Report that a callback's sender is still at work; raises as `complete_callback`."""
        await self._opened.service.heartbeat_callback(callback_id)

    # -- the file --------------------------------------------------------------------------------

    async def backup(
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
        service = self._opened.service
        if services.Capability.BACKUP not in service.capabilities:
            raise no_backup()
        await service.backup(os.fspath(path), on_progress)

    # -- parts -----------------------------------------------------------------------------------

    @property
    def _opened(self) -> _OpenClient:
        if self._open is None:
            raise UsageError("this client is not open: use it inside `async with client:`")
        processes.check_process(self._open.process, "this client")
        return self._open

    def _resolve(self, workflow: object) -> tuple[str, Workflow[..., Any] | None]:
        """Return the name of a workflow, and the workflow itself where it is known."""
        if isinstance(workflow, str):
            return workflow, self._registry.find(workflow)
        given = workflow_of(workflow)
        if given is None:
            raise UsageError(f"expected a function with @workflow, or its name, found {workflow!r}")
        return given.name, given

    async def _find(self, id_or_name: str, workflow_name: str | None) -> ExecutionSummary:
        service = self._opened.service
        if not is_text(id_or_name):
            raise not_found(id_or_name)
        try:
            found = await service.get(id_or_name)
        except ExecutionNotFoundError:
            named = await service.list(execution_name=id_or_name, workflow_name=workflow_name)
            if not named:
                raise
            if len(named) > 1:
                owners = ", ".join(sorted(repr(each.workflow_name) for each in named))
                raise UsageError(
                    f"executions of several workflows have the name {id_or_name!r}: {owners}; pass "
                    "workflow=, or the id"
                ) from None
            return named[0]
        if workflow_name not in {None, found.workflow_name}:
            raise UsageError(
                f"execution {id_or_name!r} is one of {found.workflow_name!r}, not of "
                f"{workflow_name!r}"
            )
        return found

    def _handle(self, identity: Identity, workflow: Workflow[..., Any] | None) -> AsyncHandle[Any]:
        opened = self._opened
        result_type = Any if workflow is None else workflow.result_type
        return AsyncHandle(opened.service, opened.completions, identity, result_type)


class _OpenClient:
    """The parts of an open client."""

    def __init__(
        self, service: services.Service, completions: Completions, worker: Worker | None
    ) -> None:
        self.service = service
        self.completions = completions
        self.worker = worker
        self.process = processes.here
        self.working: asyncio.Task[None] | None = None
        if worker is not None:
            self.working = asyncio.get_running_loop().create_task(worker.run())
            self.working.add_done_callback(self._on_worker_ended)

    def _on_worker_ended(self, working: asyncio.Task[None]) -> None:
        if not working.cancelled() and (error := working.exception()) is not None:
            self.completions.fail(error)

    async def close(self, grace_seconds: float) -> None:
        self.completions.close()
        self.completions.fail(UsageError("the client was closed while a call waited for a result"))
        try:
            if self.worker is not None and self.working is not None:
                self.worker.stop(grace_seconds)
                await asyncio.wait([self.working])
        finally:
            await self.service.close()


def _are_equal(one: str, other: str) -> bool:
    return bool(msgspec.json.decode(one) == msgspec.json.decode(other))


async def _listed(
    service: services.Executions,
    most: int | None,
    after: str | None,
    *,
    payloads: bool,
    filters: Filters,
) -> Paged[ExecutionSummary]:
    """Return up to ``most`` executions, read in pages."""
    found: list[ExecutionSummary] = []
    markers = Markers(service)
    while True:
        size = READ_AT_ONCE if most is None else min(READ_AT_ONCE, most - len(found))
        page = await service.list(limit=size, after=after, payloads=payloads, **filters)
        found += page
        if page.marker is None or (most is not None and len(found) >= most):
            return Paged(found, page.marker)
        after = markers.follow(page.marker)
