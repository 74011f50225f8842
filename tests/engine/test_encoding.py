"""An `Encoding` in the place of a result's type: it alone says how values are written and read."""

from __future__ import annotations

from typing import Any

import pytest

from pyworkflow._engine.messages import Failed, Succeeded
from pyworkflow._values import codec
from pyworkflow._values.codec import Encoding
from tests.engine.harness import Run


class Reversed(Encoding):
    """Text written backwards; an empty one is stored as nothing."""

    def encode(self, value: Any) -> str | None:
        return str(value)[::-1] or None

    def decode(self, text: str | None) -> Any:
        return "nothing" if text is None else text[::-1]


class Broken(Encoding):
    def encode(self, value: Any) -> str | None:
        raise LookupError("no words for it")


@pytest.mark.parametrize(
    ("value", "text", "received"),
    [("abc", "cba", "abc"), (float("nan"), "nan", "nan"), ("", None, "nothing")],
)
def test_a_value_goes_there_and_back(value: Any, text: str | None, received: str) -> None:
    encoding = Reversed()
    assert codec.roundtrip(value, encoding, what="it") == (text, received)
    assert codec.decode(text, encoding, what="it") == received


def test_what_it_raises_is_raised() -> None:
    with pytest.raises(LookupError, match="no words"):
        codec.roundtrip(1, Broken(), what="it")
    with pytest.raises(NotImplementedError):
        codec.decode("1", Broken(), what="it")
    with pytest.raises(NotImplementedError):
        Encoding().encode(1)


def test_no_cache_keeps_it() -> None:
    with pytest.raises(TypeError):
        hash(Reversed())


def test_it_may_be_a_workflow_s() -> None:
    async def main() -> str:
        return "done"

    run = Run(main, result_type=Reversed())
    assert run.end == Succeeded("enod", "done") or isinstance(run.end, Succeeded)
    assert (run.end.payload, run.value) == ("enod", "done")
    failed = Run(main, result_type=Broken()).end
    assert isinstance(failed, Failed)
    assert failed.record.type == "LookupError"
