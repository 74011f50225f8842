from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Collection
from typing import Any

import pytest

from pyworkflow._local import heartbeat
from pyworkflow._local.heartbeat import Heartbeat
from pyworkflow.errors import ServiceUnavailableError
from tests.runtime.local import PATIENCE


class Hurt:
    """Raises whatever it is given, one at each renewal, and says when it has nothing left."""

    def __init__(self, *errors: BaseException) -> None:
        self._errors = list(errors)
        self.is_well = threading.Event()

    def renew_now(self) -> None:
        if self._errors:
            raise self._errors.pop(0)
        self.is_well.set()

    async def renew(self, _owner: str, _execution_ids: Collection[str]) -> None:
        self.renew_now()


@pytest.fixture(autouse=True)
def _beats_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.001)


def beat_until_well(beating: Heartbeat, hurt: Hurt) -> None:
    beating.start()
    assert hurt.is_well.wait(PATIENCE)
    asyncio.run(beating.stop())


ERRORS: tuple[BaseException, ...] = (
    RuntimeError("unexpected"),
    ServiceUnavailableError("disk full"),
    asyncio.CancelledError(),
    SystemExit(1),
    MemoryError(),
)


def test_the_heartbeat_survives_any_error_of_the_service(caplog: pytest.LogCaptureFixture) -> None:
    hurt = Hurt(*ERRORS)
    beat_until_well(Heartbeat(hurt, "me", lambda: ["e"], lambda: None), hurt)  # type: ignore[arg-type]
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.ERROR, logging.WARNING, *[logging.ERROR] * 3]
    assert "RuntimeError: unexpected" in caplog.text


@pytest.mark.parametrize("where", ["leased", "on_beat", "watch"])
def test_the_heartbeat_survives_any_error_of_its_worker(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    hurt = Hurt(*ERRORS)

    class Watch:
        async def beat(self, _seconds: float) -> None:
            hurt.renew_now()

    def fail() -> Any:
        hurt.renew_now()
        return ()

    parts: dict[str, Any] = {"leased": tuple, "on_beat": lambda: None, "watch": None}
    parts[where] = Watch() if where == "watch" else fail
    beat_until_well(Heartbeat(hurt, "me", **parts), hurt)  # type: ignore[arg-type]
    assert len(caplog.records) == len(ERRORS)
