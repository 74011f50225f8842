"""`run`: run a workflow to its end from a script."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from pyworkflow._local.client import Client

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from pyworkflow._local.async_client import Startable
    from pyworkflow._local.registry import Source

P = ParamSpec("P")
R = TypeVar("R")


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
    """Run a workflow from a script: start it, wait for its end, and return its result.

    Args:
        workflow: a function with `@workflow`.
        input: a value that can be stored as JSON; an object binds to the workflow's parameters by
            name.
        db: the SQLite file that keeps the execution; without it, it is kept in memory.
        execution_name: with ``db``, running again under this name with the same input continues the
            same execution, and returns its result if it is finished.
        skip_time: skip the time that it waits for.
        workflows: the workflows that it invokes, as for `Client.local`.

    Raises:
        InputError: the input does not fit; nothing was recorded.
        ExecutionAlreadyStartedError: the name was started with another input.

    Raises the workflow's own errors.
    """
    if db is None:
        client = Client.memory(workflows=workflows, skip_time=skip_time)
    else:
        client = Client.local(db, workflows=workflows, skip_time=skip_time)
    with client:
        return client.start(workflow, input, execution_name=execution_name).result()
