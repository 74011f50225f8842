"""`History` over AWS Lambda durable functions.

Nothing is kept between two calls: Lambda has the history, the runner has the token. The response to
a checkpoint contains what changed, our own updates included, on any of its pages. An update that it
leaves out is read from the execution's state, since the engine orders ends by the times that the
service recorded. Only operations that are also missing there, such as everything below a
completed context, are computed here, by the table of legal moves.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Self

from pyworkflow._protocol import limits, moves, wire
from pyworkflow._protocol.executions import Committed, Markers
from pyworkflow._protocol.records import OperationType
from pyworkflow.services.awslambda import _checks

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine, Sequence

    from pyworkflow._protocol.executions import Page
    from pyworkflow._protocol.records import Operation, Update
    from pyworkflow.services.awslambda._client import LambdaClient


class LambdaService:
    """The history of executions on Lambda; one instance serves the whole process."""

    def __init__(self, client: LambdaClient) -> None:
        self._client = client

    @classmethod
    def from_environment(cls, now_ms: Callable[[], int]) -> Self:
        """Return the service of this function, whose region and credentials the environment has.

        ``now_ms`` returns milliseconds since the epoch. Raises `ServiceError` if there is no
        region, if there are no credentials, or if the endpoint is not a URL.
        """
        # Imported here: where no request is sent, as in tests, nothing that speaks HTTP is needed.
        from pyworkflow.services.awslambda._client import LambdaClient
        from pyworkflow.services.awslambda._environment import Access

        return cls(LambdaClient(Access.from_environment(), now_ms))

    def close(self) -> None:
        """Close the connections; the service can't be used after that."""
        self._client.close()

    async def load(self, execution_id: str, token: str, marker: str) -> Page:
        """Return the page that ``marker`` names, the first for ""; ``token`` is the newest.

        Raises `ServiceError` and its subclasses.
        """
        query: dict[str, str | int] = {"CheckpointToken": token, "MaxItems": limits.PAGE_OPERATIONS}
        if marker:
            query["Marker"] = marker
        path = _path(execution_id, "state")
        return await self._client.get(*path, read=wire.page_from_response, **query)

    def commit(
        self, execution_id: str, token: str, updates: Sequence[Update]
    ) -> asyncio.Future[Committed]:
        """Apply ``updates`` atomically; return the next token and what changed, ours included.

        Raises `InvalidUpdateError`, before anything is sent, for updates that Lambda would refuse;
        `RequestRefusedError`, `StaleTokenError` and `ServiceUnavailableError` by its response.
        """
        # All attempts of this call have the same ClientToken: Lambda applies it once.
        body = _body(token, updates, os.urandom(16).hex())

        def read(content: bytes) -> Committed | Coroutine[Any, Any, Committed]:
            committed = wire.committed_from_response(content)
            missing = _missing(committed, updates)
            return self._completed(execution_id, committed, missing) if missing else committed

        path = _path(execution_id, "checkpoint")
        return self._client.post(*path, body=body, read=read)

    async def _completed(
        self, execution_id: str, committed: Committed, missing: Sequence[Update]
    ) -> Committed:
        """Return ``committed`` with the operations of ``missing``, absent from its first page."""
        token, operations, marker = committed.token, list(committed.operations), committed.marker
        assert token is not None, "without a token nothing is missing"
        ids = {update.id for update in missing}
        markers = Markers(execution_id)
        while ids and marker is not None:
            page = await self.load(execution_id, token, markers.follow(marker))
            operations += page.operations
            marker = page.marker
            ids.difference_update(found.id for found in page.operations)
        if ids:
            state = await self._state(execution_id, token)
            operations += [found for found in state if found.id in ids]
            ids.difference_update(found.id for found in state)
            operations += _made_by([update for update in missing if update.id in ids], state)
        return Committed(token, tuple(operations), marker)

    async def _state(self, execution_id: str, token: str) -> list[Operation]:
        operations: list[Operation] = []
        marker: str | None = ""
        markers = Markers(execution_id)
        while marker is not None:
            page = await self.load(execution_id, token, markers.follow(marker))
            operations += page.operations
            marker = page.marker
        return operations


def _body(token: str, updates: Sequence[Update], client_token: str) -> bytes:
    """Return the request for ``updates``, checked against all limits."""
    checked = map(_checks.checked, updates)
    shapes = tuple([wire.shape_of(update, wire.OperationUpdate) for update in checked])
    body = wire.encoded(wire.CheckpointRequest(token, shapes, client_token))
    size = len(body)
    if size > limits.MAX_BATCH_BYTES:
        size -= len(wire.encoded(wire.CheckpointRequest(token, (), client_token)))
    _checks.check_batch(len(shapes), size)
    return body


def _missing(committed: Committed, updates: Sequence[Update]) -> list[Update]:
    """Return the ``updates`` whose operations are not in the response and can still be read.

    After the execution's own end nothing can be read, and nothing needs to be.
    """
    if committed.token is None:
        return []
    found = {operation.id for operation in committed.operations}
    return [
        update
        for update in updates
        if update.id not in found and update.type is not OperationType.EXECUTION
    ]


def _made_by(updates: Sequence[Update], state: Sequence[Operation]) -> list[Operation]:
    """Return the operations that ``updates`` create, at the latest time found in ``state``."""
    now_ms = max((found.end_ms or found.start_ms for found in state), default=0)
    made: dict[str, Operation] = {}
    for update in updates:
        made[update.id] = moves.apply(update, made.get(update.id), now_ms)
    return list(made.values())


def _path(execution_id: str, end: str) -> tuple[str, ...]:
    return "2025-12-01", "durable-executions", execution_id, end
