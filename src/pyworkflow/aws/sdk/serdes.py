"""Payloads in the encodings of AWS's SDK: its own serdes, or custom ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aws_durable_execution_sdk_python.exceptions import SerDesError
from aws_durable_execution_sdk_python.serdes import SerDes, deserialize, serialize

from pyworkflow._values.codec import Encoding
from pyworkflow.aws.sdk.errors import surface

if TYPE_CHECKING:
    from pyworkflow._engine.ops.base import Op


class SerDesEncoding(Encoding):
    """The encoding of a serdes for one operation; without a serdes, the SDK's default."""

    def __init__(self, serdes: SerDes[Any] | None, operation_id: str, execution_id: str) -> None:
        self._serdes = serdes
        self._operation_id = operation_id
        self._execution_id = execution_id

    def encode(self, value: Any) -> str | None:
        """Return the text for ``value``; `None` is stored as nothing. Raises `SerDesError`."""
        text: object = serialize(self._serdes, value, self._operation_id, self._execution_id)
        if text is None or isinstance(text, str):
            return text
        raise SerDesError(
            f"Operation {self._operation_id}: expected text from {type(self._serdes).__qualname__}"
            f".serialize, found {type(text).__name__}. Only text can be stored."
        )

    def decode(self, text: str | None) -> Any:
        """Return the value of ``text``. Raises `SerDesError`."""
        if text is None:
            return None
        return deserialize(self._serdes, text, self._operation_id, self._execution_id)


class JsonEncoding(Encoding):
    """Plain JSON, as the result of an execution is written."""

    def encode(self, value: Any) -> str:
        """Return ``value`` as JSON; raises `TypeError` if it has no JSON form."""
        return json.dumps(value)

    def decode(self, text: str | None) -> Any:
        """Return the JSON value."""
        return None if text is None else json.loads(text)


def give(op: Op, payload: str | None, encoding: Encoding) -> None:
    """Complete ``op`` with a recorded payload, or with the error of its serdes."""
    try:
        value = encoding.decode(payload)
    except Exception as error:
        surface(op, error)
    else:
        op.future.set_result(value)
